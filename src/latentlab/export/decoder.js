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
    this.beside = true; // the picture without edits, where there are any
    this.watchers = new Set();
  }

  // `source` is the text of engine.js; `failed` hears, in a sentence, what goes wrong later.
  async open(wasm, program, source, failed) {
    try {
      await this.openWorker(wasm, program, source, failed);
    } catch {
      this.close();
      const engine = await LatentEngine.create(wasm, program);
      this.ask = (request) => setTimeout(() => this.land(engine.answer(request)));
      LL.metrics.decoded_in = "page";
      this.pump();
    }
  }

  // The same in a Worker or not at all.
  async openWorker(wasm, program, source, failed) {
    const at = URL.createObjectURL(new Blob([source, "\nLatentEngine.serve(self);"], { type: "text/javascript" }));
    const worker = (this.worker = new Worker(at));
    await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => (data.error ? reject(new Error(data.error)) : resolve());
      worker.onerror = (error) => reject(new Error(error.message || "its worker did not start"));
      worker.postMessage({ wasm, program });
    }).finally(() => URL.revokeObjectURL(at));
    const stopped = (message) => failed(`The decoder stopped: ${message}.`);
    worker.onmessage = ({ data }) => (data.error ? stopped(data.error) : this.land(data));
    worker.onerror = (error) => stopped(error.message);
    this.ask = (request) => worker.postMessage(request);
    LL.metrics.decoded_in = "worker";
    this.pump();
  }

  close() {
    this.worker?.terminate();
    this.ask = null;
  }

  draw(z, arrive) {
    this.live = { codes: [Float32Array.from(z)], edits: this.edits, stage: this.stage, original: this.beside && this.edits.length > 0, arrive };
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
    const at = request.at ?? performance.now();
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
