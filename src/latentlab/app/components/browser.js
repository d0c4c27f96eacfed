// The server's engine until the browser can do it: the program of the session's decoder is fetched while the server
// draws, runs in a Worker, proves itself on a picture that the server drew and sent as it is, and then draws all plain
// pictures.
//
// The server's connection stays: it says when edits change, and draws again whenever the browser can't.
LL.engines.server = ((Server) => {
  const LARGEST = 2; // levels of 255 that a picture may be away from the server's, which rounds once more
  const DOUBTS = 3; // edits may change between two pictures
  const PATIENCE = 60_000; // milliseconds

  return class extends Server {
    constructor(data, on) {
      let made = null; // while the base class is being made there is no `this`
      super(data, { ...on, lost: (why) => (made?.browser ? (made.cut = true) : on.lost(why)),
        ready: () => { if (made.asked) made.ask(); if (!made.browser) on.ready(); } });
      made = this;
      this.latest = null; // what the view wants drawn
      this.asked = this.pinned = this.cut = false;
      this.decoder = this.browser = this.digest = null;
      this.doubts = 0;
      this.proving = false;
      this.failed = "";
      this.stopping = new AbortController();
    }

    // ---- drawing ----
    draw(request) {
      this.latest = { ...request, at: performance.now() };
      if (this.browser && this.plain(request)) this.browser.draw(this.latest);
      else this.byServer(request);
    }

    // While the browser has to prove itself, no picture comes as a JPEG.
    byServer(request) {
      const raw = this.decoder && !this.browser && this.plain(request) ? LL.WANT_RAW : 0;
      super.draw({ ...request, flags: request.flags | raw });
    }

    plain({ z, flags }) {
      return Boolean(z) && (flags & ~LL.WANT_RAW) === LL.WANT_IMAGE && (!this.decoder || z.length === this.decoder.inputs);
    }

    // A view that tells the server more than codes is one that only the server knows.
    control(message) {
      this.pinned = true;
      if (this.decoder) this.leave("");
      super.control(message);
    }

    async frame(parts, info) {
      const plain = info.request && this.plain(info.request) && parts.image;
      if (this.browser && plain) return; // a late one: the browser has drawn since
      await super.frame(parts, info);
      if (!plain || this.pinned) return;
      if (!this.asked) this.ask();
      else if (this.decoder && !this.browser && parts.image.format === "raw") this.prove(parts.image, info.request);
    }

    // ---- what the server offers ----
    ask() {
      this.asked = true;
      super.control({ type: "program" });
    }

    note(note) {
      if (note.type === "program") this.take(note);
      else if (note.type !== "changed" || !this.asked) super.note(note);
      else {
        this.ask();
        if (!this.browser) super.note(note); // else the picture waits for the edits that come with the answer
      }
    }

    take(offer) {
      if (this.ended || this.pinned) return;
      this.offer = offer;
      if (!offer.digest || this.failed) return this.leave(this.failed || offer.why);
      if (offer.digest !== this.digest) {
        if (this.digest) this.leave("");
        return this.load(offer);
      }
      if (!this.decoder) return;
      this.decoder.edits = offer.edits;
      if (this.browser) this.on.changed?.();
    }

    async load({ digest, size }) {
      this.digest = digest;
      const decoder = new LL.Decoder();
      decoder.beside = false; // nobody looks at the picture without edits
      try {
        const { wasm, program, source } = await this.fetch(digest, size);
        if (this.digest !== digest || this.ended) return;
        decoder.inputs = program.input.shape[0];
        await decoder.openWorker(wasm, program, source, (sentence) => this.fail(sentence.replace(/\.$/, "")));
      } catch (error) {
        decoder.close();
        if (this.digest === digest && !this.ended) this.fail(`its program did not load (${error.message})`);
        return;
      }
      if (this.digest !== digest || this.ended) return decoder.close();
      decoder.edits = this.offer.edits;
      this.decoder = decoder;
      this.byServer(this.latest); // the picture to prove itself on
    }

    async fetch(digest, size) {
      const at = this.urls[0].replace(/\/ll\/decode$/, `/ll/program/${digest}`);
      const limit = setTimeout(() => this.stopping.abort(), PATIENCE);
      try {
        const answer = await fetch(`${location.protocol}//${at}`, { headers: { "X-Latentlab-Session": this.token },
          credentials: "same-origin", signal: this.stopping.signal });
        if (!answer.ok) throw new Error((await answer.text()).slice(0, 200));
        const data = await answer.arrayBuffer();
        if (data.byteLength !== size) throw new Error(`${size} bytes were expected, ${data.byteLength} came`);
        return LL.unpack(data);
      } finally {
        clearTimeout(limit);
      }
    }

    // ---- who draws ----
    async prove(image, { z }) {
      if (this.proving) return;
      this.proving = true;
      const { decoder } = this, edits = decoder.edits;
      const server = await LL.pixels(image), answer = await decoder.job("proof", { codes: [z], edits });
      this.proving = false;
      if (this.decoder !== decoder || this.browser || this.ended) return;
      const most = LL.apart(server, LL.picture(answer, answer.images[0]));
      if (most <= LARGEST) return this.takeOver(most);
      if (++this.doubts >= DOUBTS) return this.fail(`its picture is ${most} of 255 levels away from the server's`);
      this.ask();
      this.byServer(this.latest);
    }

    takeOver(most) {
      this.doubts = 0;
      this.kind = "browser";
      this.browser = new LL.engines.browser({ decoder: this.decoder }, { ...this.on, ready: () => {},
        frame: (parts, info) => { if (this.browser) return this.on.frame(parts, info); } });
      const waiting = this.next ?? this.flying;
      this.next = null;
      this.on.status?.("browser", `At most ${most} of 255 levels from the server's picture`);
      if (waiting) this.browser.draw(waiting);
      super.control({ type: "rest" });
    }

    leave(why) {
      const drawing = this.browser;
      this.proving = false;
      this.decoder?.close();
      this.decoder = this.browser = this.digest = null;
      this.kind = "server";
      this.on.status?.("server", why);
      if (!drawing) return;
      if (this.cut) this.refresh();
      if (this.latest) this.byServer(this.latest);
    }

    fail(sentence) {
      this.failed = `Not in this browser: ${sentence}`;
      this.leave(this.failed);
    }

    // The page's script ran again: it may have changed the edits, which nobody could tell us.
    refresh() {
      if (!this.cut || this.ended) return;
      this.cut = false;
      this.tries = 0;
      this.connect();
    }

    destroy() {
      super.destroy();
      this.stopping.abort();
      this.decoder?.close();
    }
  };
})(LL.engines.server);

// A program as its route sends it: the header's length, the header as JSON, then the parts that it names.
LL.unpack = (data) => {
  const size = new DataView(data).getUint32(0, true);
  const { program, parts } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, size)));
  const part = (name) => data.slice(4 + size + parts[name][0], 4 + size + parts[name][0] + parts[name][1]);
  return { wasm: part("wasm"), source: new TextDecoder().decode(part("source")),
    program: { ...program, steps: part("steps"), weights: part("weights") } };
};

// How far two pictures are apart at most, in levels of 255.
LL.apart = (a, b) => {
  if (a.w !== b.w || a.h !== b.h) return 255;
  let most = 0;
  for (let i = 0; i < a.rgba.length; i++) most = Math.max(most, Math.abs(a.rgba[i] - b.rgba[i]));
  return most;
};
