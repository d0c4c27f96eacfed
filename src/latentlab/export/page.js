// The page of an exported run: the explorer's sliders over the browser engine, traversals, hidden units, the card.
(async () => {
  "use strict";
  const { el, button } = LL;
  const content = JSON.parse(document.getElementById("content").textContent);
  const main = document.getElementById("explorer");

  const decoder = new LL.Decoder();

  // ---- sliders and picture: the explorer's own view ----------------------------------------------------------------
  const data = { axes: content.axes, z: content.examples[0], image_shape: content.image_shape, engine: "browser", decoder, locks: [],
    revision: "page", seed: content.seed };
  const host = { data, send: () => settled(), trigger: () => {} };
  const traverse = LL.mount("traverse", main, host);
  const left = main.querySelector(".ll-left"), right = main.querySelector(".ll-right");
  const source = document.getElementById("engine").textContent, say = (sentence) => traverse.status.error(sentence);
  const failed = (sentence) => say(`${sentence} Reload the page.`);
  decoder.open(LatentEngine.bytes(content.wasm), content.program, source, failed).then(check, (error) =>
    say(`This browser can't run the decoder (${error.message}); any browser of 2023 or later can.`));
  content.program = null;

  // ---- tabs --------------------------------------------------------------------------------------------------------
  const panels = {};
  function tab(name, title, ...children) {
    const panel = el("section", { class: "ll-panel", role: "tabpanel", id: `panel-${name}`, "aria-labelledby": `tab-${name}` }, ...children);
    const handle = el("button", { type: "button", class: "ll-tab", role: "tab", id: `tab-${name}`, "aria-controls": `panel-${name}`,
      onclick: () => show(name) }, title);
    panels[name] = { panel, handle };
    return panels[name];
  }

  let open = null;
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

  // ---- examples ----------------------------------------------------------------------------------------------------
  const examples = el("div", { class: "ll-examples", role: "group", "aria-label": "examples" });
  const edge = content.image_shape[1];
  decoder.job("examples", { codes: content.examples.map((z) => Float32Array.from(z)) }).then((answer) => {
    answer.images.forEach((image, i) => {
      const canvas = el("canvas", { "aria-hidden": "true" });
      LL.paint(canvas, LL.picture(answer, image));
      examples.append(el("button", { type: "button", class: "ll-example", "aria-label": `example ${i + 1}`,
        title: "Start from this one", onclick: () => traverse.jump(content.examples[i]) }, canvas));
    });
  });
  const originalCanvas = el("canvas", { class: "ll-picture", role: "img", "aria-label": "image with all units on" });
  const changeCanvas = el("canvas", { class: "ll-picture", role: "img", "aria-label": "what the switched units change" });
  const compare = el("div", { class: "ll-compare", hidden: true },
    el("figure", { class: "ll-figure" }, originalCanvas, el("figcaption", {}, "All units on")),
    el("figure", { class: "ll-figure" }, changeCanvas, el("figcaption", {}, "Change")));
  const tools = el("div", { class: "ll-tools" }, button(null, "Save picture", "Save the picture as a PNG file", save));
  const reminder = el("p", { class: "ll-caption ll-reminder", hidden: true });
  left.append(reminder, el("p", { class: "ll-caption" }, "Start from"), examples, tools);
  for (const canvas of [originalCanvas, changeCanvas]) LL.fit(canvas, 128, edge, edge);

  decoder.watchers.add((answer) => {
    compare.hidden = !answer.original;
    if (!answer.original) return;
    LL.paint(originalCanvas, LL.picture(answer, answer.original));
    LL.paint(changeCanvas, change(answer));
  });

  // The picture in whole multiples of its pixels, about 512 wide.
  function save() {
    const scale = Math.max(1, Math.floor(512 / edge)), large = el("canvas", { width: edge * scale, height: edge * scale });
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(traverse.canvas, 0, 0, large.width, large.height);
    large.toBlob((blob) => {
      const link = el("a", { href: URL.createObjectURL(blob), download: `${content.name}.png` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  // Signed difference, mean over the channels, its largest value at the ends of the colours.
  function change({ images: [edited], original, w, h, c }) {
    const table = LL.DIVERGING[LL.theme(main).dark ? "dark" : "light"], rgba = new Uint8ClampedArray(4 * w * h);
    const away = Float32Array.from({ length: w * h }, (_, i) => {
      let sum = 0;
      for (let k = 0; k < c; k++) sum += edited[i * c + k] - original[i * c + k];
      return sum / c;
    });
    const most = Math.max(8, away.reduce((m, v) => Math.max(m, Math.abs(v)), 0));
    away.forEach((v, i) => {
      const k = 3 * Math.round(127.5 + (127.5 * v) / most);
      rgba.set([table[k], table[k + 1], table[k + 2], 255], 4 * i);
    });
    return { w, h, rgba };
  }

  // ---- the views ---------------------------------------------------------------------------------------------------
  const strips = new LL.Strips(traverse.axes, edge, decoder, traverse);
  const units = new LL.Units(content.stages, decoder, traverse, (count) => {
    reminder.hidden = !count;
    reminder.textContent = count ? `Drawn with ${count} hidden ${count === 1 ? "unit" : "units"} switched off` : "";
  });
  tab("sliders", "Sliders", ...right.childNodes);
  tab("traversals", "Traversals", strips.lead, strips.grid);
  tab("units", "Hidden units", el("p", { class: "ll-lead" }, "What each unit of a stage says. Click one to switch it off or on."),
    units.chain, units.head, units.box, el("div", { class: "ll-tools" }, units.allOn, units.rank, units.note), compare);
  tab("card", "Model card", document.getElementById("card").content);
  const tabs = el("div", { class: "ll-tabs", role: "tablist", "aria-label": "views" }, ...Object.values(panels).map(({ handle }) => handle));
  tabs.addEventListener("keydown", (event) => {
    const names = Object.keys(panels), by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by) return;
    show(names[(names.indexOf(open) + by + names.length) % names.length]);
    panels[open].handle.focus();
  });
  right.replaceChildren(tabs, ...Object.values(panels).map(({ panel }) => panel));
  units.label();
  show("sliders");

  function settled() {
    if (open === "traversals") strips.draw();
  }

  // ---- light and dark ----------------------------------------------------------------------------------------------
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const theme = el("button", { type: "button", class: "page-theme", title: "Light or dark", onclick: () => {
    const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
    document.documentElement.dataset.theme = now === "dark" ? "light" : "dark";
    units.paint();
    traverse.draw();
  } }, "Light / dark");
  document.querySelector(".page-head").append(theme);
  dark.addEventListener("change", () => traverse.draw());

  // ---- the page proves itself: its own pictures against torch's ----------------------------------------------------
  async function check() {
    const codes = content.examples.slice(0, content.reference.length).map((z) => Float32Array.from(z));
    const answer = await decoder.job("check", { codes, exact: true });
    let most = 0;
    content.reference.forEach((text, i) => {
      const levels = new Uint16Array(LatentEngine.bytes(text).buffer);
      levels.forEach((level, k) => { most = Math.max(most, Math.abs(answer.images[i][k] - level / 65535)); });
    });
    LL.metrics.largest_difference = 255 * most;
    document.getElementById("check").textContent = `Computed in this browser, with no server and no network. On ${codes.length} ` +
      `codes its pictures differ from PyTorch's by at most ${(255 * most).toFixed(2)} of 255 grey levels.`;
  }
})();
