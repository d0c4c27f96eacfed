// Traverse: sliders over a code and the picture it decodes to.
// The fewest digits that give a float32 back.
LL.shortest = (value) => {
  for (let digits = 1; digits < 9; digits++) {
    const short = Number(value.toPrecision(digits));
    if (Math.fround(short) === Math.fround(value)) return String(short);
  }
  return String(Number(value.toPrecision(9)));
};

LL.views.traverse = class {
  constructor(root, host) {
    this.root = root;
    this.host = host;
    this.history = new LL.History();
    this.slots = { A: null, B: null };
    this.revision = null;
    this.axes = [];
    this.ranges = new LL.Ranges(this);
    this.frames = 0;
    this.commit = LL.debounce(120, () => this.send());
    this.build();
    this.adopt(host.data);
    this.seat = new LL.Seat(host, {
      // Without a live engine the first picture already came with the data.
      ready: () => { if (this.seat.engine.kind !== "rerun" || !this.host.data.image) this.draw(); },
      frame: (parts, info) => this.frame(parts, info),
      live: () => this.send(),
      changed: () => this.draw(),
      status: (kind, why) => { this.status.kind(kind, why); this.metricsEngine = kind; },
      error: (sentence) => this.status.error(sentence),
    });
    this.arrived(host.data);
    this.unkey = LL.keys(root, (event) => this.key(event));
    this.hurry = () => { this.settle(); this.commit.cancel(); this.send(); };
    window.addEventListener("latentlab-settle", this.hurry);
    this.sizes = new ResizeObserver(() => this.resize());
    this.sizes.observe(this.pictures);
  }

  // ---- layout ----
  build() {
    const { el, button } = LL;
    this.canvas = el("canvas", { class: "ll-main ll-picture", role: "img", "aria-label": "decoded image" });
    this.sourceCanvas = el("canvas", { class: "ll-source ll-picture", role: "img", "aria-label": "input image" });
    this.sourceCaption = el("figcaption");
    this.sourceBox = el("figure", { class: "ll-figure" }, this.sourceCanvas, this.sourceCaption);
    this.pictures = el("div", { class: "ll-pictures" },
      el("figure", { class: "ll-figure" }, this.canvas, this.mainCaption = el("figcaption", {}, "Decoded")), this.sourceBox);
    this.status = LL.statusLine();
    this.seed = el("input", { type: "text", inputmode: "numeric", class: "ll-seed", "aria-label": "seed of the dice",
      title: "Seed of the dice: the same seed gives the same code", onchange: () => this.roll(0) });
    this.undoButton = button("undo", "", "Undo (Z)", () => this.undo());
    this.redoButton = button("redo", "", "Redo (Shift+Z)", () => this.redo());
    this.slotButtons = {};
    const slots = ["A", "B"].map((name) => (this.slotButtons[name] = button(null, name,
      `Slot ${name}: click keeps the current code, click again returns to it, Shift+click keeps anew`,
      (event) => this.slot(name, event.shiftKey), { class: "ll-button ll-slot", "aria-pressed": "false" })));
    this.mix = el("input", { type: "range", class: "ll-range ll-mix", min: 0, max: 1, step: 0.01, value: 0, disabled: true,
      "aria-label": "blend from slot A to slot B", title: "Blend from A to B", oninput: () => this.blend(),
      onchange: () => this.settle() });
    this.toolbar = el("div", { class: "ll-toolbar", role: "toolbar", "aria-label": "code" },
      el("span", { class: "ll-joined" }, button("dice", "Randomise", "Draw a new code, locked sliders stay (R)", () => this.roll(1)),
        this.seed),
      button("reset", "Reset", "Return all unlocked sliders to their ticks", () => this.reset()),
      el("span", { class: "ll-joined" }, this.undoButton, this.redoButton),
      el("span", { class: "ll-joined ll-ab" }, slots[0], this.mix, slots[1]), this.ranges.button);
    this.list = el("div", { class: "ll-sliders" });
    const copy = (label, title, text) => LL.copyButton(null, label, title, async () => text(await this.code()));
    this.copies = el("div", { class: "ll-copies", role: "group", "aria-label": "copy the code" },
      LL.icon("copy"), el("span", {}, "Copy z"),
      el("span", { class: "ll-joined" },
        copy("JSON", "Copy z as JSON: the code behind the picture, every digit", (z) => z && `[${z.map(LL.shortest).join(", ")}]`),
        copy("NumPy", "Copy z as Python: a NumPy array", (z) => z && `np.array([${z.map(LL.shortest).join(", ")}], dtype=np.float32)`)));
    this.root.replaceChildren(el("div", { class: "ll-traverse" },
      el("div", { class: "ll-left" }, this.pictures, this.status.node, this.copies),
      el("div", { class: "ll-right" }, this.toolbar, this.ranges.panel, this.list)));
  }

  buildSliders(axes) {
    const { el } = LL, lines = this.ranges.open();
    this.rows = new Map();
    const most = Math.max(1e-9, ...axes.map((axis) => axis.kl ?? 0));
    const groups = new Set(axes.map((axis) => axis.group).filter(Boolean));
    const active = axes.filter((axis) => !axis.inactive), idle = axes.filter((axis) => axis.inactive);
    const nodes = [];
    let group = null;
    for (const axis of active) {
      if (groups.size > 1 && axis.group !== group) {
        group = axis.group;
        nodes.push(el("div", { class: "ll-group" }, group));
      }
      nodes.push(this.buildAxis(axis, most));
    }
    if (active.some((axis) => axis.kl != null)) {
      nodes.unshift(el("div", { class: "ll-row ll-heads", "aria-hidden": "true" }, el("span"), el("span", {}, "Latent"),
        el("span", { title: "KL divergence: how much this latent tells about an image" }, "KL"), el("span"), el("span", {}, "Value"), el("span")));
    }
    if (!active.length) nodes.push(el("p", { class: "ll-empty" }, "No latent of this model carries information yet."));
    if (idle.length) {
      const open = this.list.querySelector("details.ll-idle")?.open ?? !active.length;
      nodes.push(el("details", { class: "ll-idle", open },
        el("summary", { title: "The encoder ignores these: their KL divergence is near zero" }, `Inactive (${idle.length})`),
        ...idle.map((axis) => this.buildAxis(axis, most))));
    }
    this.list.replaceChildren(...nodes);
    this.ranges.reopen(lines);
  }

  buildAxis(axis, most) {
    return axis.choices.length ? this.buildChoice(axis, most) : this.buildRow(axis, most);
  }

  // What a slider and a category have alike: lock, name, KL.
  buildHead(axis, most) {
    const { el, icon, format } = LL;
    const label = axis.meaning ? `${axis.meaning} (${axis.name})` : axis.known ? `${axis.name}, ${axis.known}` : axis.name;
    const lock = el("button", { type: "button", class: "ll-lock", "aria-pressed": "false", "aria-label": `lock ${label}`,
      title: "Lock: dice and reset leave it alone" }, icon("unlock"));
    lock.addEventListener("click", () => {
      if (this.locks.has(axis.index)) this.locks.delete(axis.index);
      else this.locks.add(axis.index);
      this.showLock(axis.index);
      this.commit();
    });
    const share = axis.kl == null ? null : LL.clamp(axis.kl / most, 0, 1);
    const name = el("span", { class: "ll-name" }, el("span", { class: "ll-label" }, axis.meaning || axis.name),
      axis.meaning || axis.known
        ? el("span", { class: "ll-sub" }, axis.meaning ? axis.name : `· ${axis.known}`) : null);
    const kl = el("span", { class: "ll-kl", "aria-hidden": "true" },
      share == null ? null : el("i", { style: `width:${(share * 100).toFixed(1)}%` }));
    const hint = axis.help || (axis.kl == null ? "" : `KL divergence ${format(axis.kl)} nats an image`);
    return { label, lock, name, kl, hint };
  }

  // The categories of a one-hot block, one button each.
  buildChoice(axis, most) {
    const { el } = LL, { label, lock, name, kl, hint } = this.buildHead(axis, most);
    const buttons = axis.choices.map((text, i) => el("button", { type: "button", role: "radio", class: "ll-choice",
      "data-index": axis.index + i, "aria-checked": "false", tabindex: -1, onclick: () => { this.choose(axis, i); this.settle(); } }, text));
    const group = el("span", { class: "ll-choices", role: "radiogroup", "aria-label": label }, ...buttons);
    group.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowUp: -1, ArrowRight: 1, ArrowDown: 1 }[event.key], n = buttons.length;
      const next = by ? (this.chosen(axis) + by + n) % n : { Home: 0, End: n - 1 }[event.key];
      if (next === undefined) return;
      event.preventDefault();
      this.choose(axis, next);
      buttons[next].focus();
      this.settleSoon();
    });
    const row = el("div", { class: "ll-row ll-category", title: hint || null }, lock, name, kl, group);
    this.rows.set(axis.index, { axis, buttons, lock, row, focus: () => buttons[this.chosen(axis)].focus() });
    return row;
  }

  // The largest of a category's coordinates: between two categories there is none, except while A is blended into B.
  chosen(axis) {
    let best = 0;
    for (let i = 1; i < axis.choices.length; i++) if (this.z[axis.index + i] > this.z[axis.index + best]) best = i;
    return best;
  }

  setChoice(z, axis, choice) {
    for (let i = 0; i < axis.choices.length; i++) z[axis.index + i] = i === choice ? 1 : 0;
  }

  choose(axis, choice) {
    this.setChoice(this.z, axis, choice);
    this.show(axis.index);
    this.draw();
  }

  buildRow(axis, most) {
    const { el } = LL, { label, lock, name, kl, hint } = this.buildHead(axis, most);
    const range = el("input", { type: "range", class: "ll-range ll-slider", "data-index": axis.index,
      step: axis.whole ? 1 : "any", "aria-label": label });
    const value = el("input", { type: "text", class: "ll-value", inputmode: "decimal", "aria-label": `value of ${label}` });
    const track = el("span", { class: "ll-track" }, range);
    const ends = ["low", "high"].map((end) => el("canvas", { class: "ll-glimpse", hidden: true, "aria-hidden": "true",
      title: `What the ${end} end gives; click to go there`, onclick: () => { this.move(axis.index, axis[end]); this.settle(); } }));
    const opener = this.ranges.opener(axis, label);
    const row = el("div", { class: "ll-row", title: hint || null }, lock, name, kl,
      el("span", { class: "ll-reach" }, ends[0], track, ends[1]), value, opener);
    const entry = { axis, label, range, value, lock, track, row, ends, opener, editor: null, focus: () => range.focus() };
    range.addEventListener("input", () => this.move(axis.index, Number(range.value)));
    range.addEventListener("change", () => this.settle());
    range.addEventListener("dblclick", () => { this.move(axis.index, axis.default); this.settle(); });
    range.addEventListener("keydown", (event) => {
      const direction = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10 }[event.key];
      if (direction) {
        const by = direction * entry.step * (event.shiftKey ? 10 : 1);
        this.move(axis.index, LL.clamp(this.z[axis.index] + by, axis.low, axis.high));
      } else if (event.key === "Home") this.move(axis.index, axis.low);
      else if (event.key === "End") this.move(axis.index, axis.high);
      else return;
      event.preventDefault();
      this.settleSoon();
    });
    value.addEventListener("change", () => {
      const typed = Number(value.value.replace("−", "-").replace(",", "."));
      if (value.value.trim() !== "" && Number.isFinite(typed)) this.move(axis.index, typed);
      else this.show(axis.index);
      this.settle();
    });
    value.addEventListener("focus", () => value.select());
    this.rows.set(axis.index, entry);
    this.showRange(entry);
    return row;
  }

  // ---- state ----
  adopt(data) {
    const shape = JSON.stringify(data.axes);
    const fresh = this.revision !== data.revision || !this.z || this.z.length !== data.z.length;
    if (fresh && data.ranges) this.ranges.take(data.ranges);
    if (shape !== this.shape) {
      this.shape = shape;
      this.axes = data.axes.map((axis) => ({ ...axis })); // their ends follow the ranges that are chosen here
      this.ranges.adopt(this.axes);
      this.buildSliders(this.axes);
      this.ranges.showAll();
      if (!fresh) this.showAll();
    } else if (fresh) this.showRanges();
    if (fresh) {
      const old = this.z;
      if (old && old.length === data.z.length) this.history.push(this.settled);
      this.revision = data.revision;
      this.z = Float32Array.from(data.z);
      this.settled = this.now();
      this.locks = new Set(data.locks);
      this.takeSlots(data.slots ?? [null, null]);
      this.seedValue = data.seed;
      this.seed.value = String(data.seed);
      this.showAll();
      if (old && this.seat) this.draw();
    }
    if (data.ends?.image) this.showEnds(data.ends);
    const [, h, w] = data.image_shape;
    this.shapeHW = [h, w];
    if (!this.canvas.dataset.drawn) { this.canvas.width = w; this.canvas.height = h; }
    this.sourceBox.hidden = !data.source;
    this.mainCaption.hidden = !data.source;
    this.root.firstChild.classList.toggle("ll-two", Boolean(data.source));
    if (data.source) {
      this.sourceCaption.textContent = data.source_label;
      LL.pixels(LL.revive(data.source)).then((image) => LL.paint(this.sourceCanvas, image));
    }
    this.resize();
  }

  update(host) {
    this.host = host;
    this.adopt(host.data);
    this.seat.update(host);
    this.arrived(host.data);
    this.coded?.();
  }

  // The code that the sliders stand for: their own numbers, or what Python says of them once it knows where they are.
  code() {
    const given = () => this.host.data.code;
    if (!given()) return Array.from(this.z);
    const fits = () => this.z.every((v, i) => Math.fround(given().of[i]) === v);
    if (fits()) return given().values;
    this.hurry();
    return new Promise((answer) => {
      const late = setTimeout(() => { this.coded = null; answer(null); }, 4000);
      this.coded = () => { if (given() && fits()) { clearTimeout(late); this.coded = null; answer(given().values); } };
    });
  }

  // A picture that Python drew: the first one, and all of them in the rerun engine.
  arrived(data) {
    if (!data.image || (this.seat.engine.kind !== "rerun" && this.canvas.dataset.drawn)) return;
    const engine = this.seat.engine;
    LL.pixels(LL.revive(data.image)).then((image) => {
      LL.paint(this.canvas, image);
      if (engine.kind !== "rerun") return;
      const latency = engine.arrived();
      LL.record("traverse", "rerun", latency, data.drawn);
      this.status.frame(latency);
    });
  }

  snapshot() {
    return { z: Array.from(this.z), locks: [...this.locks].sort((a, b) => a - b), revision: this.revision,
      engine: this.seat.engine.kind, seed: this.seedValue, ranges: this.ranges.plain(),
      slots: [this.slots.A, this.slots.B].map((code) => (code ? Array.from(code) : null)) };
  }

  send() {
    const state = this.snapshot(), text = JSON.stringify(state);
    if (text === this.sent) return;
    this.sent = text;
    this.host.send("state", state);
  }

  draw() {
    this.seat?.engine.draw({ z: Float32Array.from(this.z), flags: LL.WANT_IMAGE });
  }

  async frame(parts, info) {
    if (!parts.image) return;
    LL.paint(this.canvas, await LL.pixels(parts.image));
    const latency = info.latency();
    LL.record("traverse", this.seat.engine.kind, latency, info.request?.z);
    this.status.frame(latency);
  }

  move(index, value) {
    this.z[index] = this.rows.get(index)?.axis.whole ? Math.round(value) : value;
    this.show(index);
    this.draw();
  }

  // What undo gives back.
  now() {
    return { z: Float32Array.from(this.z), ranges: this.ranges.text() };
  }

  // A range was chosen.
  ranged() {
    this.showRanges();
    this.settle();
  }

  // A gesture has ended: one step of history, and Python hears of it.
  settle() {
    clearTimeout(this.soon);
    if (this.z.some((v, i) => v !== this.settled.z[i]) || this.ranges.text() !== this.settled.ranges) {
      this.history.push(this.settled);
      this.settled = this.now();
    }
    this.showHistory();
    // Where Python draws, the picture waits for nothing else.
    if (this.seat?.engine.kind === "rerun") this.send();
    else this.commit();
  }

  settleSoon() {
    clearTimeout(this.soon);
    this.soon = setTimeout(() => this.settle(), 350);
  }

  jump(z) {
    this.z = Float32Array.from(z);
    this.showAll();
    this.draw();
    this.settle();
  }

  undo() {
    this.settle();
    this.restore(this.history.undo(this.now()));
  }

  redo() {
    this.restore(this.history.redo(this.now()));
  }

  restore(kept) {
    if (!kept) return;
    this.z = Float32Array.from(kept.z);
    this.settled = kept;
    this.ranges.take(JSON.parse(kept.ranges));
    this.showRanges();
    this.showAll();
    this.draw();
    this.commit();
  }

  reset() {
    const z = Float32Array.from(this.z);
    for (const axis of this.axes) {
      if (this.locks.has(axis.index)) continue;
      if (axis.choices.length) this.setChoice(z, axis, axis.default);
      else z[axis.index] = axis.default;
    }
    this.jump(z);
  }

  roll(by) {
    const typed = parseInt(this.seed.value, 10);
    this.seedValue = (Number.isFinite(typed) ? typed : 0) + by;
    this.seed.value = String(this.seedValue);
    const chance = LL.random(this.seedValue), z = Float32Array.from(this.z);
    for (const axis of [...this.axes].sort((a, b) => a.index - b.index)) {
      if (axis.choices.length) {
        const choice = Math.floor(chance.uniform() * axis.choices.length);
        if (!this.locks.has(axis.index)) this.setChoice(z, axis, choice);
        continue;
      }
      if (!axis.std) continue; // what is no part of a draw, such as a truncation
      const value = axis.default + axis.std * chance.normal();
      if (!this.locks.has(axis.index)) z[axis.index] = LL.clamp(axis.whole ? Math.round(value) : value, axis.low, axis.high);
    }
    this.jump(z);
  }

  // The codes kept before, where they still fit the sliders.
  takeSlots(codes) {
    ["A", "B"].forEach((name, i) => {
      const code = codes[i] ?? this.slots[name];
      this.slots[name] = code && code.length === this.z.length ? Float32Array.from(code) : null;
      this.slotButtons[name].setAttribute("aria-pressed", String(Boolean(this.slots[name])));
    });
    this.mix.disabled = !(this.slots.A && this.slots.B);
  }

  slot(name, again) {
    if (!this.slots[name] || again) {
      this.slots[name] = Float32Array.from(this.z);
      const chip = this.slotButtons[name];
      chip.setAttribute("aria-pressed", "true");
      this.mix.disabled = !(this.slots.A && this.slots.B);
      if (!this.mix.disabled) this.mix.value = name === "A" ? 0 : 1;
      this.commit();
    } else {
      this.mix.value = name === "A" ? 0 : 1;
      this.jump(this.slots[name]);
    }
  }

  blend() {
    const t = Number(this.mix.value), { A, B } = this.slots;
    this.z = A.map((a, i) => a * (1 - t) + B[i] * t);
    this.showAll();
    this.draw();
  }

  key(event) {
    const k = event.key.toLowerCase();
    if (k === "r") this.roll(1);
    else if (k === "z") event.shiftKey ? this.redo() : this.undo();
    else if (/^[1-9]$/.test(k)) this.shown()[Number(k) - 1]?.focus();
    else return false;
    return true;
  }

  // ---- showing ----
  // The sliders as they stand below each other, without those that are folded away.
  shown() {
    return [...this.rows.values()].filter((entry) => !entry.row.closest("details:not([open])"));
  }

  show(index) {
    const row = this.rows.get(index);
    if (!row) return;
    if (row.buttons) {
      const chosen = this.chosen(row.axis);
      row.buttons.forEach((button, i) => {
        button.setAttribute("aria-checked", String(i === chosen));
        button.tabIndex = i === chosen ? 0 : -1;
        button.style.setProperty("--share", LL.clamp(this.z[index + i], 0, 1));
      });
      return;
    }
    const { axis } = row, value = this.z[index], at = LL.clamp((value - axis.low) / (axis.high - axis.low), 0, 1);
    row.range.value = String(value);
    row.range.setAttribute("aria-valuetext", LL.format(value));
    row.value.value = LL.format(value);
    row.track.style.setProperty("--at", at);
    row.row.classList.toggle("ll-outside", value < Math.fround(axis.low) || value > Math.fround(axis.high));
  }

  showRange(entry) {
    const { axis, range, track } = entry, span = axis.high - axis.low;
    [range.min, range.max] = [axis.low, axis.high];
    entry.step = axis.whole ? 1 : span / 200;
    track.style.setProperty("--tick", LL.clamp((axis.default - axis.low) / span, 0, 1));
    track.classList.toggle("ll-tickless", axis.default < axis.low || axis.default > axis.high);
    this.ranges.show(entry);
  }

  showRanges() {
    this.ranges.apply();
    for (const entry of this.rows.values()) {
      if (!entry.range) continue;
      this.showRange(entry);
      if (this.z) this.show(entry.axis.index);
    }
    this.ranges.showAll();
  }

  // What each slider leads to from the code that Python saw last: a row of the sheet for each, low beside high.
  async showEnds({ of, image }) {
    const sheet = await LL.pixels(LL.revive(image)), w = sheet.w / 2, h = sheet.h / of.length;
    of.forEach((index, i) => {
      this.rows.get(index)?.ends?.forEach((canvas, side) => {
        const rgba = new Uint8ClampedArray(4 * w * h);
        for (let y = 0; y < h; y++) {
          const from = 4 * ((i * h + y) * sheet.w + side * w);
          rgba.set(sheet.rgba.subarray(from, from + 4 * w), 4 * y * w);
        }
        LL.paint(canvas, { w, h, rgba });
        canvas.hidden = false;
      });
    });
  }

  showLock(index) {
    const row = this.rows.get(index), on = this.locks.has(index);
    row.lock.setAttribute("aria-pressed", String(on));
    row.lock.replaceChildren(LL.icon(on ? "lock" : "unlock"));
    row.row.classList.toggle("ll-locked", on);
  }

  showAll() {
    for (const index of this.rows.keys()) { this.show(index); this.showLock(index); }
    this.showHistory();
  }

  showHistory() {
    this.undoButton.disabled = !this.history.past.length;
    this.redoButton.disabled = !this.history.future.length;
  }

  resize() {
    const width = this.pictures.clientWidth;
    if (!width || !this.shapeHW) return;
    const [h, w] = this.shapeHW, two = !this.sourceBox.hidden;
    const beside = two && getComputedStyle(this.pictures).flexDirection === "row";
    const room = this.host.data.height ? (this.host.data.height * w) / h : Math.min(beside ? (width - 12) / 2 : width, 448);
    for (const canvas of [this.canvas, this.sourceCanvas]) LL.fit(canvas, room, w, h);
  }

  destroy() {
    this.commit.cancel();
    clearTimeout(this.soon);
    this.sizes.disconnect();
    this.unkey();
    window.removeEventListener("latentlab-settle", this.hurry);
    this.seat.destroy();
  }
};
