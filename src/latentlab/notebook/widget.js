// Seat in a notebook: an anywidget around the explorer's sliders, traversals and hidden units.
const bytesOf = (view) => view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);

// The browser engine, or whoever decodes in its place, as the sliders know it; it also says when a slider moves.
LL.engines.notebook = class extends LL.engines.browser {
  constructor(data, on) {
    super(data, on);
    this.kind = data.kind;
    this.moved = data.moved;
  }

  draw(request) {
    super.draw(request);
    this.moved?.(request.z);
  }
};

// Units that a person switches, among edits of other kinds that came from Python.
class Switches extends LL.Units {
  others = [];

  edits() {
    return [...this.others, ...super.edits()];
  }

  take(edits) {
    this.others = [];
    for (const units of this.off.values()) units.clear();
    for (const edit of edits) {
      const { stage, units = null, operation = "ablate", amount = 1, region = null } = edit, off = this.off.get(stage);
      if (!off || operation !== "ablate" || amount !== 1 || region) this.others.push(edit);
      else for (const unit of units ?? Array(this.stages.find(({ address }) => address === stage).shape[0]).keys()) off.add(unit);
    }
    this.decoder.edits = this.edits();
    this.label();
  }

  reset() {
    this.others = [];
    super.reset();
  }

  label() {
    super.label();
    this.allOn.disabled &&= !this.others?.length;
  }

  changed() {
    super.changed();
    this.tell();
  }
}

function render({ model, el: place }) {
  const { el } = LL, content = model.get("_content"), browser = Boolean(content.program);
  const shell = el("div", { class: "latentlab-widget", "data-lm-suppress-shortcuts": "true" });
  const root = el("div", { class: "ll", id: "explorer", "data-home": customElements.get("marimo-anywidget") ? "marimo" : "jupyter" });
  shell.attachShadow({ mode: "open" }).append(el("style", {}, CSS), root);
  // What is typed here is no shortcut of the notebook's.
  for (const kind of ["keydown", "keyup", "keypress"]) shell.addEventListener(kind, (event) => event.stopPropagation());
  place.append(shell);

  const say = (sentence) => traverse.status.error(sentence);
  const decoder = browser ? new LL.Decoder() : new LL.KernelDecoder(model, say);

  // ---- sliders -----------------------------------------------------------------------------------------------------
  let told = {}; // what Python was last told, which may come back while a person has moved on
  let telling = false;
  function tell(values) {
    telling = true;
    for (const [name, value] of Object.entries(values)) {
      told[name] = JSON.stringify(value);
      model.set(name, value);
    }
    telling = false;
    model.save_changes();
  }
  let waiting = null;
  function moved(z) {
    if (waiting) { waiting.z = z; return; }
    waiting = { z };
    setTimeout(() => { tell({ z: Array.from(waiting.z) }); waiting = null; }, 100);
  }
  const data = { axes: content.axes, z: model.get("z"), image_shape: content.image_shape, engine: "notebook", kind: browser ? "browser" : "kernel",
    decoder, locks: model.get("locks"), slots: model.get("slots"), revision: "0", seed: content.seed, image: browser ? null : model.get("_picture"),
    moved: content.live ? moved : null };
  const host = { data, trigger: () => {}, send: (_, { z, locks, slots }) => {
    tell({ z, locks, slots });
    if (open === "traversals") strips.draw();
  } };
  const traverse = LL.mount("traverse", root, host);

  // ---- what Python sets --------------------------------------------------------------------------------------------
  let revision = 0;
  function adopt() {
    if (telling) return;
    const [z, locks, slots] = ["z", "locks", "slots"].map((name) => model.get(name));
    const now = traverse.snapshot();
    const known = ([name, value]) => [JSON.stringify(now[name]), told[name]].includes(JSON.stringify(value));
    if (Object.entries({ z, locks, slots }).every(known)) return;
    told = {};
    traverse.slots = { A: null, B: null };
    traverse.update({ ...host, data: { ...data, z, locks, slots, seed: traverse.seedValue, revision: String(++revision) } });
    if (open === "traversals") strips.draw();
  }
  function adoptEdits() {
    if (telling) return;
    const edits = model.get("edits");
    if (JSON.stringify(edits) === JSON.stringify(decoder.edits)) return;
    units.take(edits);
    traverse.draw();
    if (open === "traversals") strips.draw();
  }
  const changes = { "change:z": adopt, "change:locks": adopt, "change:slots": adopt, "change:edits": adoptEdits };
  for (const [event, act] of Object.entries(changes)) model.on(event, act);

  // ---- tabs --------------------------------------------------------------------------------------------------------
  const original = el("canvas", { class: "ll-picture", role: "img", "aria-label": "image without edits" });
  const beside = el("figure", { class: "ll-figure ll-original", hidden: true }, original, el("figcaption", {}, "All units on"));
  const reminder = el("p", { class: "ll-caption ll-reminder", hidden: true });
  decoder.watchers.add((answer) => {
    beside.hidden = !answer.original;
    if (answer.original) LL.paint(original, LL.picture(answer, answer.original));
  });
  LL.fit(original, 96, content.image_shape[2], content.image_shape[1]);

  const strips = new LL.Strips(traverse.axes, content.image_shape[1], decoder, traverse);
  const units = content.stages.length ? new Switches(content.stages, decoder, traverse, (count) => {
    const others = units?.others.length ?? 0, parts = [];
    if (count) parts.push(`${count} hidden ${count === 1 ? "unit" : "units"} switched off`);
    if (others) parts.push(`${others} ${others === 1 ? "edit" : "edits"} from Python`);
    reminder.hidden = !parts.length;
    reminder.textContent = parts.length ? `Drawn with ${parts.join(" and ")}` : "";
  }) : { take: (edits) => { decoder.edits = edits; }, paint() {} };
  units.tell = () => {
    tell({ edits: decoder.edits });
    if (open === "traversals") strips.draw();
  };

  const left = root.querySelector(".ll-left"), right = root.querySelector(".ll-right"), panels = {};
  left.append(reminder, beside);
  let open = "sliders";
  function tab(name, title, ...children) {
    const panel = el("section", { class: "ll-panel", role: "tabpanel", "aria-label": title }, ...children);
    const handle = el("button", { type: "button", class: "ll-tab", role: "tab", onclick: () => show(name) }, title);
    panels[name] = { panel, handle };
  }
  function show(name) {
    open = name;
    for (const [key, { panel, handle }] of Object.entries(panels)) {
      panel.hidden = key !== name;
      handle.setAttribute("aria-selected", String(key === name));
      handle.tabIndex = key === name ? 0 : -1;
    }
    decoder.stage = name === "units" ? units.stage.address : null;
    if (name === "units") traverse.draw();
    if (name === "traversals") strips.draw();
  }
  tab("sliders", "Sliders", ...right.childNodes);
  tab("traversals", "Traversals", strips.lead, strips.grid);
  if (content.stages.length) {
    tab("units", "Hidden units", el("p", { class: "ll-lead" }, "What each unit of a stage says. Click one to switch it off or on."),
      units.chain, units.head, units.box, el("div", { class: "ll-tools" }, units.allOn, units.rank, units.note));
  }
  const tabs = el("div", { class: "ll-tabs", role: "tablist", "aria-label": "views" }, ...Object.values(panels).map(({ handle }) => handle));
  tabs.addEventListener("keydown", (event) => {
    const names = Object.keys(panels), by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    show(names[(names.indexOf(open) + by + names.length) % names.length]);
    panels[open].handle.focus();
  });
  right.replaceChildren(tabs, ...Object.values(panels).map(({ panel }) => panel));
  units.take(model.get("edits"));
  show("sliders");

  // ---- the engine --------------------------------------------------------------------------------------------------
  if (browser) {
    const program = { ...content.program, steps: bytesOf(model.get("_steps")), weights: bytesOf(model.get("_weights")) };
    decoder.open(bytesOf(model.get("_wasm")), program, LatentEngine.toString(), say).catch((error) =>
      say(`This browser can't run the decoder (${error.message}); any browser of 2023 or later can.`));
  } else decoder.pump();

  // ---- light and dark ----------------------------------------------------------------------------------------------
  const themes = new MutationObserver(() => units.paint());
  for (const node of [document.documentElement, document.body]) {
    themes.observe(node, { attributes: true, attributeFilter: ["class", "data-jp-theme-light", "data-theme"] });
  }

  return () => {
    themes.disconnect();
    for (const [event, act] of Object.entries(changes)) model.off(event, act);
    traverse.destroy();
    decoder.close();
    shell.remove();
  };
}

export default { render };
