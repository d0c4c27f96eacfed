// Ranges: how far sliders reach where a person widened or narrowed them, all at once or one by one. Python follows the
// same rules in app/ranges.py.
LL.Ranges = class {
  static LARGEST = 1e6;
  static SIGMAS = [2, 3];

  // view has axes, rows, and ranged(), which is called when something was chosen.
  constructor(view) {
    this.view = view;
    this.all = null; // for all: null as given, a number of standard deviations, or [low, high]
    this.own = new Map(); // index -> [low, high]
    this.given = new Map();
    this.build();
  }

  // ---- what was chosen ----
  take(plain) {
    this.all = plain?.all ?? null;
    this.own = new Map((plain?.own ?? []).map(([index, low, high]) => [index, [low, high]]));
  }

  plain() {
    return { all: this.all, own: [...this.own].sort((a, b) => a[0] - b[0]).map(([index, ends]) => [index, ...ends]) };
  }

  text() { return JSON.stringify(this.plain()); }

  // New sliders: they come with ranges of their own.
  adopt(axes) {
    this.given = new Map(axes.map((axis) => [axis.index, [axis.low, axis.high]]));
    this.apply();
  }

  apply() {
    for (const axis of this.view.axes) [axis.low, axis.high] = this.of(axis);
  }

  of(axis) {
    const fits = (ends) => ends && !this.wrong(axis, ends);
    return [this.own.get(axis.index), this.ofAll(axis)].find(fits) ?? this.given.get(axis.index);
  }

  ofAll(axis) {
    if (this.all === null || !axis.sigma) return this.given.get(axis.index);
    const [middle, sigma] = axis.sigma;
    return Array.isArray(this.all) ? this.all : [middle - this.all * sigma, middle + this.all * sigma];
  }

  // Why a slider can't reach so far, "" where it can.
  wrong(axis, [low, high]) {
    const { LARGEST } = LL.Ranges, told = `got ${LL.Ranges.shown(low)} to ${LL.Ranges.shown(high)}.`;
    if (Math.max(Math.abs(low), Math.abs(high)) > LARGEST) return `A range lies between −1,000,000 and 1,000,000; ${told}`;
    if (!(Math.fround(low) < Math.fround(high))) return `A range goes from a lower number to a higher one; ${told}`;
    if (!axis?.whole) return "";
    const [first, last] = this.given.get(axis.index);
    const fits = Number.isInteger(low) && Number.isInteger(high) && first <= low && high <= last;
    return fits ? "" : `${axis.name} takes whole numbers from ${first} to ${last}; ${told}`;
  }

  static shown(value) { return String(Number(value.toPrecision(5))).replace("-", "−"); }

  words(all = this.all) {
    if (all === null) return this.view.axes.some((axis) => axis.kl != null) ? "Data" : "Prior";
    return Array.isArray(all) ? `${LL.Ranges.shown(all[0])} to ${LL.Ranges.shown(all[1])}` : `± ${all} σ`;
  }

  setAll(all) {
    this.all = all;
    this.own.clear();
    this.apply();
    this.view.ranged();
  }

  set(axis, ends) {
    if (ends) this.own.set(axis.index, ends);
    else this.own.delete(axis.index);
    this.apply();
    this.view.ranged();
  }

  // ---- two numbers to type ----
  // They are taken on Enter and when the focus leaves them; what can't be taken stays, beside one sentence.
  fields(label, check, take, done) {
    const { el } = LL;
    const inputs = ["low", "high"].map((end) => el("input", { type: "text", class: "ll-end-value", inputmode: "decimal",
      "aria-label": `${end} end of ${label}`, placeholder: end }));
    const note = el("span", { class: "ll-note", role: "alert" });
    let shown = ["", ""];
    const fields = {
      inputs, note,
      node: el("span", { class: "ll-typed" }, inputs[0], el("span", {}, "to"), inputs[1]),
      show: (ends) => {
        if (note.textContent || fields.changed()) return; // what is being typed stays
        shown = ends ? ends.map(LL.Ranges.shown) : ["", ""];
        inputs.forEach((input, i) => { input.value = shown[i]; });
      },
      changed: () => inputs.some((input, i) => input.value !== shown[i]),
      // Escape anywhere in the node that holds them.
      escape: (event) => {
        if (event.key !== "Escape") return;
        event.preventDefault();
        event.stopPropagation();
        fields.forget();
        done();
      },
      forget: () => { note.textContent = ""; inputs.forEach((input, i) => { input.value = shown[i]; }); },
      read: () => {
        if (!fields.changed()) { note.textContent = ""; return true; }
        const ends = inputs.map((input) => Number(input.value.trim().replace("−", "-").replace(",", ".")));
        const odd = inputs.findIndex((input, i) => !input.value.trim() || Number.isNaN(ends[i]));
        note.textContent = odd < 0 ? check(ends) : `A range needs two numbers, such as −2.5; got “${inputs[odd].value.trim().slice(0, 20)}”.`;
        inputs.forEach((input) => input.setAttribute("aria-invalid", String(Boolean(note.textContent))));
        if (note.textContent) return false;
        shown = inputs.map((input) => input.value);
        take(ends);
        return true;
      },
    };
    for (const input of inputs) {
      input.addEventListener("focus", () => input.select());
      input.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        if (fields.read()) done();
      });
      input.addEventListener("focusout", (event) => {
        if (!inputs.includes(event.relatedTarget) && inputs.every((each) => each.value.trim())) fields.read();
      });
    }
    return fields;
  }

  // ---- of all ----
  build() {
    const { el } = LL;
    this.button = LL.button("range", "", "Ranges: how far all sliders reach", () => this.toggle(), { "aria-expanded": "false" });
    this.choices = new Map([null, ...LL.Ranges.SIGMAS].map((all) => [all,
      LL.button(null, "…", "", () => this.setAll(all), { "aria-pressed": "false" })]));
    this.typed = this.fields("all ranges", (ends) => this.wrong(null, ends), (ends) => this.setAll(ends), () => this.close());
    this.told = el("span", { class: "ll-ranges-told", role: "status" });
    this.panel = el("div", { class: "ll-ranges", role: "group", "aria-label": "range of all sliders", hidden: true },
      el("span", {}, "All"), el("span", { class: "ll-joined" }, ...this.choices.values()), el("span", {}, "or"), this.typed.node,
      this.typed.note, this.told);
    this.panel.addEventListener("keydown", this.typed.escape);
  }

  toggle() {
    this.panel.hidden = !this.panel.hidden;
    this.button.setAttribute("aria-expanded", String(!this.panel.hidden));
    if (!this.panel.hidden) [...this.choices.values()].find((choice) => !choice.hidden).focus();
  }

  close() {
    if (!this.panel.hidden) this.toggle();
    this.button.focus();
  }

  // ---- of one ----
  // What stands at the end of a slider's row; entry.editor is its line while it is open.
  opener(axis, label) {
    return LL.el("button", { type: "button", class: "ll-opener", "aria-expanded": "false", onclick: () => this.edit(axis.index, label) },
      LL.icon("range"));
  }

  edit(index, label, typed = null) {
    const entry = this.view.rows.get(index), { el } = LL;
    if (entry.editor) return this.shut(entry);
    const { axis } = entry;
    const fields = this.fields(`the range of ${label}`, (ends) => this.wrong(axis, ends), (ends) => this.set(axis, ends),
      () => { this.shut(entry); entry.opener.focus(); });
    const usual = LL.button("reset", "", "", () => { fields.forget(); this.set(axis, null); }, { class: "ll-button ll-small" });
    const words = el("span");
    usual.append(words);
    const node = el("div", { class: "ll-editor", role: "group", "aria-label": `range of ${label}` }, el("span", {}, "Range"), fields.node,
      usual, fields.note);
    node.addEventListener("keydown", fields.escape);
    entry.editor = { node, fields, usual, words, label };
    entry.row.after(node);
    entry.opener.setAttribute("aria-expanded", "true");
    this.show(entry);
    if (typed) fields.inputs.forEach((input, i) => { input.value = typed[i]; });
    fields.inputs[0].focus();
  }

  shut(entry) {
    entry.editor.node.remove();
    entry.editor = null;
    entry.opener.setAttribute("aria-expanded", "false");
  }

  // Lines that are open stay open, with what is typed in them, when the sliders are built anew.
  open() {
    return [...this.view.rows ?? []].filter(([, entry]) => entry.editor).map(([index, { editor }]) => (
      { index, label: editor.label, typed: editor.fields.inputs.map((input) => input.value) }));
  }

  reopen(lines) {
    const before = this.view.root.getRootNode().activeElement;
    for (const { index, label, typed } of lines) if (this.view.rows.get(index)?.opener) this.edit(index, label, typed);
    before?.focus?.();
  }

  // ---- showing ----
  show(entry) {
    const { axis, opener, editor } = entry, own = this.own.has(axis.index);
    const ends = `${LL.Ranges.shown(axis.low)} to ${LL.Ranges.shown(axis.high)}`;
    opener.title = `Range: ${ends}. Click to change it`;
    opener.setAttribute("aria-label", `range of ${entry.label}, ${ends}`);
    opener.classList.toggle("ll-own", own);
    if (!editor) return;
    editor.fields.show([axis.low, axis.high]);
    const words = this.words();
    editor.words.textContent = words;
    editor.usual.title = `Back to the range of all sliders (${words})`;
    editor.usual.setAttribute("aria-label", editor.usual.title);
    editor.usual.hidden = !own;
  }

  showAll() {
    const spread = this.view.axes.some((axis) => axis.sigma), single = this.own.size;
    for (const [all, choice] of this.choices) {
      const words = this.words(all);
      choice.firstChild.textContent = words;
      choice.title = all === null ? `The ranges that the sliders came with: where the ${words.toLowerCase()} mostly ${words === "Data" ? "lie" : "lies"}`
        : `${all} standard deviations of the prior to either side of its middle`;
      choice.setAttribute("aria-label", `all ranges: ${words}`);
      choice.setAttribute("aria-pressed", String(this.all === all));
      choice.hidden = all !== null && !spread;
    }
    this.typed.show(Array.isArray(this.all) ? this.all : null);
    this.told.textContent = single ? `${single} ${single > 1 ? "sliders have ranges of their own" : "slider has a range of its own"}; a choice here replaces ${single > 1 ? "them" : "it"}` : "";
    this.button.title = `Ranges: how far all sliders reach (now ${this.words()}${single ? ", not all" : ""})`;
    this.button.classList.toggle("ll-own", this.all !== null || single > 0);
  }
};
