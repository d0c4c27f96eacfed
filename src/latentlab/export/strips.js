// Traversals: a row of pictures for each slider, from one end of its range to the other; a click goes there.
LL.Strips = class {
  static COLUMNS = 9;
  static ROWS = 16;

  constructor(axes, edge, decoder, traverse) {
    Object.assign(this, { edge, decoder, traverse });
    const { el } = LL;
    this.grid = el("div", { class: "ll-grid" });
    const active = axes.filter((axis) => !axis.inactive), ways = active.filter((axis) => axis.group === "directions");
    const shown = ways.length ? ways : active; // directions tell more than the code's own coordinates
    this.axes = (shown.length ? shown : axes).slice(0, LL.Strips.ROWS);
    this.rows = this.axes.map((axis) => {
      const canvas = el("canvas", { class: "ll-strip", role: "img", "aria-label": `traversal of ${axis.meaning || axis.name}` });
      canvas.addEventListener("click", (event) => this.jump(axis, canvas, event));
      const known = axis.meaning && axis.meaning !== axis.name;
      const mark = el("i", { class: "ll-here" });
      this.grid.append(el("div", { class: "ll-grid-name", title: axis.help || null }, axis.meaning || axis.name,
        known ? el("small", {}, axis.name) : null), el("div", { class: "ll-strip-box" }, canvas, mark));
      return { axis, canvas, mark };
    });
    if (this.axes.some((axis) => !axis.choices.length)) {
      this.ends = el("div", { class: "ll-ends", "aria-hidden": "true" }, el("span", {}, "low"), el("span", {}, "high"));
      this.grid.append(this.ends);
    }
    this.lead = el("p", { class: "ll-lead" }, "Each row moves one latent, all others stay. Click a picture to go there.");
    new ResizeObserver(() => this.fit()).observe(this.grid);
  }

  codes(axis, z) {
    return Array.from({ length: axis.choices.length || LL.Strips.COLUMNS }, (_, i) => {
      const code = Float32Array.from(z);
      if (axis.choices.length) this.traverse.setChoice(code, axis, i);
      else code[axis.index] = this.value(axis, i);
      return code;
    });
  }

  value(axis, i) {
    const value = axis.low + ((axis.high - axis.low) * i) / (LL.Strips.COLUMNS - 1);
    return axis.whole ? Math.round(value) : value;
  }

  async draw() {
    const turn = (this.turn = (this.turn ?? 0) + 1), z = Float32Array.from(this.traverse.z);
    this.mark();
    for (const { axis, canvas } of this.rows) {
      const answer = await this.decoder.job(`strip ${axis.index}`, { codes: this.codes(axis, z), edits: this.decoder.edits });
      if (turn !== this.turn) return;
      this.paint(canvas, answer);
    }
    LL.metrics.strips = turn;
  }

  paint(canvas, answer) {
    const { w, h, c, images } = answer, gap = Math.max(1, Math.round(w / 32));
    canvas.width = images.length * (w + gap) - gap;
    canvas.height = h;
    const context = canvas.getContext("2d");
    images.forEach((image, i) => context.putImageData(new ImageData(LL.expand({ w, h, c, data: image }), w, h), i * (w + gap), 0));
    canvas.dataset.drawn = "1";
    this.fit();
  }

  // Where the present code stands in each row.
  mark() {
    for (const { axis, mark } of this.rows) {
      const count = axis.choices.length || LL.Strips.COLUMNS;
      const at = axis.choices.length ? this.traverse.chosen(axis) : ((count - 1) * (this.traverse.z[axis.index] - axis.low)) / (axis.high - axis.low);
      mark.style.left = `${(100 * (LL.clamp(at, 0, count - 1) + 0.5)) / count}%`;
    }
  }

  fit() {
    const room = this.grid.clientWidth - 14 - Math.max(60, ...[...this.grid.querySelectorAll(".ll-grid-name")].map((n) => n.offsetWidth));
    const most = Math.max(...this.rows.map(({ canvas }) => canvas.width)), scale = Math.min(room / most, 96 / this.edge);
    for (const { canvas } of this.rows) {
      canvas.style.width = `${Math.floor(canvas.width * scale)}px`;
      canvas.style.height = `${Math.round(this.edge * scale)}px`;
      canvas.parentNode.style.width = canvas.style.width;
      canvas.classList.toggle("ll-picture-large", scale >= 2);
    }
    if (this.ends) this.ends.style.width = this.rows.find(({ axis }) => !axis.choices.length).canvas.style.width;
  }

  jump(axis, canvas, event) {
    const count = axis.choices.length || LL.Strips.COLUMNS;
    const i = LL.clamp(Math.floor((event.offsetX / canvas.clientWidth) * count), 0, count - 1);
    this.traverse.jump(this.codes(axis, this.traverse.z)[i]);
  }
};
