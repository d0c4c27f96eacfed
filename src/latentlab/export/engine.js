// Runs a program (program.py) in engine.wasm: one code to one image, with hidden states that can be read and edited.
//
// The same text serves a Worker, a page's main thread and node. LatentEngine.create(wasm, program) takes the module's
// bytes and the program as Program.pack gives it, its numbers in base64 or as they are.
class LatentEngine {
  static WORDS = 24;
  static ADDRESSES = 5;

  static async create(wasm, program) {
    const { instance } = await WebAssembly.instantiate(wasm, {});
    return new LatentEngine(instance.exports, program);
  }

  constructor(exports, program) {
    this.exports = exports;
    this.program = program;
    const steps = new Int32Array(LatentEngine.bytes(program.steps).buffer);
    this.start = Math.ceil(exports.__heap_base.value / 16) * 16;
    this.stepsAt = this.start + 4 * program.size;
    const end = this.stepsAt + steps.byteLength, missing = end - exports.memory.buffer.byteLength;
    if (missing > 0) exports.memory.grow(Math.ceil(missing / 65536));
    this.fill();
    const words = new Int32Array(exports.memory.buffer, this.stepsAt, steps.length);
    words.set(steps);
    for (let step = 0; step < words.length; step += LatentEngine.WORDS) {
      for (let i = step + 1; i <= step + LatentEngine.ADDRESSES; i++) {
        words[i] = words[i] < 0 ? 0 : this.start + 4 * words[i];
      }
    }
    this.count = steps.length / LatentEngine.WORDS;
    this.stages = new Map(program.stages.map((stage) => [stage.address, stage]));
  }

  // Bytes of their own, of text in base64 or of such bytes.
  static bytes(text) {
    if (text instanceof ArrayBuffer) return new Uint8Array(text);
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  // The model's own numbers, as float32 whatever they travelled as.
  fill() {
    const raw = LatentEngine.bytes(this.program.weights).buffer;
    for (const constant of this.program.constants) {
      const { kind, byte, count } = constant, to = this.view(constant.at, count);
      if (kind === "f32") to.set(new Float32Array(raw, byte, count));
      else if (kind === "f16") LatentEngine.halves(new Uint16Array(raw, byte, count), to);
      else LatentEngine.eighths(raw, constant, to);
    }
    this.program = { ...this.program, weights: null, steps: null }; // they are in the engine's memory now
  }

  static halves(from, to) {
    const bits = new Uint32Array(to.buffer, to.byteOffset, to.length);
    for (let i = 0; i < from.length; i++) {
      const h = from[i], exponent = (h >> 10) & 31, fraction = h & 1023;
      if (exponent) bits[i] = ((h & 0x8000) << 16) | ((exponent + 112) << 23) | (fraction << 13);
      else to[i] = (h & 0x8000 ? -1 : 1) * fraction * 2 ** -24;
    }
  }

  // Whole numbers (blocks, …, channels), of which each channel's every `group` share a scale.
  static eighths(raw, { byte, count, blocks, channels, group }, to) {
    const each = count / blocks / channels, groups = Math.ceil(each / group);
    const scales = new Float32Array(raw, byte, blocks * groups * channels);
    const codes = new Int8Array(raw, byte + scales.byteLength, count);
    for (let b = 0, i = 0; b < blocks; b++)
      for (let k = 0; k < each; k++)
        for (let c = 0; c < channels; c++, i++)
          to[i] = codes[i] * scales[(b * groups + Math.floor(k / group)) * channels + c];
  }

  // Answers a page from a Worker: the first message brings { wasm, program }, each later one is a request.
  static serve(port) {
    let engine = null;
    port.onmessage = async ({ data }) => {
      try {
        if (engine) return port.postMessage(engine.answer(data));
        engine = await LatentEngine.create(data.wasm, data.program);
        port.postMessage({ ready: true });
      } catch (error) {
        port.postMessage({ error: error.message });
      }
    };
  }

  view(at, count) {
    return new Float32Array(this.exports.memory.buffer, this.start + 4 * at, count);
  }

  // ---- running ----------------------------------------------------------------------------------------------------
  // The image (height x width x channels), in [0, 1], as a view that the next call overwrites. Edits are as
  // latentlab.Edit.to_dict gives them; { stage, units, operation, value, amount }, units null for all.
  decode(z, edits = []) {
    const { input, output, stages } = this.program;
    if (z.length !== input.shape[0]) throw new Error(`The code has ${z.length} numbers; the model reads ${input.shape[0]}.`);
    this.view(input.at, z.length).set(z);
    let done = 0;
    const until = (end) => {
      this.exports.run(this.stepsAt + 4 * LatentEngine.WORDS * done, end - done);
      done = end;
    };
    for (const edit of edits) if (!this.stages.has(edit.stage)) throw new Error(`No stage ${edit.stage}.`);
    for (const stage of stages) {
      const its = edits.filter((edit) => edit.stage === stage.address);
      if (!its.length) continue;
      until(stage.end);
      for (const edit of its) this.edit(stage, edit);
    }
    until(this.count);
    return this.view(output.at, output.shape.reduce((a, b) => a * b));
  }

  edit({ at, shape }, { units = null, operation = "ablate", value = 0, amount = 1, region = null }) {
    const form = { ablate: [0, 0], set: [0, value], scale: [value, 0], shift: [1, value] }[operation];
    if (!form || region) throw new Error("The browser engine knows no edits with a region or another sample.");
    const factor = 1 + amount * (form[0] - 1), offset = amount * form[1];
    const pixels = shape.length === 3 ? shape[1] * shape[2] : 1;
    for (const unit of units ?? Array.from({ length: shape[0] }, (_, i) => i)) {
      if (unit >= shape[0]) throw new Error(`The stage has ${shape[0]} units; there is no unit ${unit}.`);
      this.exports.edit(this.start + 4 * at, pixels, shape[0], unit, factor, offset);
    }
  }

  // What a stage held in the last decode, unit after unit: { address, shape, values }.
  state(address) {
    const { at, shape } = this.stages.get(address), units = shape[0];
    const pixels = shape.length === 3 ? shape[1] * shape[2] : 1, from = this.view(at, units * pixels);
    const values = new Float32Array(units * pixels);
    for (let p = 0; p < pixels; p++) for (let u = 0; u < units; u++) values[u * pixels + p] = from[p * units + u];
    return { address, shape, values };
  }

  // One request, as it comes to a Worker: the images of codes under edits, in bytes or as they are, and of the last code
  // the state of a stage and the image without edits.
  answer({ id, codes, edits = [], stage = null, original = false, exact = false }) {
    const begin = performance.now(), [c, h, w] = this.program.output.shape;
    const kept = (image) => (exact ? Float32Array.from(image) : Uint8ClampedArray.from(image, (value) => 255 * value));
    const images = codes.map((z) => kept(this.decode(z, edits)));
    const state = stage ? this.state(stage) : null;
    return { id, c, h, w, images, state, original: original ? kept(this.decode(codes.at(-1))) : null,
      ms: performance.now() - begin };
  }
}
