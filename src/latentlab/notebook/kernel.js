// A decoder (see decoder.js) whose pictures are drawn by the notebook's kernel, for models that the browser can't run.
LL.KernelDecoder = class extends LL.Decoder {
  static PATIENCE = 3000; // milliseconds until a person is told why nothing moves

  constructor(model, failed) {
    super();
    this.kernel = model;
    this.failed = failed;
    this.name = Math.random().toString(36).slice(2); // other views of the same widget hear the answers, too
    this.serial = 0;
    this.hear = (message, buffers) => this.receive(message, buffers);
    model.on("msg:custom", this.hear);
    this.ask = (request) => {
      const codes = request.codes.map((code) => Array.from(code)), id = `${this.name}-${++this.serial}`;
      clearTimeout(this.waiting);
      this.waiting = setTimeout(() => this.failed("Waiting for the kernel, which is busy or has stopped: it draws this model's pictures."),
        LL.KernelDecoder.PATIENCE);
      try {
        model.send({ ...request, codes, id });
      } catch {
        this.failed("This model's pictures are drawn by the notebook's kernel, and there is none.");
      }
    };
  }

  receive(message, buffers = []) {
    if (message.id !== `${this.name}-${this.serial}` || !this.flying) return;
    clearTimeout(this.waiting);
    if (message.error) {
      this.flying = null;
      this.pump();
      return this.failed(message.error);
    }
    const exact = this.flying.exact, answer = { ...message, images: [], original: null, ms: null };
    message.parts.forEach((part, i) => {
      const { buffer, byteOffset, byteLength } = buffers[i], own = buffer.slice(byteOffset, byteOffset + byteLength);
      if (part === "state") answer.state = { ...message.state, values: new Float32Array(own) };
      else {
        const image = exact ? new Float32Array(own) : new Uint8ClampedArray(own);
        if (part === "original") answer.original = image;
        else answer.images.push(image);
      }
    });
    this.land(answer);
  }

  close() {
    clearTimeout(this.waiting);
    this.kernel.off("msg:custom", this.hear);
    this.ask = null;
  }
};
