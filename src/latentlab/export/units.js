// Hidden units: what each unit of a stage says of the present picture, as a sheet on which units are switched off.
LL.Units = class {
  // `changed` hears how many units are off.
  constructor(stages, decoder, traverse, changed) {
    Object.assign(this, { decoder, traverse });
    this.told = changed;
    const { el, button } = LL;
    this.stages = stages;
    this.stage = stages.findLast((stage, i) => stage.shape.length === 3 && i < stages.length - 1) ?? stages[0];
    this.off = new Map(stages.map((stage) => [stage.address, new Set()]));
    this.chain = el("nav", { class: "ll-chain", "aria-label": "stages" });
    this.buttons = new Map();
    const networks = new Set(stages.map((stage) => stage.address.split(".")[0]));
    let last = null;
    for (const stage of stages) {
      const [network, name] = stage.address.split(".");
      if (networks.size > 1 && network !== last) this.chain.append(el("span", { class: "ll-chain-group" }, network));
      last = network;
      const chip = button(null, name, `${name}: ${stage.kind}, ${this.size(stage)}`, () => this.choose(stage), { "aria-pressed": "false" });
      chip.append(el("span", { class: "ll-mark" }));
      this.buttons.set(stage.address, chip);
      this.chain.append(chip);
    }
    this.head = el("div", { class: "ll-head" });
    this.canvas = el("canvas", { class: "ll-sheet", tabindex: "0", role: "grid",
      "aria-label": "units of the stage: arrow keys move, space switches a unit off or on" });
    this.tip = el("div", { class: "ll-tip", hidden: true });
    this.box = el("div", { class: "ll-sheet-box" }, this.canvas, this.tip);
    this.allOn = button("reset", "All on", "Switch all units of all stages on again", () => this.reset());
    this.rank = button(null, "Sort by effect", "Order the units by how much the picture changes without each of them", () => this.sort(),
      { "aria-pressed": "false" });
    this.note = el("span", { class: "ll-count" });
    this.order = null;
    this.cursor = null;
    this.canvas.addEventListener("click", (event) => {
      const unit = this.under(event);
      this.cursor = null;
      if (unit != null) this.toggle(unit);
      this.hover(event);
    });
    this.canvas.addEventListener("pointermove", (event) => this.hover(event));
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; });
    this.canvas.addEventListener("keydown", (event) => this.key(event));
    this.canvas.addEventListener("blur", () => { this.cursor = null; this.paint(); });
    this.decoder.watchers.add(({ state }) => {
      if (state?.address !== this.stage.address) return; // asked for before another stage was chosen
      this.state = state;
      this.paint();
    });
    new ResizeObserver(() => this.paint()).observe(this.box);
  }

  size({ shape }) {
    return shape.length === 3 ? `${shape[0]} maps of ${shape[1]} × ${shape[2]}` : `${shape[0]} units`;
  }

  choose(stage) {
    this.stage = stage;
    this.state = this.order = this.cursor = null;
    this.decoder.stage = stage.address;
    this.label();
    this.traverse.draw();
  }

  label() {
    const { el } = LL;
    for (const [address, chip] of this.buttons) {
      chip.setAttribute("aria-pressed", String(address === this.stage.address));
      const count = this.off.get(address).size;
      chip.lastChild.textContent = count ? String(count) : "";
      chip.lastChild.title = count ? `${count} switched off` : "";
    }
    const total = [...this.off.values()].reduce((sum, units) => sum + units.size, 0);
    this.allOn.disabled = !total;
    this.note.textContent = total ? `${total} ${total === 1 ? "unit" : "units"} off` : "";
    this.told(total);
    this.rank.setAttribute("aria-pressed", String(Boolean(this.order)));
    this.head.replaceChildren(el("b", {}, this.stage.address.split(".")[1]), el("span", {}, this.stage.kind), el("span", {}, this.size(this.stage)));
  }

  edits() {
    return [...this.off].filter(([, units]) => units.size).map(([stage, units]) => ({ stage, units: [...units].sort((a, b) => a - b) }));
  }

  toggle(unit) {
    const units = this.off.get(this.stage.address);
    if (!units.delete(unit)) units.add(unit);
    this.changed();
  }

  reset() {
    for (const units of this.off.values()) units.clear();
    this.changed();
  }

  changed() {
    this.decoder.edits = this.edits();
    this.label();
    this.traverse.draw();
  }

  // How much the present picture changes without each unit: a decode each, here in the browser.
  async sort() {
    if (this.order) { this.order = null; this.effects = null; this.label(); return this.paint(); }
    const { stage } = this, z = Float32Array.from(this.traverse.z), effects = new Float32Array(stage.shape[0]);
    const whole = (await this.decoder.job("effect", { codes: [z], exact: true })).images[0];
    for (let unit = 0; unit < effects.length; unit++) {
      const edits = [{ stage: stage.address, units: [unit] }];
      const without = (await this.decoder.job("effect", { codes: [z], edits, exact: true })).images[0];
      for (let i = 0; i < whole.length; i++) effects[unit] += Math.abs(without[i] - whole[i]) / whole.length;
      if (stage !== this.stage) return;
    }
    this.effects = effects;
    this.order = Array.from(effects.keys()).sort((a, b) => effects[b] - effects[a]);
    LL.metrics.effects = Array.from(effects);
    this.label();
    this.paint();
  }

  // ---- the sheet ----
  layout() {
    const [count, h = 1, w = 1] = this.stage.shape, room = this.box.clientWidth;
    const flat = this.stage.shape.length === 1;
    const cell = flat ? (count > 64 ? 22 : 34) : LL.clamp(Math.floor(room / Math.ceil(Math.sqrt(count * 2))) - 6, 44, 76);
    const gap = flat ? 3 : 6, columns = Math.max(1, Math.min(count, Math.floor((room + gap) / (cell + gap))));
    return { count, h, w, flat, cell, gap, columns, rows: Math.ceil(count / columns) };
  }

  paint() {
    if (!this.state || this.box.clientWidth === 0 ) return;
    const { count, h, w, cell, gap, columns, rows } = this.layout(), ratio = window.devicePixelRatio || 1;
    const { values } = this.state, theme = LL.theme(this.box), off = this.off.get(this.stage.address);
    const sorted = Float32Array.from(values, Math.abs).sort(), most = sorted[Math.floor(0.995 * (sorted.length - 1))] || 1;
    const signed = values.some((v) => v < 0), table = signed ? LL.DIVERGING[theme.dark ? "dark" : "light"] : LL.HEAT;
    const width = columns * (cell + gap) - gap, height = rows * (cell + gap) - gap;
    Object.assign(this.canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    Object.assign(this.canvas.style, { width: `${width}px`, height: `${height}px` });
    const context = this.canvas.getContext("2d"), map = new OffscreenCanvas(w, h), pen = map.getContext("2d");
    context.scale(ratio, ratio);
    context.imageSmoothingEnabled = false;
    for (let place = 0; place < count; place++) {
      const unit = this.order?.[place] ?? place, x = (place % columns) * (cell + gap), y = Math.floor(place / columns) * (cell + gap);
      const image = new ImageData(w, h);
      for (let i = 0; i < w * h; i++) {
        const v = values[unit * w * h + i] / most;
        const k = 3 * Math.round(255 * LL.clamp(signed ? 0.5 + v / 2 : v, 0, 1));
        image.data.set([table[k], table[k + 1], table[k + 2], 255], 4 * i);
      }
      pen.putImageData(image, 0, 0);
      if (!off.has(unit)) context.drawImage(map, x, y, cell, cell);
      context.lineWidth = 1;
      context.strokeStyle = LL.css(theme.text, 0.16);
      context.strokeRect(x + 0.5, y + 0.5, cell - 1, cell - 1);
      if (off.has(unit)) {
        context.strokeStyle = "#d64545";
        context.lineWidth = 2;
        context.strokeRect(x + 1, y + 1, cell - 2, cell - 2);
        context.beginPath();
        context.moveTo(x + 2, y + cell - 2);
        context.lineTo(x + cell - 2, y + 2);
        context.stroke();
      }
      if (unit === this.cursor && this.canvas.getRootNode().activeElement === this.canvas) {
        context.strokeStyle = LL.css(theme.primary);
        context.lineWidth = 2;
        context.strokeRect(x + 1, y + 1, cell - 2, cell - 2);
      }
    }
    this.canvas.dataset.drawn = this.stage.address;
  }

  place(place) { return this.order?.[place] ?? place; }

  under(event) {
    const { cell, gap, columns, count } = this.layout();
    const column = Math.floor(event.offsetX / (cell + gap)), place = Math.floor(event.offsetY / (cell + gap)) * columns + column;
    return column < columns && place < count && place >= 0 ? this.place(place) : null;
  }

  hover(event) {
    const unit = this.state ? this.under(event) : null;
    this.tip.hidden = unit == null;
    if (unit == null) return;
    const [, h = 1, w = 1] = this.stage.shape, values = this.state.values.subarray(unit * h * w, (unit + 1) * h * w);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    const effect = this.effects && this.order ? `\nchanges the picture by ${(100 * this.effects[unit]).toFixed(2)} %` : "";
    this.tip.textContent = `unit ${unit} · ${values.length > 1 ? "mean " : ""}${LL.format(mean)}${effect}\n` +
      (this.off.get(this.stage.address).has(unit) ? "off; click to switch it on" : "click to switch it off");
    const room = this.box.clientWidth;
    this.tip.style.left = `${LL.clamp(event.offsetX + 14, 0, Math.max(0, room - this.tip.offsetWidth))}px`;
    this.tip.style.top = `${event.offsetY + 18}px`;
  }

  key(event) {
    const { columns, count } = this.layout(), at = this.cursor == null ? 0 : this.order ? this.order.indexOf(this.cursor) : this.cursor;
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (by) this.cursor = this.place(LL.clamp(this.cursor == null ? 0 : at + by, 0, count - 1));
    else if ((event.key === " " || event.key === "Enter") && this.cursor != null) this.toggle(this.cursor);
    else return;
    event.preventDefault();
    event.stopPropagation();
    this.paint();
  }
};
