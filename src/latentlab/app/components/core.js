// The core that all live views share: engines that fetch pictures, painting, colours, small DOM parts.
//
// LL.mount(kind, root, host) puts a view into an element and returns { update(host), destroy() }. A host is
// { data, send(name, value), trigger(name, value) }: Streamlit is one (streamlit.js); a notebook widget or a
// stand-alone page would be others. An engine is { kind, draw(request), control(message), destroy() } and calls
// back { frame(parts, info), ready(), error(sentence), lost(), status(kind, why) }; engines register in LL.engines.
const LL = (() => {
  "use strict";

  const WANT_IMAGE = 1, WANT_ORIGINAL = 2, WANT_SHEET = 4, WANT_RAW = 8;
  const views = {};

  // ---- measurement ----------------------------------------------------------------------------------------
  const metrics = (window.__latentlab ??= { engine: null, frames: 0, latencies_ms: [], last_z: null });

  function measured(kind) {
    return (metrics[kind] ??= { engine: null, frames: 0, latencies_ms: [], last_z: null });
  }

  function record(kind, engine, latency, z) {
    for (const m of [metrics, measured(kind)]) {
      m.engine = engine;
      m.frames += 1;
      if (z) m.last_z = Array.from(z);
      if (latency != null) {
        m.latencies_ms.push(latency);
        if (m.latencies_ms.length > 500) m.latencies_ms.shift();
      }
    }
  }

  // ---- DOM ------------------------------------------------------------------------------------------------
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value == null || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : String(value));
    }
    for (const child of children.flat()) if (child != null) node.append(child);
    return node;
  }

  const PATHS = {
    dice: '<rect x="3" y="3" width="14" height="14" rx="3"/><circle cx="7" cy="7" r=".9"/><circle cx="13" cy="7" r=".9"/><circle cx="10" cy="10" r=".9"/><circle cx="7" cy="13" r=".9"/><circle cx="13" cy="13" r=".9"/>',
    reset: '<path d="M4 10a6 6 0 1 0 2-4.5"/><path d="M6.4 2.6 6 5.7l3.1.5"/>',
    undo: '<path d="M7.5 4 4 7.5 7.5 11"/><path d="M4 7.5h7.5a4.5 4.5 0 0 1 0 9H9"/>',
    redo: '<path d="M12.5 4 16 7.5 12.5 11"/><path d="M16 7.5H8.5a4.5 4.5 0 0 0 0 9H11"/>',
    lock: '<rect x="5" y="9" width="10" height="7.5" rx="1.8"/><path d="M7 9V6.8a3 3 0 0 1 6 0V9"/>',
    unlock: '<rect x="5" y="9" width="10" height="7.5" rx="1.8"/><path d="M7 9V6.8a3 3 0 0 1 5.6-1.5"/>',
    plus: '<path d="M10 4.5v11M4.5 10h11"/>',
    minus: '<path d="M4.5 10h11"/>',
    copy: '<rect x="7" y="7" width="9.5" height="9.5" rx="2"/><path d="M13 7V5.5a2 2 0 0 0-2-2H5.5a2 2 0 0 0-2 2V11a2 2 0 0 0 2 2H7"/>',
    link: '<path d="M8.5 11.5a3.2 3.2 0 0 0 4.6 0l2.4-2.4a3.2 3.2 0 0 0-4.6-4.6L9.8 5.6"/><path d="M11.5 8.5a3.2 3.2 0 0 0-4.6 0l-2.4 2.4a3.2 3.2 0 0 0 4.6 4.6l1.1-1.1"/>',
    fit: '<path d="M4 8V4h4M16 8V4h-4M4 12v4h4M16 12v4h-4"/>',
    range: '<path d="M3.5 5v10M16.5 5v10M6.5 10h7M8.6 7.9 6.5 10l2.1 2.1M11.4 7.9l2.1 2.1-2.1 2.1"/>',
    close: '<path d="m5.5 5.5 9 9m0-9-9 9"/>',
  };

  function icon(name) {
    const holder = document.createElement("span");
    holder.className = "ll-icon";
    holder.innerHTML = `<svg viewBox="0 0 20 20" aria-hidden="true">${PATHS[name]}</svg>`;
    return holder;
  }

  function button(name, label, title, onclick, extra = {}) {
    return el("button", { type: "button", class: "ll-button" + (label ? "" : " ll-square"), title,
      "aria-label": title, onclick, ...extra }, name ? icon(name) : null, label ? el("span", {}, label) : null);
  }

  function format(value, digits = 2) {
    if (!Number.isFinite(value)) return "–";
    if (value !== 0 && (Math.abs(value) >= 1000 || Math.abs(value) < 0.005)) return value.toExponential(1);
    return value.toFixed(digits).replace("-", "−");
  }

  // Into the clipboard, which a page that came without https may only reach through a selection.
  async function copyText(text) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      const area = el("textarea", { "aria-hidden": "true", style: "position:fixed;opacity:0;pointer-events:none" });
      area.value = text;
      document.body.append(area);
      area.select();
      const done = document.execCommand("copy");
      area.remove();
      return done;
    }
  }

  // A button that copies what get() gives, now or later, and says so.
  function copyButton(name, label, title, get) {
    const words = el("span", { "aria-live": "polite" }, label);
    let quiet = 0;
    const node = el("button", { type: "button", class: "ll-button ll-small", title, "aria-label": title, onclick: async () => {
      const text = await get();
      if (text == null) return;
      words.textContent = (await copyText(text)) ? "Copied" : "Not allowed";
      clearTimeout(quiet);
      quiet = setTimeout(() => { words.textContent = label; }, 1600);
    } }, name ? icon(name) : null, words);
    return node;
  }

  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));

  function debounce(wait, action) {
    let timer = 0;
    const run = (...args) => { clearTimeout(timer); timer = setTimeout(() => { timer = 0; action(...args); }, wait); };
    run.cancel = () => { clearTimeout(timer); timer = 0; };
    return run;
  }

  // Keys for a view: while the pointer is over it or the focus inside it, and nobody is typing. Captured, so that
  // the page's own shortcuts (R reruns a Streamlit page) don't fire too.
  function keys(root, handle) {
    let over = false;
    const typing = (t) => t && ((t.tagName === "INPUT" && t.type !== "range" && t.type !== "checkbox") ||
      t.tagName === "TEXTAREA" || t.tagName === "SELECT" || t.isContentEditable);
    const focused = (event) => event.composedPath().includes(root);
    const onKey = (event) => {
      const target = event.composedPath()[0];
      if (event.ctrlKey || event.metaKey || event.altKey || typing(target) || !(over || focused(event))) return;
      if (handle(event)) { event.preventDefault(); event.stopImmediatePropagation(); }
    };
    const enter = () => { over = true; }, leave = () => { over = false; };
    root.addEventListener("pointerenter", enter);
    root.addEventListener("pointerleave", leave);
    window.addEventListener("keydown", onKey, true);
    return () => {
      window.removeEventListener("keydown", onKey, true);
      root.removeEventListener("pointerenter", enter);
      root.removeEventListener("pointerleave", leave);
    };
  }

  // ---- chance ---------------------------------------------------------------------------------------------
  // mulberry32: small, seeded, so that a seed shown beside the dice gives the same code again.
  function random(seed) {
    let a = seed >>> 0;
    const uniform = () => {
      a = (a + 0x6d2b79f5) | 0;
      let t = Math.imul(a ^ (a >>> 15), 1 | a);
      t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
    const normal = () => Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
    return { uniform, normal };
  }

  // ---- colour ---------------------------------------------------------------------------------------------
  const hex = (text) => [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16));

  function ramp(stops, size = 256) {
    const colours = stops.map(hex), table = new Uint8Array(size * 3);
    for (let i = 0; i < size; i++) {
      const t = (i / (size - 1)) * (colours.length - 1), k = Math.min(Math.floor(t), colours.length - 2), f = t - k;
      for (let c = 0; c < 3; c++) table[3 * i + c] = Math.round(colours[k][c] * (1 - f) + colours[k + 1][c] * f);
    }
    return table;
  }

  const HEAT = ramp(["#07080f", "#241452", "#5b1a72", "#97286b", "#cf4455", "#f1743a", "#fbb03b", "#fcfdbf"]);
  const SEQUENTIAL = ramp(["#33307a", "#2f5f96", "#2a8a94", "#45b184", "#9ecf5b", "#f4df53"]);
  const DIVERGING = {
    light: ramp(["#1c4a8c", "#5c8fc9", "#c3d7ea", "#f6f5f2", "#f2cfae", "#dc8443", "#8f3d0b"]),
    dark: ramp(["#8fc1ff", "#4a86cf", "#24466f", "#17181c", "#6b3a1a", "#d1742f", "#ffc48f"]),
  };
  const CATEGORIES = ["#3f7fd6", "#e8843c", "#3fa66b", "#d1495b", "#8c6bd1", "#b08b3e", "#2ba6b5", "#d878b4",
    "#7f8fa3", "#a3b83c"];

  function category(i) {
    if (i < CATEGORIES.length) return CATEGORIES[i];
    const hue = (i * 137.508) % 360, light = 48 + 14 * (Math.floor(i / 7) % 2);
    const k = (n) => (n + hue / 30) % 12, a = 0.55 * Math.min(light / 100, 1 - light / 100);
    const channel = (n) => Math.round(255 * (light / 100 - a * Math.max(-1, Math.min(k(n) - 3, 9 - k(n), 1))));
    return "#" + [0, 8, 4].map((n) => channel(n).toString(16).padStart(2, "0")).join("");
  }

  // The theme as Streamlit's CSS variables give it, resolved to numbers where a canvas needs them.
  function theme(root) {
    const style = getComputedStyle(root);
    const probe = el("span", { style: "display:none" });
    root.append(probe);
    const read = (name, fallback) => {
      probe.style.color = fallback;
      const value = style.getPropertyValue(name).trim();
      if (value && value !== "unset") probe.style.color = value;
      const numbers = getComputedStyle(probe).color.match(/[\d.]+/g) ?? [0, 0, 0];
      return numbers.slice(0, 3).map(Number);
    };
    const background = read("--st-background-color", "#ffffff");
    const result = {
      font: style.fontFamily, background, text: read("--st-text-color", "#222222"), primary: read("--st-primary-color", "#3f7fd6"),
      dark: background[0] * 0.299 + background[1] * 0.587 + background[2] * 0.114 < 128,
    };
    probe.remove();
    return result;
  }

  const css = (rgb, alpha = 1) => `rgba(${rgb[0]}, ${rgb[1]}, ${rgb[2]}, ${alpha})`;

  // ---- pictures -------------------------------------------------------------------------------------------
  const encoder = new TextEncoder(), decoder = new TextDecoder();

  function bytes(text) {
    const raw = atob(text), out = new Uint8Array(raw.length);
    for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
    return out;
  }

  // A part (see engine.py) to { w, h, rgba }: raw pixels at once, JPEG through the browser's decoder.
  async function pixels(part) {
    const { w, h } = part;
    if (part.format === "jpeg") {
      const bitmap = await createImageBitmap(new Blob([part.data], { type: "image/jpeg" }));
      const canvas = new OffscreenCanvas(w, h), context = canvas.getContext("2d");
      context.drawImage(bitmap, 0, 0);
      return { w, h, rgba: context.getImageData(0, 0, w, h).data };
    }
    return { w, h, rgba: expand(part) };
  }

  function expand(part) {
    const { w, h, c, data } = part, rgba = new Uint8ClampedArray(w * h * 4);
    for (let i = 0, j = 0; i < w * h; i++, j += c) {
      rgba[4 * i] = data[j];
      rgba[4 * i + 1] = data[c === 3 ? j + 1 : j];
      rgba[4 * i + 2] = data[c === 3 ? j + 2 : j];
      rgba[4 * i + 3] = 255;
    }
    return rgba;
  }

  function paint(canvas, image) {
    if (canvas.width !== image.w || canvas.height !== image.h) { canvas.width = image.w; canvas.height = image.h; }
    canvas.getContext("2d").putImageData(new ImageData(image.rgba, image.w, image.h), 0, 0);
    canvas.dataset.drawn = "1";
  }

  // A part that came through a component's data has base64 for bytes.
  const revive = (part) => (part ? { ...part, data: bytes(part.data) } : null);

  // Scales small images by whole numbers, so that all pixels stay equally large.
  function fit(canvas, width, imageWidth, imageHeight) {
    const scale = width / imageWidth;
    const whole = imageWidth <= 128 && scale >= 1 ? Math.floor(scale) : scale;
    canvas.style.width = `${Math.round(imageWidth * whole)}px`;
    canvas.style.height = `${Math.round(imageHeight * whole)}px`;
  }

  // ---- engines --------------------------------------------------------------------------------------------
  // Where our routes may live: the server's base path, else whatever the page's own path suggests.
  function addresses(base, path) {
    const first = location.pathname.split("/").filter(Boolean);
    const bases = [base ?? "", ...first.map((_, i) => first.slice(0, first.length - i).join("/")), ""];
    return [...new Set(bases)].map((b) => `${location.host}${b ? "/" + b : ""}${path}`);
  }

  class ServerEngine {
    // One request in flight; a newer one replaces the one that waits. That keeps the slowest pictures quick.
    constructor(data, on) {
      this.kind = "server";
      this.on = on;
      this.token = data.token;
      this.urls = addresses(data.base, "/ll/decode");
      this.next = null;
      this.flying = null;
      this.serial = 0;
      this.tries = 0;
      this.open = false;
      this.ended = false;
      this.connect();
    }

    connect() {
      if (this.ended) return;
      const scheme = location.protocol === "https:" ? "wss" : "ws";
      let socket;
      try {
        socket = new WebSocket(`${scheme}://${this.urls[0]}`, ["latentlab", this.token]);
      } catch {
        return this.on.lost("unreachable");
      }
      this.socket = socket;
      socket.binaryType = "arraybuffer";
      const late = setTimeout(() => { if (!this.open) socket.close(); }, 4000);
      socket.onopen = () => {
        clearTimeout(late);
        this.open = true;
        this.tries = 0;
        this.on.ready();
        this.pump();
      };
      socket.onmessage = (event) => this.receive(event.data);
      socket.onclose = (event) => {
        clearTimeout(late);
        if (this.ended || this.socket !== socket) return;
        const opened = this.open;
        this.open = false;
        if (this.flying && !this.next) this.next = this.flying;
        this.flying = null;
        if (event.code === 4404) return this.on.lost("expired");
        if (!opened && this.urls.length > 1 && this.tries === 0) this.urls.shift();
        else if (++this.tries > 4) return this.on.lost("unreachable");
        setTimeout(() => this.connect(), opened ? 100 : 250 * this.tries);
      };
    }

    draw(request) {
      this.next = { ...request, at: performance.now() };
      this.pump();
    }

    control(message) {
      if (this.open) this.socket.send(JSON.stringify(message));
    }

    pump() {
      if (!this.open || !this.next) return;
      if (this.flying && performance.now() - this.flying.at < 5000) return;
      const request = this.next;
      this.next = null;
      request.id = ++this.serial;
      this.flying = request;
      const z = request.z ?? [];
      const buffer = new ArrayBuffer(8 + 4 * z.length), view = new DataView(buffer);
      view.setUint32(0, request.id, true);
      view.setUint16(4, request.flags, true);
      view.setUint16(6, z.length, true);
      for (let i = 0; i < z.length; i++) view.setFloat32(8 + 4 * i, z[i], true);
      this.socket.send(buffer);
    }

    async receive(message) {
      if (typeof message === "string") {
        const note = JSON.parse(message);
        if (note.id != null && this.flying?.id === note.id) this.flying = null;
        this.note(note);
        return this.pump();
      }
      const size = new DataView(message).getUint32(0, true);
      const header = JSON.parse(decoder.decode(new Uint8Array(message, 4, size)));
      const request = this.flying?.id === header.id ? this.flying : null;
      const parts = {};
      for (const part of header.parts) {
        part.data = new Uint8Array(message, 4 + size + part.offset, part.length);
        parts[part.kind] = part;
      }
      // Ask for the next picture before painting this one.
      if (request) { this.flying = null; this.pump(); }
      await this.frame(parts, { request, ms: header.ms, latency: () => (request ? performance.now() - request.at : null) });
    }

    note(note) {
      if (note.type === "error") this.on.error(note.message);
      if (note.type === "changed") this.on.changed?.();
    }

    frame(parts, info) {
      return this.on.frame(parts, info);
    }

    destroy() {
      this.ended = true;
      this.socket?.close();
    }
  }

  class RerunEngine {
    // Python draws: state goes there as it changes, at most five times a second, and pictures come back as data.
    constructor(data, on) {
      this.kind = "rerun";
      this.on = on;
      this.at = null;
      this.timer = 0;
      this.wants = null;
      queueMicrotask(() => on.ready());
    }

    draw(request) {
      this.wants = request;
      this.at = performance.now();
      if (this.timer) return;
      this.timer = setTimeout(() => { this.timer = 0; this.on.live?.(); }, 200);
    }

    arrived() {
      const at = this.at;
      this.at = null;
      return at == null ? null : performance.now() - at;
    }

    control() {}

    destroy() {
      clearTimeout(this.timer);
    }
  }

  const engines = { server: ServerEngine, rerun: RerunEngine };

  // Keeps a view's engine: the best that can be had, another when the token changes or the server is out of reach.
  class Seat {
    constructor(host, on) {
      this.on = on;
      this.host = host;
      this.refused = null;
      this.start();
    }

    start() {
      const { data } = this.host;
      const kind = data.engine ?? (data.token && data.token !== this.refused ? "server" : "rerun");
      this.token = data.token;
      this.engine = new engines[kind](data, {
        ...this.on,
        lost: (why) => {
          if (why === "expired" && this.refused !== data.token) {
            this.refused = data.token;
            this.on.status?.("reconnecting");
            this.host.trigger("expired", data.token);
            this.grace = setTimeout(() => { if (this.token === data.token) this.change(); }, 6000);
          } else {
            this.refused = data.token;
            this.change();
          }
        },
      });
      this.on.status?.(this.engine.kind);
    }

    change() {
      clearTimeout(this.grace);
      this.engine.destroy();
      this.start();
    }

    update(host) {
      this.host = host;
      if (host.data.token !== this.token) this.change();
      else this.engine.refresh?.();
    }

    destroy() {
      clearTimeout(this.grace);
      this.engine.destroy();
    }
  }

  // The line that says who draws and how fast.
  function statusLine() {
    const badge = el("span", { class: "ll-badge", title: "who draws the pictures" }, "…");
    const speed = el("span", { class: "ll-speed" });
    const note = el("span", { class: "ll-note", role: "status" });
    const times = [];
    let quiet = 0;
    const words = {
      server: ["live", "Drawn by the server while you drag"],
      browser: ["live · browser", "Drawn in this browser while you drag"],
      kernel: ["live · kernel", "Drawn by the notebook's kernel while you drag"],
      rerun: ["on rerun", "The live connection can't be reached; pictures follow a little later"],
      reconnecting: ["reconnecting", "The session had ended; opening a new one"],
    };
    return {
      node: el("div", { class: "ll-status" }, badge, speed, note),
      kind(kind, why = "") {
        badge.dataset.kind = kind;
        const [text, title] = words[kind] ?? [kind, ""];
        badge.textContent = text;
        badge.title = [title, why].filter(Boolean).join(". ");
      },
      frame(latency) {
        const now = performance.now();
        times.push(now);
        while (times.length && now - times[0] > 1000) times.shift();
        const rate = times.length > 4 ? ` · ${times.length} fps` : "";
        speed.textContent = latency == null ? "" : `${Math.round(latency)} ms${rate}`;
        note.textContent = "";
        clearTimeout(quiet);
        quiet = setTimeout(() => { speed.textContent = speed.textContent.split(" · ")[0]; }, 1200);
      },
      error(sentence) { note.textContent = sentence; },
    };
  }

  // Undo and redo of whole values.
  class History {
    constructor() { this.past = []; this.future = []; }
    push(value) { this.past.push(value); if (this.past.length > 200) this.past.shift(); this.future = []; }
    undo(current) { if (!this.past.length) return null; this.future.push(current); return this.past.pop(); }
    redo(current) { if (!this.future.length) return null; this.past.push(current); return this.future.pop(); }
  }

  return {
    WANT_IMAGE, WANT_ORIGINAL, WANT_SHEET, WANT_RAW, HEAT, SEQUENTIAL, DIVERGING, History, Seat, addresses, button, bytes,
    category, clamp, copyButton, copyText, css, debounce, el, engines, expand, fit, format, hex, icon, keys, measured, metrics, paint,
    pixels, random, record, revive, statusLine, theme, views,
    mount: (kind, root, host) => new views[kind](root, host),
  };
})();
