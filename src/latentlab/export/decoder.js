// The browser engine in a Worker, or where there can be none on the page's own thread, and the sliders' way to it.
//
// One request at a time. What a person drags goes before what is drawn around it, and a newer drag replaces the one
// that waits; so does a newer job of the same name.
LL.Decoder = class {
  constructor() {
    this.live = null;
    this.jobs = new Map();
    this.flying = null;
    this.edits = [];
    this.stage = null;
    this.watchers = new Set();
  }

  // `source` is the text of engine.js; `failed` hears, in a sentence, what goes wrong later.
  async open(wasm, program, source, failed) {
    try {
      const serve = `let engine; onmessage = async ({ data }) => {
        if (data.wasm) engine = await LatentEngine.create(data.wasm, data.program);
        postMessage(data.wasm ? { ready: true } : engine.answer(data)); };`;
      const worker = new Worker(URL.createObjectURL(new Blob([source, serve], { type: "text/javascript" })));
      await new Promise((resolve, reject) => {
        worker.onmessage = resolve;
        worker.onerror = reject;
        worker.postMessage({ wasm, program });
      });
      worker.onmessage = ({ data }) => this.land(data);
      worker.onerror = (error) => failed(`The decoder stopped: ${error.message}. Reload the page.`);
      this.ask = (request) => worker.postMessage(request);
      LL.metrics.decoded_in = "worker";
    } catch {
      const engine = await LatentEngine.create(wasm, program);
      this.ask = (request) => setTimeout(() => this.land(engine.answer(request)));
      LL.metrics.decoded_in = "page";
    }
    this.pump();
  }

  draw(z, arrive) {
    this.live = { codes: [Float32Array.from(z)], edits: this.edits, stage: this.stage, original: this.edits.length > 0, arrive };
    this.pump();
  }

  job(name, request) {
    return new Promise((resolve) => {
      this.jobs.delete(name);
      this.jobs.set(name, { edits: [], ...request, arrive: resolve });
      this.pump();
    });
  }

  pump() {
    if (!this.ask || this.flying) return;
    if (this.live) [this.flying, this.live] = [this.live, null];
    else {
      const [name, job] = this.jobs.entries().next().value ?? [];
      if (!job) return;
      this.jobs.delete(name);
      this.flying = job;
    }
    const { arrive, ...request } = this.flying;
    this.ask(request);
  }

  land(answer) {
    const { arrive } = this.flying;
    this.flying = null;
    this.pump();
    arrive(answer);
  }
};

// What an answer's bytes are to LL.paint: a picture.
LL.picture = ({ w, h, c }, data) => ({ w, h, rgba: LL.expand({ w, h, c, data }) });

// An engine (see core.js) that draws with data.decoder.
LL.engines.browser = class {
  constructor(data, on) {
    this.kind = "browser";
    this.decoder = data.decoder;
    this.on = on;
    queueMicrotask(() => on.ready());
  }

  draw(request) {
    const at = performance.now();
    this.decoder.draw(request.z, async (answer) => {
      const { w, h, c, ms, images } = answer;
      // The first picture waits for the engine to open, which says nothing about a drag.
      const latency = () => (LL.metrics.first_frame_ms ? performance.now() - at : null);
      await this.on.frame({ image: { w, h, c, data: images[0] } }, { request, ms, latency });
      LL.metrics.first_frame_ms ??= performance.now();
      for (const watch of this.decoder.watchers) watch(answer, request.z);
    });
  }

  control() {}
  destroy() {}
};
