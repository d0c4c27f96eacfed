// Seed plane: a lattice of seeds over which one drags; the picture is that of the four seeds around, blended.
//
// blend() is latents/blending.py's, block by block, so that Python finds the same code from the place alone.
LL.views.seed_plane = class {
  static STEP = 0.1;

  constructor(root, host) {
    this.root = root;
    this.host = host;
    this.commit = LL.debounce(120, () => this.send());
    this.build();
    this.adopt(host.data);
    this.seat = new LL.Seat(host, {
      ready: () => { if (this.seat.engine.kind !== "rerun" || !this.host.data.image) this.draw(); },
      frame: (parts, info) => this.frame(parts, info),
      live: () => this.send(),
      changed: () => this.draw(),
      status: (kind, why) => this.status.kind(kind, why),
      error: (sentence) => this.status.error(sentence),
    });
    this.arrived(host.data);
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.root);
  }

  // ---- layout ----
  build() {
    const { el, button } = LL;
    this.field = el("canvas", { class: "ll-field", tabindex: 0, role: "application", "aria-roledescription": "plane of seeds",
      "aria-label": "Seed plane: drag, or move with the arrow keys; with Shift a whole seed at a time",
      onpointerdown: (event) => this.grab(event), onpointermove: (event) => this.drag(event),
      onpointerup: () => this.release(), onpointercancel: () => this.release(), ondblclick: () => this.snap(),
      onkeydown: (event) => this.key(event) });
    this.canvas = el("canvas", { class: "ll-main ll-picture", role: "img", "aria-label": "decoded image" });
    this.near = el("span", { class: "ll-near", role: "status" });
    this.corners = el("dl", { class: "ll-corners", "aria-label": "Shares of the four seeds" });
    this.status = LL.statusLine();
    this.root.replaceChildren(el("div", { class: "ll-plane" },
      el("div", {}, this.field, this.status.node),
      el("div", { class: "ll-plane-side" },
        el("div", { class: "ll-toolbar", role: "toolbar", "aria-label": "place" },
          button("fit", "Snap", "Go to the nearest seed, whose code is exactly that draw (S, or double-click)", () => this.snap()),
          button("reset", "Reset", "Return to the middle of the plane (Home)", () => this.reset())),
        this.canvas, this.near, this.corners)));
  }

  // ---- state ----
  adopt(data) {
    const fresh = this.revision !== data.revision;
    const of = [data.revision, data.temperature, JSON.stringify(data.blocks), data.codes].join("|");
    if (of !== this.of) this.lattice = this.read(data);
    this.of = of;
    this.rest = data.rest;
    if (fresh) {
      this.revision = data.revision;
      [this.x, this.y] = [data.x, data.y];
      this.sheet = this.sheetOf = null;
    }
    // While the small pictures are drawn anew, the last ones of the same seeds stay.
    if (data.sheet && data.sheet_digest !== this.sheetOf) {
      this.sheetOf = data.sheet_digest;
      LL.pixels(LL.revive(data.sheet)).then((image) => {
        if (this.sheetOf !== data.sheet_digest) return;
        const canvas = document.createElement("canvas");
        LL.paint(canvas, image);
        this.sheet = canvas;
        this.show();
      });
    }
    const [, h, w] = data.image_shape;
    if (!this.canvas.dataset.drawn) { this.canvas.width = w; this.canvas.height = h; }
    this.resize();
    if (this.seat) this.draw();
  }

  read({ codes, dim, columns, rows, seeds, blocks, temperature }) {
    const raw = LL.bytes(codes), numbers = new Float32Array(raw.buffer, raw.byteOffset, raw.byteLength / 4);
    return { numbers, dim, columns, rows, seeds, blocks, temperature };
  }

  update(host) {
    this.host = host;
    this.adopt(host.data);
    this.seat.update(host);
    this.arrived(host.data);
  }

  arrived(data) {
    if (!data.image || (this.seat.engine.kind !== "rerun" && this.canvas.dataset.drawn)) return;
    const engine = this.seat.engine;
    LL.pixels(LL.revive(data.image)).then((image) => {
      LL.paint(this.canvas, image);
      if (engine.kind !== "rerun") return;
      const latency = engine.arrived();
      LL.record("seed_plane", "rerun", latency, null);
      this.status.frame(latency);
    });
  }

  // The four seeds around the place: their numbers in the lattice, and their weights.
  around() {
    const { columns, rows } = this.lattice;
    const i = Math.min(Math.floor(this.x), columns - 2), j = Math.min(Math.floor(this.y), rows - 2);
    const fx = this.x - i, fy = this.y - j, first = j * columns + i;
    return { at: [first, first + 1, first + columns, first + columns + 1],
      weights: [(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy] };
  }

  blend() {
    const { numbers, dim, blocks, temperature } = this.lattice, { at, weights } = this.around();
    const z = new Float32Array(dim + this.rest.length), size = Math.hypot(...weights);
    const largest = at[weights.indexOf(Math.max(...weights))];
    for (const { from, to, kind, mean, low, high } of blocks) {
      for (let d = from; d < to; d++) {
        if (kind === "nearest") { z[d] = numbers[largest * dim + d]; continue; }
        let sum = 0;
        for (let k = 0; k < 4; k++) {
          const value = numbers[at[k] * dim + d];
          sum += weights[k] * (kind === "normal" ? value - mean : value);
        }
        if (kind === "normal") z[d] = mean + (temperature * sum) / size;
        else if (kind === "uniform") {
          const drawn = low + (high - low) * LL.normalShare(sum / size);
          z[d] = LL.clamp(mean + temperature * (drawn - mean), low, high);
        } else z[d] = sum;
      }
    }
    z.set(this.rest, dim);
    return z;
  }

  send() {
    const z = Array.from(this.blend());
    const state = { x: this.x, y: this.y, revision: this.revision, engine: this.seat.engine.kind, z };
    const text = JSON.stringify(state);
    if (text === this.sent) return;
    this.sent = text;
    this.host.send("state", state);
  }

  draw() {
    this.show();
    this.z = this.blend();
    this.seat?.engine.draw({ z: this.z, flags: LL.WANT_IMAGE });
  }

  async frame(parts, info) {
    if (!parts.image) return;
    LL.paint(this.canvas, await LL.pixels(parts.image));
    const latency = info.latency();
    LL.record("seed_plane", this.seat.engine.kind, latency, info.request?.z);
    this.status.frame(latency);
  }

  go(x, y) {
    const { columns, rows } = this.lattice, fixed = (v) => Math.round(1000 * v) / 1000;
    this.x = fixed(LL.clamp(x, 0, columns - 1));
    this.y = fixed(LL.clamp(y, 0, rows - 1));
    this.draw();
  }

  snap() { this.go(Math.round(this.x), Math.round(this.y)); this.commit(); }

  reset() { const { columns, rows } = this.lattice; this.go((columns - 1) / 2, (rows - 1) / 2); this.commit(); }

  // ---- pointer and keys ----
  place(event) {
    const box = this.field.getBoundingClientRect(), { columns, rows } = this.lattice;
    this.go(((event.clientX - box.left) / box.width) * columns - 0.5, ((event.clientY - box.top) / box.height) * rows - 0.5);
  }

  grab(event) {
    if (event.button) return;
    this.field.setPointerCapture(event.pointerId);
    this.held = true;
    this.place(event);
  }

  drag(event) { if (this.held) this.place(event); }

  release() { if (this.held) { this.held = false; this.commit(); } }

  key(event) {
    const move = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (move) {
      const by = event.shiftKey ? 1 : LL.views.seed_plane.STEP;
      this.go(this.x + by * move[0], this.y + by * move[1]);
      this.commit();
    } else if (event.key.toLowerCase() === "s") this.snap();
    else if (event.key === "Home") this.reset();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  // ---- showing ----
  show() {
    const { columns, rows, seeds } = this.lattice, side = this.field.clientWidth;
    if (!side) return;
    const ratio = window.devicePixelRatio || 1, pixels = Math.round(side * ratio);
    if (this.field.width !== pixels) { this.field.width = pixels; this.field.height = Math.round((pixels * rows) / columns); }
    const c = this.field.getContext("2d"), cell = pixels / columns, theme = LL.theme(this.root);
    const { at, weights } = this.around();
    c.fillStyle = LL.css(theme.background);
    c.fillRect(0, 0, this.field.width, this.field.height);
    c.imageSmoothingEnabled = false;
    if (this.sheet) {
      const w = this.sheet.width / columns, h = this.sheet.height / rows, gap = Math.max(1, ratio);
      const scale = (cell - 2 * gap) / Math.max(w, h), wide = w * scale, high = h * scale;
      for (let n = 0; n < columns * rows; n++) {
        const i = n % columns, j = Math.floor(n / columns), k = at.indexOf(n);
        c.globalAlpha = k >= 0 ? 0.72 + 0.28 * weights[k] : 0.72;
        c.drawImage(this.sheet, i * w, j * h, w, h, (i + 0.5) * cell - wide / 2, (j + 0.5) * cell - high / 2, wide, high);
      }
      c.globalAlpha = 1;
    }
    const x = (this.x + 0.5) * cell, y = (this.y + 0.5) * cell;
    for (let k = 0; k < 4; k++) {
      if (weights[k] < 0.005) continue;
      const cx = ((at[k] % columns) + 0.5) * cell, cy = (Math.floor(at[k] / columns) + 0.5) * cell;
      c.beginPath();
      c.moveTo(x, y);
      c.lineTo(cx, cy);
      c.lineWidth = (1 + 4 * weights[k]) * ratio;
      c.strokeStyle = LL.css(theme.primary, 0.35 + 0.65 * weights[k]);
      c.stroke();
    }
    for (const [width, colour] of [[5, "rgba(255,255,255,.95)"], [2, LL.css(theme.primary)]]) {
      c.beginPath();
      c.arc(x, y, 8 * ratio, 0, 2 * Math.PI);
      c.lineWidth = width * ratio;
      c.strokeStyle = colour;
      c.stroke();
    }
    const best = weights.indexOf(Math.max(...weights));
    this.near.textContent = weights[best] === 1 ? `Seed ${seeds[at[best]]}` : `Between seeds, nearest ${seeds[at[best]]}`;
    const { el } = LL;
    this.corners.replaceChildren(...at.flatMap((n, k) => [el("dt", {}, `seed ${seeds[n]}`),
      el("dd", {}, el("i", { style: `width:${(100 * weights[k]).toFixed(1)}%` }), el("span", {}, `${Math.round(100 * weights[k])} %`))]));
  }

  resize() {
    const [, h, w] = this.host.data.image_shape, room = Math.min(this.canvas.parentElement.clientWidth, 320);
    if (room) LL.fit(this.canvas, room, w, h);
    this.show();
  }

  destroy() {
    this.commit.cancel();
    this.sizes.disconnect();
    this.seat.destroy();
  }
};

// Share of a standard normal distribution below a value, to 2e-7 (Abramowitz and Stegun, 7.1.26).
LL.normalShare = (x) => {
  const t = 1 / (1 + (0.3275911 * Math.abs(x)) / Math.SQRT2);
  const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  const half = 0.5 * tail * Math.exp((-x * x) / 2);
  return x > 0 ? 1 - half : half;
};
