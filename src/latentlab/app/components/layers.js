// Layers: a graph of stages, one stage's units as a sheet; look at a unit, switch units off, see the picture change.
LL.views.layers = class {
  constructor(root, host) {
    this.root = root;
    this.host = host;
    this.history = new LL.History();
    this.edits = [];
    this.selected = new Set();
    this.cursor = null;
    this.revision = null;
    this.sheet = null;
    this.images = {};
    this.commit = LL.debounce(150, () => this.send());
    this.build();
    this.adopt(host.data);
    this.seat = new LL.Seat(host, {
      ready: () => this.ready(),
      frame: (parts, info) => this.frame(parts, info),
      live: () => this.send(),
      changed: () => this.draw(true),
      status: (kind) => this.status.kind(kind),
      error: (sentence) => this.status.error(sentence),
    });
    this.arrived(host.data);
    this.unkey = LL.keys(root, (event) => this.key(event));
    this.sizes = new ResizeObserver(() => this.layout());
    this.sizes.observe(this.box);
    this.sizes.observe(this.results);
  }

  // ---- layout ----
  build() {
    const { el, button } = LL;
    this.graph = el("nav", { class: "ll-graph", "aria-label": "stages" });
    this.count = el("span", { class: "ll-count" });
    this.offButton = button(null, "Off", "Switch the selected units off (Delete)", () => this.setSelected("ablate"));
    this.onButton = button(null, "On", "Take back all changes of the selected units", () => this.setSelected(null));
    this.scale = el("input", { type: "range", class: "ll-range ll-scale", min: 0, max: 3, step: 0.05, value: 1,
      "aria-label": "scale of the selected units", title: "Multiply the selected units' activations",
      oninput: () => this.rescale(Number(this.scale.value)), onchange: () => this.settle(),
      ondblclick: () => { this.scale.value = 1; this.rescale(1); this.settle(); } });
    this.scaleText = el("span", { class: "ll-count", style: "min-width:38px" }, "×1.00");
    this.undoButton = button("undo", "", "Undo (Z)", () => this.undo());
    this.redoButton = button("redo", "", "Redo (Shift+Z)", () => this.redo());
    this.resetButton = button("reset", "Reset", "Take back all edits, in every stage (R)", () => this.change([]));
    this.tools = el("div", { class: "ll-tools", role: "toolbar", "aria-label": "units" },
      el("span", { class: "ll-joined" }, this.undoButton, this.redoButton), this.resetButton,
      el("span", { class: "ll-joined" }, this.offButton, this.onButton),
      el("span", { class: "ll-scale-box" }, this.scale, this.scaleText), this.count);
    this.head = el("div", { class: "ll-head" });
    this.canvas = el("canvas", { class: "ll-sheet", tabindex: "0", role: "grid",
      "aria-label": "units of the stage: arrow keys move, enter looks at a unit, space switches it off or on, S selects" });
    this.tip = el("div", { class: "ll-tip", hidden: true });
    this.box = el("div", { class: "ll-sheet-box" }, this.canvas, this.tip);
    this.chips = el("div", { class: "ll-chips", "aria-label": "edits" });
    this.hint = el("p", { class: "ll-hint" });
    this.hint.innerHTML = "Click a unit to look at it; click it again to switch it off or on. Drag across several to " +
      "select them, then scale them. <kbd>Shift</kbd>-click adds one to the selection.";
    this.status = LL.statusLine();
    this.pictures = {};
    const figures = [["original", "Original"], ["image", "Edited"], ["difference", "Difference"]].map(([name, title]) => {
      const canvas = el("canvas", { class: `ll-picture ${name === "image" ? "ll-main" : `ll-${name}`}`, role: "img", "aria-label": `${title} image` });
      const caption = el("figcaption", {}, title);
      this.pictures[name] = { canvas, caption };
      return el("figure", { class: "ll-figure" }, canvas, caption);
    });
    this.results = el("div", { class: "ll-results" }, ...figures,
      el("div", { class: "ll-results-note" }, this.hint, this.status.node));
    this.score = el("p", { class: "ll-score", hidden: true });
    this.root.replaceChildren(this.graph, el("div", { class: "ll-layers" },
      el("div", { class: "ll-open" }, this.tools, this.head, this.score, this.box, this.chips), this.results));
    this.pointer();
  }

  // One row a network, from its input to what it gives; a column is a stage's distance from the input.
  buildStages(stages) {
    const { el } = LL;
    this.stages = new Map(stages.map((stage) => [stage.address, stage]));
    this.stageButtons = new Map();
    const networks = new Map();
    for (const stage of stages) {
      const owner = stage.address.split(".")[0];
      networks.set(owner, [...(networks.get(owner) ?? []), stage]);
    }
    const titles = { generator: "Generator", encoder: "Encoder", discriminator: "Discriminator", mapping: "Mapping" };
    this.rows = [...networks].map(([owner, members]) => {
      const plan = this.plan(owner, members), row = el("div", { class: "ll-network", style: `--lanes:${plan.lanes}` });
      const lines = document.createElementNS("http://www.w3.org/2000/svg", "svg");
      lines.setAttribute("class", "ll-lines");
      lines.setAttribute("aria-hidden", "true");
      row.append(lines);
      for (const [name, text] of [["input", members[0].feeds], ["output", members.at(-1).gives]]) {
        if (text) row.append(plan.ends[name].node = el("span", { class: "ll-end" }, text));
      }
      for (const stage of members) {
        const place = plan.places.get(stage.address);
        row.append(place.node = this.buildStage(stage));
        if (place.styled) { place.node.classList.add("ll-styled"); place.node.title += ` · also reads the ${members[0].feeds}`; }
      }
      return { node: row, title: el("h4", {}, titles[owner] ?? owner), lines, ...plan };
    });
    this.graph.replaceChildren(...this.rows.map((row) => el("div", { class: "ll-network-row" }, row.title, row.node)));
    this.arrange();
  }

  plan(owner, members) {
    const places = new Map(), byName = new Map(), links = [], columns = [];
    const ends = { input: { column: 0, lane: 0, ahead: 0 }, output: null };
    let before = "input";
    for (const stage of members) {
      const name = stage.address.slice(owner.length + 1), reads = stage.inputs.length ? stage.inputs : [before];
      const from = reads.map((read) => (read === "input" ? ends.input : byName.get(read))).filter(Boolean);
      const place = { column: 1 + Math.max(0, ...from.map((source) => source.column)), lane: 0, ahead: 0, from };
      (columns[place.column] ??= []).push(place);
      byName.set(name, place);
      places.set(stage.address, place);
      // A style that every stage reads is a mark on the box; its lines would cover the graph.
      place.styled = from.length > 1 && from.includes(ends.input);
      for (const source of from) if (source !== ends.input || !place.styled) links.push([source, place]);
      before = name;
    }
    // The longest way to the end stays in the first lane.
    for (const place of [...places.values()].reverse()) for (const source of place.from) source.ahead = Math.max(source.ahead, place.ahead + 1);
    for (const column of columns) column?.sort((a, b) => b.ahead - a.ahead).forEach((place, lane) => { place.lane = lane; });
    const last = places.get(members.at(-1).address);
    ends.output = { column: columns.length, lane: last.lane };
    links.push([last, ends.output]);
    return { places, ends, links, columns: columns.length + 1, lanes: Math.max(...Array.from(columns, (column) => column?.length ?? 1)) };
  }

  buildStage(stage) {
    const { el } = LL, name = stage.address.split(".").slice(1).join(".");
    const map = stage.shape.length === 3, [units, h, w] = stage.shape;
    const shape = map ? `${units} ${units === 1 ? "map" : "maps"} of ${h}×${w}` : `${units ?? "?"} units`;
    const mark = el("span", { class: "ll-mark", title: "edited units" });
    const title = [shape, stage.kind, stage.parameters ? `${stage.parameters.toLocaleString("en")} parameters` : ""].filter(Boolean).join(" · ");
    const node = el("button", { type: "button", class: "ll-stage", title, "data-stage": stage.address,
      onclick: () => this.open(stage.address) }, el("span", { class: "ll-label" }, stage.label || name), mark,
      el("small", {}, map ? `${units} · ${h}×${w}` : units ?? ""));
    this.stageButtons.set(stage.address, { node, mark, shape });
    return node;
  }

  // Places the boxes and draws the lines between them; again whenever the width changes.
  arrange() {
    const narrow = this.graph.clientWidth < 800, high = 38, lane = 46;
    this.graph.classList.toggle("ll-narrow", narrow);
    const room = (this.graph.clientWidth || 900) - (narrow ? 6 : 96), endWide = narrow ? 40 : 62;
    for (const { node, lines, places, ends, links, columns, lanes } of this.rows ?? []) {
      const gap = LL.clamp((room - 2 * endWide) / (columns - 2) - 84, 10, 26);
      const wide = LL.clamp((room - 2 * endWide - gap * (columns - 1)) / (columns - 2), 56, 112);
      const left = (column) => (column === 0 ? 0 : endWide + gap + (column - 1) * (wide + gap));
      const width = left(columns - 1) + endWide, height = lanes * lane - (lane - high);
      const box = ({ column, lane: row }) => [left(column), row * lane, column === 0 || column === columns - 1 ? endWide : wide];
      node.style.cssText = `width:${width}px;height:${height}px`;
      for (const place of [...places.values(), ends.input, ends.output]) {
        if (!place.node) continue;
        const [x, y, w] = box(place);
        place.node.style.cssText = `left:${x}px;top:${y}px;width:${w}px;height:${high}px`;
      }
      lines.setAttribute("viewBox", `0 0 ${width} ${height}`);
      lines.style.cssText = `width:${width}px;height:${height}px`;
      lines.innerHTML = links.map(([a, b]) => {
        const [ax, ay, aw] = box(a), [bx, by] = box(b), x0 = ax + aw, y0 = ay + high / 2, y1 = by + high / 2;
        // What skips stages in its own lane goes below them.
        const skips = b.column - a.column > 1, dip = skips && a.lane === b.lane ? high / 2 + 4 : 0, mid = Math.max(10, (bx - x0) / 2);
        return dip
          ? `<path class="ll-skip" d="M${x0} ${y0}C${x0 + 16} ${y0 + dip} ${x0 + 10} ${y0 + dip} ${x0 + 22} ${y0 + dip}H${bx - 22}C${bx - 10} ${y0 + dip} ${bx - 16} ${y1} ${bx} ${y1}"/>`
          : `<path class="${skips ? "ll-skip" : ""}" d="M${x0} ${y0}C${x0 + mid} ${y0} ${bx - mid} ${y1} ${bx} ${y1}"/>`;
      }).join("");
    }
  }

  // ---- state ----
  adopt(data) {
    const shape = JSON.stringify(data.stages);
    if (shape !== this.shape) {
      this.shape = shape;
      this.buildStages(data.stages);
      if (!this.stages.has(this.stage)) this.stage = data.stage;
    }
    if (this.revision !== data.revision) {
      const first = this.revision === null;
      this.revision = data.revision;
      this.edits = data.edits;
      this.settled = data.edits;
      this.selected.clear();
      this.history = new LL.History();
      if (!first) { this.control(); this.draw(true); }
      else if (data.unit != null) { this.cursor = data.unit; this.selected.add(data.unit); }
    }
    this.showEdits();
  }

  update(host) {
    this.host = host;
    this.adopt(host.data);
    this.seat.update(host);
    this.arrived(host.data);
    this.layout();
  }

  arrived(data) {
    if (!data.frame || this.seat.engine.kind !== "rerun") return;
    const parts = Object.fromEntries(Object.entries(data.frame).map(([name, part]) => [name, LL.revive(part)]));
    this.frame(parts, { request: null, latency: () => this.seat.engine.arrived() });
  }

  ready() {
    this.control();
    if (this.seat.engine.kind !== "rerun" || !this.host.data.frame) this.draw(true);
  }

  control() {
    this.seat?.engine.control({ type: "stage", stage: this.stage });
    this.seat?.engine.control({ type: "edits", edits: this.edits });
  }

  // The original needs drawing only when the input may have changed.
  draw(original = false) {
    this.wantOriginal ||= original;
    const flags = LL.WANT_IMAGE | LL.WANT_SHEET | (this.wantOriginal ? LL.WANT_ORIGINAL : 0);
    this.seat?.engine.draw({ z: null, flags });
  }

  async frame(parts, info) {
    if (parts.sheet && parts.sheet.stage === this.stage) {
      const raw = parts.stats.data;
      this.sheet = { ...parts.sheet, stats: new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength)) };
    }
    for (const name of ["original", "image"]) {
      if (!parts[name]) continue;
      this.images[name] = await LL.pixels(parts[name]);
      LL.paint(this.pictures[name].canvas, this.images[name]);
      if (name === "original") this.wantOriginal = false;
    }
    this.showDifference();
    this.layout();
    if (!this.tip.hidden && this.over != null) this.hover(this.unitAt(...this.at), ...this.at); // its numbers are new
    const latency = info.latency();
    LL.record("layers", this.seat.engine.kind, latency, null);
    this.showScore(parts.scores);
    this.status.frame(latency);
  }

  // What a discriminator says of the picture, without and with the edits.
  showScore(part) {
    this.score.hidden = !part;
    if (!part) return;
    const [before, after] = part.values.map((value) => LL.format(value));
    this.score.textContent = `Discriminator’s score: ${before}` + (before === after ? "" : ` → ${after}`);
    this.score.title = "Higher: the image looks more real to it";
    LL.measured("layers").scores = part.values;
  }

  send() {
    const state = { edits: this.edits, stage: this.stage, selected: [...this.selected].sort((a, b) => a - b),
      unit: this.cursor ?? null, revision: this.revision, engine: this.seat.engine.kind };
    const text = JSON.stringify(state);
    if (text === this.sent) return;
    this.sent = text;
    this.host.send("state", state);
  }

  open(address) {
    if (address === this.stage) return;
    this.stage = address;
    this.selected.clear();
    this.cursor = null;
    this.showEdits();
    this.control();
    this.draw();
    this.commit();
  }

  // Edits of this stage that the sheet can show, by unit; whatever else was given (regions, shifts, …) stays as it is.
  plain(edit) {
    return edit.stage === this.stage && Array.isArray(edit.units) && !edit.region && (edit.amount ?? 1) === 1 &&
      ["ablate", "scale"].includes(edit.operation ?? "ablate");
  }

  unitStates() {
    const states = new Map();
    for (const edit of this.edits) {
      if (!this.plain(edit)) continue;
      for (const unit of edit.units) states.set(unit, (edit.operation ?? "ablate") === "ablate" ? 0 : edit.value ?? 0);
    }
    return states;
  }

  withUnits(states) {
    const others = this.edits.filter((edit) => !this.plain(edit)), byValue = new Map();
    for (const [unit, value] of states) byValue.set(value, [...(byValue.get(value) ?? []), unit]);
    const mine = [...byValue].sort((a, b) => a[0] - b[0]).map(([value, units]) => {
      const edit = { stage: this.stage, units: units.sort((a, b) => a - b), operation: value === 0 ? "ablate" : "scale" };
      if (value !== 0) edit.value = value;
      return edit;
    });
    return [...others, ...mine];
  }

  // Live: shown and sent to the engine, but no step of history yet.
  preview(edits) {
    this.edits = edits;
    this.showEdits();
    this.layout();
    this.seat.engine.control({ type: "edits", edits });
    this.draw();
  }

  settle() {
    if (JSON.stringify(this.edits) !== JSON.stringify(this.settled)) {
      this.history.push(this.settled);
      this.settled = this.edits;
    }
    this.showEdits();
    this.commit();
  }

  change(edits) { this.preview(edits); this.settle(); }

  toggle(unit) {
    const states = this.unitStates();
    if (states.get(unit) === 0) states.delete(unit);
    else states.set(unit, 0);
    this.change(this.withUnits(states));
  }

  setSelected(operation) {
    const states = this.unitStates();
    for (const unit of this.selected) operation === "ablate" ? states.set(unit, 0) : states.delete(unit);
    this.change(this.withUnits(states));
  }

  rescale(value) {
    this.scaleText.textContent = `×${value.toFixed(2)}`;
    const states = this.unitStates();
    for (const unit of this.selected) value === 1 ? states.delete(unit) : states.set(unit, value);
    this.preview(this.withUnits(states));
  }

  undo() { const e = this.history.undo(this.edits); if (e) { this.settled = e; this.preview(e); this.commit(); } }
  redo() { const e = this.history.redo(this.edits); if (e) { this.settled = e; this.preview(e); this.commit(); } }

  select(units, keep = false) {
    if (!keep) this.selected.clear();
    for (const unit of units) this.selected.add(unit);
    this.showEdits();
    this.layout();
    this.commit();
  }

  key(event) {
    const k = event.key, last = (this.sheet?.shown ?? 0) - 1, columns = this.grid?.columns ?? 1;
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[k];
    const onSheet = this.root.getRootNode().activeElement === this.canvas;
    if (step && onSheet) {
      this.cursor = LL.clamp((this.cursor ?? -step) + step, 0, Math.max(0, last));
      if (event.shiftKey) this.select([this.cursor], true);
      this.layout();
      this.reveal();
    } else if (k === "Enter" && onSheet && this.cursor != null) this.select([this.cursor]);
    else if (k === " " && onSheet && this.cursor != null) this.toggle(this.cursor);
    else if (k.toLowerCase() === "s" && this.cursor != null) {
      this.selected.has(this.cursor) ? this.selected.delete(this.cursor) : this.selected.add(this.cursor);
      this.select([], true);
    } else if (k.toLowerCase() === "z") event.shiftKey ? this.redo() : this.undo();
    else if (k.toLowerCase() === "r") this.change([]);
    else if ((k === "Delete" || k === "Backspace") && this.selected.size) this.setSelected("ablate");
    else if (k === "Escape" && this.selected.size) this.select([]);
    else return false;
    return true;
  }

  // ---- pointer ----
  pointer() {
    let start = null, box = null;
    const at = (event) => {
      const r = this.canvas.getBoundingClientRect();
      return [event.clientX - r.left, event.clientY - r.top];
    };
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button) return;
      start = at(event);
      box = null;
      if (event.pointerType !== "touch") this.canvas.setPointerCapture(event.pointerId);
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const [x, y] = at(event);
      if (start && event.pointerType !== "touch" && (box || Math.hypot(x - start[0], y - start[1]) > 6)) {
        box = [Math.min(x, start[0]), Math.min(y, start[1]), Math.max(x, start[0]), Math.max(y, start[1])];
        this.marquee = box;
        this.tip.hidden = true;
        this.layout();
        return;
      }
      this.hover(this.unitAt(x, y), x, y);
    });
    const end = (event) => {
      if (!start) return;
      const [x, y] = at(event), unit = this.unitAt(...start);
      start = null;
      this.marquee = null;
      if (event.type === "pointercancel") return this.layout();
      if (box) {
        const inside = [];
        for (let u = 0; u < (this.sheet?.shown ?? 0); u++) {
          const [left, top, size] = this.tile(u);
          if (left < box[2] && left + size > box[0] && top < box[3] && top + size > box[1]) inside.push(u);
        }
        box = null;
        this.select(inside, event.shiftKey);
      } else if (unit != null) {
        this.cursor = unit;
        if (event.shiftKey) {
          this.selected.has(unit) ? this.selected.delete(unit) : this.selected.add(unit);
          this.select([], true);
        } else if (this.selected.size === 1 && this.selected.has(unit)) this.toggle(unit);
        else this.select([unit]);
        this.hover(unit, x, y);
      }
    };
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; this.over = null; this.layout(); });
    this.canvas.addEventListener("focus", () => { if (this.cursor == null && this.sheet) this.cursor = 0; this.layout(); });
    this.canvas.addEventListener("blur", () => this.layout());
  }

  hover(unit, x, y) {
    this.at = [x, y];
    if (this.over !== unit) { this.over = unit; this.layout(); }
    if (unit == null) { this.tip.hidden = true; return; }
    const { format } = LL, stats = this.sheet.stats.subarray(3 * unit, 3 * unit + 3), state = this.unitStates().get(unit);
    const now = state === 0 ? " · off" : state != null ? ` · ×${state.toFixed(2)}` : "";
    this.tip.textContent = `unit ${unit}${now}\nmean ${format(stats[0])}, largest ${format(stats[2])}` +
      (this.sheet.h * this.sheet.w > 1 ? `, spread ${format(stats[1])}` : "") + (stats[2] === 0 && state !== 0 ? "\nsilent for this input" : "");
    this.tip.hidden = false;
    const width = this.tip.offsetWidth, room = this.box.clientWidth;
    this.tip.style.left = `${LL.clamp(x + 14, 0, Math.max(0, room - width - 2))}px`;
    const above = y - this.box.scrollTop > this.box.clientHeight - 70 && y > 70;
    this.tip.style.top = `${above ? y - this.tip.offsetHeight - 10 : y + 18}px`;
  }

  // ---- showing ----
  showEdits() {
    const marks = new Map();
    for (const edit of this.edits) marks.set(edit.stage, (marks.get(edit.stage) ?? 0) + (edit.units?.length ?? 1));
    for (const [address, { node, mark }] of this.stageButtons) {
      mark.textContent = marks.get(address) ?? "";
      node.setAttribute("aria-current", String(address === this.stage));
    }
    const n = this.selected.size, states = this.unitStates();
    this.count.textContent = n ? `${n} selected` : "none selected";
    for (const control of [this.offButton, this.onButton, this.scale]) control.disabled = !n;
    const values = new Set([...this.selected].map((unit) => states.get(unit) ?? 1));
    const value = values.size === 1 ? [...values][0] : 1;
    this.scale.value = String(value);
    this.scaleText.textContent = values.size > 1 ? "mixed" : `×${value.toFixed(2)}`;
    this.undoButton.disabled = !this.history.past.length;
    this.redoButton.disabled = !this.history.future.length;
    this.resetButton.disabled = !this.edits.length;
    this.showChips();
  }

  showChips() {
    const text = (edit) => {
      const operation = edit.operation ?? "ablate", value = edit.value ?? 0;
      const units = !edit.units ? "all units" : edit.units.length > 4 ? `${edit.units.length} units` : `unit${edit.units.length > 1 ? "s" : ""} ${edit.units.join(", ")}`;
      const what = { ablate: "off", scale: `×${value.toFixed(2)}`, set: `= ${value}`, shift: `${value < 0 ? "−" : "+"} ${Math.abs(value)}`, replace: "replaced" }[operation];
      return `${edit.stage}: ${units} ${what}${edit.region ? ", in a region" : ""}`;
    };
    this.chips.hidden = !this.edits.length;
    this.chips.replaceChildren(...this.edits.map((edit) => LL.el("span", { class: "ll-chip" }, text(edit),
      LL.el("button", { type: "button", title: "Take this edit back", "aria-label": `take back ${text(edit)}`,
        onclick: () => this.change(this.edits.filter((other) => other !== edit)) }, LL.icon("close")))));
  }

  showDifference() {
    const { original, image } = this.images;
    if (!original || !image || original.w !== image.w || original.h !== image.h) return;
    const n = image.w * image.h, change = new Float32Array(n), rgba = new Uint8ClampedArray(4 * n);
    let most = 0, sum = 0;
    for (let i = 0; i < n; i++) {
      let d = 0;
      for (let c = 0; c < 3; c++) d = Math.max(d, Math.abs(image.rgba[4 * i + c] - original.rgba[4 * i + c]));
      change[i] = d;
      sum += d;
      most = Math.max(most, d);
    }
    const top = Math.max(most, 16);
    for (let i = 0; i < n; i++) {
      const k = 3 * Math.round((255 * change[i]) / top);
      rgba.set([LL.HEAT[k], LL.HEAT[k + 1], LL.HEAT[k + 2], most ? 255 : 0], 4 * i); // none: the empty frame
    }
    LL.paint(this.pictures.difference.canvas, { w: image.w, h: image.h, rgba });
    this.pictures.difference.caption.textContent = most ? `Difference, largest ${(most / 255).toFixed(2)}` : "Difference: none";
    LL.measured("layers").difference = { largest: most / 255, mean: sum / n / 255 };
  }

  unitAt(x, y) {
    if (!this.grid) return null;
    const { columns, size, gap, units } = this.grid, c = Math.floor(x / (size + gap)), r = Math.floor(y / (size + gap));
    const unit = r * columns + c;
    return c >= 0 && c < columns && r >= 0 && unit < units ? unit : null;
  }

  tile(unit) {
    const { columns, size, gap } = this.grid;
    return [(unit % columns) * (size + gap), Math.floor(unit / columns) * (size + gap), size];
  }

  reveal() {
    if (this.cursor == null || !this.grid) return;
    const [, top, size] = this.tile(this.cursor);
    if (top < this.box.scrollTop) this.box.scrollTop = top - 4;
    else if (top + size > this.box.scrollTop + this.box.clientHeight) this.box.scrollTop = top + size - this.box.clientHeight + 4;
  }

  layout() {
    if (this.graphWidth !== this.graph.clientWidth) { this.graphWidth = this.graph.clientWidth; this.arrange(); }
    if (this.frameAsked) return;
    this.frameAsked = requestAnimationFrame(() => { this.frameAsked = 0; this.paintSheet(); });
  }

  paintSheet() {
    const [, imageH, imageW] = this.host.data.image_shape;
    for (const { canvas } of Object.values(this.pictures)) {
      if (!canvas.dataset.drawn) { canvas.width = imageW; canvas.height = imageH; }
      LL.fit(canvas, canvas.parentElement.clientWidth, imageW, imageH);
    }
    const sheet = this.sheet, width = this.box.clientWidth;
    if (!sheet || !width) return;
    const { shown: n, h, w } = sheet, gap = 2, flat = h * w === 1;
    const least = flat ? 13 : 30, most = flat ? 26 : 176;
    let size = most;
    for (; size > least; size--) {
      const columns = Math.floor((width + gap) / (size + gap));
      if (Math.ceil(n / columns) * (size + gap) <= 470) break;
    }
    // Whole multiples keep the maps' pixels equally large.
    if (!flat && size > w) size = Math.max(least, Math.floor(size / w) * w);
    const columns = Math.max(1, Math.min(n, Math.floor((width + gap) / (size + gap)))), rows = Math.ceil(n / columns);
    this.grid = LL.measured("layers").grid = { columns, size, gap, units: n };
    const ratio = window.devicePixelRatio || 1, cssW = columns * (size + gap) - gap, cssH = rows * (size + gap) - gap;
    this.canvas.width = Math.round(cssW * ratio);
    this.canvas.height = Math.round(cssH * ratio);
    this.canvas.style.width = `${cssW}px`;
    this.canvas.style.height = `${cssH}px`;
    const look = LL.theme(this.root), table = sheet.signed ? LL.DIVERGING[look.dark ? "dark" : "light"] : LL.HEAT;
    const strip = new ImageData(w, h * n), pixels = strip.data;
    for (let i = 0; i < n * h * w; i++) {
      const k = 3 * sheet.data[i];
      pixels[4 * i] = table[k]; pixels[4 * i + 1] = table[k + 1]; pixels[4 * i + 2] = table[k + 2]; pixels[4 * i + 3] = 255;
    }
    // A canvas is at most 32,767 pixels high, so tall strips go in pieces.
    const context = this.canvas.getContext("2d"), piece = Math.max(1, Math.min(n, Math.floor(16384 / h)));
    const scratch = new OffscreenCanvas(w, h * piece), brush = scratch.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.imageSmoothingEnabled = false;
    // Dark maps on a dark page would run into each other.
    context.fillStyle = LL.css(look.text, 0.22);
    for (let from = 0; from < n; from += piece) {
      brush.putImageData(strip, 0, -from * h);
      for (let u = from; u < Math.min(n, from + piece); u++) {
        const [x, y] = this.tile(u);
        if (look.dark) context.fillRect(x - 1, y - 1, size + 2, size + 2);
        context.drawImage(scratch, 0, (u - from) * h, w, h, x, y, size, size);
      }
    }
    const states = this.unitStates(), accent = LL.css(look.primary);
    for (const [unit, value] of states) {
      if (unit >= n) continue;
      const [x, y] = this.tile(unit);
      context.lineWidth = 2;
      if (value === 0) {
        context.fillStyle = "rgba(214, 69, 69, .42)";
        context.fillRect(x, y, size, size);
        context.strokeStyle = "#d64545";
        context.strokeRect(x + 1, y + 1, size - 2, size - 2);
        context.lineWidth = 1.5;
        context.beginPath();
        context.moveTo(x + 2, y + size - 2);
        context.lineTo(x + size - 2, y + 2);
        context.stroke();
      } else {
        context.strokeStyle = "#2ba6b5";
        context.strokeRect(x + 1, y + 1, size - 2, size - 2);
        if (size >= 28) {
          const label = `×${Math.round(value * 100) / 100}`;
          context.font = `600 10px ${look.font}`;
          const labelWidth = context.measureText(label).width + 6;
          context.fillStyle = "#2ba6b5";
          context.fillRect(x, y + size - 13, labelWidth, 13);
          context.fillStyle = "#fff";
          context.fillText(label, x + 3, y + size - 3);
        }
      }
    }
    const outline = (unit, colour, line, dash = []) => {
      const [x, y] = this.tile(unit);
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.setLineDash(dash);
      context.strokeRect(x + line / 2, y + line / 2, size - line, size - line);
      context.setLineDash([]);
    };
    for (const unit of this.selected) if (unit < n) outline(unit, accent, 2.5);
    if (this.over != null && this.over < n) outline(this.over, LL.css(look.text, 0.8), 1.5);
    if (this.cursor != null && this.cursor < n && this.root.getRootNode().activeElement === this.canvas) {
      outline(this.cursor, "#fff", 2);
      outline(this.cursor, "#000", 2, [4, 4]);
    }
    if (this.marquee) {
      const [x0, y0, x1, y1] = this.marquee;
      context.fillStyle = LL.css(look.primary, 0.16);
      context.strokeStyle = accent;
      context.lineWidth = 1;
      context.fillRect(x0, y0, x1 - x0, y1 - y0);
      context.strokeRect(x0 + 0.5, y0 + 0.5, x1 - x0, y1 - y0);
    }
    this.showHead(table);
  }

  showHead(table) {
    const { sheet } = this, info = this.stages.get(this.stage), key = `${this.stage}|${sheet.high}|${sheet.signed}|${table[0]}`;
    if (this.headKey === key) return;
    this.headKey = key;
    const stops = [0, 51, 102, 153, 204, 255].map((i) => `rgb(${table[3 * i]},${table[3 * i + 1]},${table[3 * i + 2]})`).join(",");
    const more = sheet.units > sheet.shown ? `, the first ${sheet.shown} shown` : "";
    this.head.replaceChildren(LL.el("b", {}, info?.label || this.stage.split(".").slice(1).join(".")),
      LL.el("span", {}, (this.stageButtons.get(this.stage)?.shape ?? "") + more),
      LL.el("span", {}, sheet.signed ? LL.format(-sheet.high) : "0"),
      LL.el("i", { class: "ll-legend-bar", style: `background:linear-gradient(to right,${stops})`, title: "activation" }),
      LL.el("span", {}, LL.format(sheet.high)));
  }

  destroy() {
    cancelAnimationFrame(this.frameAsked);
    this.commit.cancel();
    this.sizes.disconnect();
    this.unkey();
    this.seat.destroy();
  }
};
