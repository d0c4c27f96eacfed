// Map: points in the plane, splatted into one canvas; pan, zoom, pick, lasso.
LL.views.map = class {
  constructor(root, host) {
    this.root = root;
    this.hidden = new Set();
    this.serial = 0;
    this.pointers = new Map();
    this.build();
    this.unkey = LL.keys(root, (event) => this.key(event));
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.plot);
    this.update(host);
  }

  build() {
    const { el, button } = LL;
    this.canvas = el("canvas", { class: "ll-points", tabindex: "0", role: "application",
      "aria-label": "map of encoded images: drag to move, wheel to zoom, click a point to open it" });
    this.overlay = el("canvas", { class: "ll-overlay" });
    this.tip = el("div", { class: "ll-tip", hidden: true });
    const corner = el("div", { class: "ll-corner" },
      button("plus", "", "Zoom in (+)", () => this.zoom(1.5)), button("minus", "", "Zoom out (−)", () => this.zoom(1 / 1.5)),
      button("fit", "", "Show all points (0)", () => { this.fit(); this.draw(); }));
    this.plot = el("div", { class: "ll-plot" }, this.canvas, this.overlay, corner, this.tip);
    this.legend = el("div", { class: "ll-legend" });
    this.hint = el("span", {}, "Drag to move, wheel to zoom, click to open, Shift+drag to lasso");
    this.note = el("span", { class: "ll-note", role: "status" });
    this.root.replaceChildren(el("div", { class: "ll-map" }, this.plot,
      el("div", { class: "ll-foot" }, this.legend, this.note, this.hint)));
    this.pointer();
  }

  // ---- data ----
  update(host) {
    this.host = host;
    const { data } = host;
    this.plot.style.height = `${data.height}px`;
    const source = data.token ?? data.points;
    if (source !== this.source) {
      this.source = source;
      this.load(data, this.revision !== data.revision);
    } else if (this.revision !== data.revision) this.fit();
    this.revision = data.revision;
    this.draw();
  }

  async load(data, fresh) {
    const began = performance.now(), source = this.source;
    try {
      const buffer = data.token ? await this.fetch(data) : LL.bytes(data.points).buffer;
      if (source !== this.source) return;
      if (!buffer) return;
      const size = new DataView(buffer).getUint32(0, true);
      const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
      this.n = header.n;
      const before = this.xy;
      this.xy = new Float32Array(buffer, 4 + size, 2 * header.n);
      this.codes = header.colour ? new Uint16Array(buffer, 4 + size + 8 * header.n, header.n) : null;
      this.colour = header.colour;
      this.names = header.hover;
      this.hidden.clear();
      if (fresh || !before || before.length !== this.xy.length) this.fit();
      this.buildLegend();
      this.note.textContent = "";
      this.paint();
      const m = LL.measured("map");
      m.engine = data.token ? "server" : "rerun";
      m.points = header.n;
      m.load_ms = performance.now() - began;
    } catch (error) {
      this.note.textContent = `The points could not be loaded (${error.message}).`;
    }
  }

  async fetch(data) {
    let last = "no answer";
    for (const address of LL.addresses(data.base, `/ll/points/${data.token}`)) {
      const answer = await fetch(`${location.protocol}//${address}`).catch(() => null);
      if (answer?.ok && answer.headers.get("content-type") === "application/octet-stream") return answer.arrayBuffer();
      if (answer) last = answer.status;
    }
    if (this.asked !== data.token) {
      this.asked = data.token;
      this.source = null;
      this.host.trigger("expired", data.token);
      return null;
    }
    throw new Error(String(last));
  }

  buildLegend() {
    const { el, format } = LL, { colour } = this;
    if (!colour) return this.legend.replaceChildren(el("span", {}, `${this.n?.toLocaleString("en")} points`));
    const title = colour.title ? el("b", {}, colour.title) : null;
    if (!colour.names) {
      const t = LL.SEQUENTIAL, stops = [0, 51, 102, 153, 204, 255].map((i) => `rgb(${t[3 * i]},${t[3 * i + 1]},${t[3 * i + 2]})`).join(",");
      return this.legend.replaceChildren(...[title, el("span", {}, format(colour.low)),
        el("i", { class: "ll-legend-bar", style: `background:linear-gradient(to right,${stops});margin:0 4px` }),
        el("span", {}, format(colour.high))].filter(Boolean));
    }
    const keys = colour.names.slice(0, 60).map((name, i) => {
      const node = el("button", { type: "button", class: "ll-key", "aria-pressed": "true", title: "Show or hide; double click shows it alone" },
        el("i", { style: `background:${LL.category(i)}` }), name);
      node.addEventListener("click", () => { this.hidden.has(i) ? this.hidden.delete(i) : this.hidden.add(i); this.showKeys(); });
      node.addEventListener("dblclick", () => {
        const alone = this.hidden.size === colour.names.length - 1 && !this.hidden.has(i);
        this.hidden = new Set(alone ? [] : colour.names.map((_, k) => k).filter((k) => k !== i));
        this.showKeys();
      });
      return node;
    });
    this.keys = keys;
    this.legend.replaceChildren(...[title, ...keys].filter(Boolean));
  }

  showKeys() {
    this.keys.forEach((key, i) => key.setAttribute("aria-pressed", String(!this.hidden.has(i))));
    this.draw();
  }

  // ---- view: screen = (data - centre) * scale ----
  fit() {
    this.view = null;
    if (!this.n) return;
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (let i = 0; i < this.n; i++) {
      const x = this.xy[2 * i], y = this.xy[2 * i + 1];
      if (x < x0) x0 = x;
      if (x > x1) x1 = x;
      if (y < y0) y0 = y;
      if (y > y1) y1 = y;
    }
    this.bounds = [x0, x1, y0, y1];
  }

  frameView() {
    const w = this.plot.clientWidth, h = this.plot.clientHeight;
    if (!this.view && this.bounds) {
      const [x0, x1, y0, y1] = this.bounds;
      const scale = Math.min((w - 60) / (x1 - x0 || 1), (h - 60) / (y1 - y0 || 1));
      this.view = { x: (x0 + x1) / 2, y: (y0 + y1) / 2, scale: scale > 0 ? scale : 1 };
      this.home = this.view.scale;
    }
    return { w, h, ...this.view };
  }

  toData(px, py) {
    const { w, h, x, y, scale } = this.frameView();
    return [x + (px - w / 2) / scale, y - (py - h / 2) / scale];
  }

  toScreen(dx, dy) {
    const { w, h, x, y, scale } = this.frameView();
    return [(dx - x) * scale + w / 2, (y - dy) * scale + h / 2];
  }

  zoom(factor, px = this.plot.clientWidth / 2, py = this.plot.clientHeight / 2) {
    if (!this.n) return;
    const before = this.toData(px, py);
    this.view.scale = LL.clamp(this.view.scale * factor, this.home / 8, this.home * 20000);
    const after = this.toData(px, py);
    this.view.x += before[0] - after[0];
    this.view.y += before[1] - after[1];
    this.draw();
  }

  key(event) {
    if (!this.n) return false;
    const pan = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (pan && this.root.getRootNode().activeElement === this.canvas) {
      const by = (event.shiftKey ? 200 : 40) / this.view.scale;
      this.view.x += pan[0] * by;
      this.view.y += pan[1] * by;
      this.draw();
    } else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") { this.fit(); this.draw(); }
    else if (event.key === "Escape" && this.lasso) { this.lasso = null; this.host.send("polygon", { points: null, serial: ++this.serial }); this.draw(); }
    else return false;
    return true;
  }

  // ---- pointer ----
  pointer() {
    const at = (event) => {
      const r = this.canvas.getBoundingClientRect();
      return [event.clientX - r.left, event.clientY - r.top];
    };
    let start = null, moved = false, path = null, pinch = 0;
    this.canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), ...at(event));
    }, { passive: false });
    this.canvas.addEventListener("pointerdown", (event) => {
      if (event.button || !this.n) return;
      this.canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
      if (this.pointers.size === 2) { pinch = this.spread(); moved = true; path = null; return; }
      start = at(event);
      moved = false;
      path = event.shiftKey ? [start] : null;
    });
    this.canvas.addEventListener("pointermove", (event) => {
      const p = at(event), last = this.pointers.get(event.pointerId);
      if (!last) return this.hover(p);
      if (!moved && Math.hypot(p[0] - start[0], p[1] - start[1]) < 4) return;
      moved = true;
      this.tip.hidden = true;
      this.pointers.set(event.pointerId, p);
      if (this.pointers.size === 2) {
        const now = this.spread(), [a, b] = [...this.pointers.values()];
        if (pinch > 0 && now > 0) this.zoom(now / pinch, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
        pinch = now;
      } else if (path) {
        path.push(p);
        this.tracing = path;
        this.drawOverlay();
      } else {
        this.canvas.classList.add("ll-grab");
        this.view.x -= (p[0] - last[0]) / this.view.scale;
        this.view.y += (p[1] - last[1]) / this.view.scale;
        this.draw();
      }
    });
    const end = (event) => {
      if (!this.pointers.delete(event.pointerId)) return;
      this.canvas.classList.remove("ll-grab");
      const p = at(event);
      if (event.type === "pointercancel") { path = null; this.tracing = null; this.drawOverlay(); return; }
      if (!moved && start) this.pick(start, path);
      else if (path && path.length > 2) this.close(path);
      if (this.pointers.size === 0) { path = null; start = null; this.tracing = null; this.drawOverlay(); this.hover(p); }
    };
    this.canvas.addEventListener("pointerup", end);
    this.canvas.addEventListener("pointercancel", end);
    this.canvas.addEventListener("pointerleave", () => { this.tip.hidden = true; this.near = null; this.drawOverlay(); });
  }

  spread() {
    const [a, b] = [...this.pointers.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  }

  // The visible point nearest to a place on the screen, within reach pixels.
  nearest([px, py], reach) {
    if (!this.n) return null;
    const [x, y] = this.toData(px, py), { xy, codes, hidden } = this, categories = this.colour?.names;
    let best = -1, least = (reach / this.view.scale) ** 2;
    for (let i = 0; i < this.n; i++) {
      const dx = xy[2 * i] - x, dy = xy[2 * i + 1] - y, d = dx * dx + dy * dy;
      if (d < least && !(categories && hidden.size && hidden.has(codes[i]))) { least = d; best = i; }
    }
    return best < 0 ? null : best;
  }

  hover(p) {
    const near = this.nearest(p, 10);
    this.canvas.classList.toggle("ll-over", near != null);
    if (near !== this.near) { this.near = near; this.drawOverlay(); }
    if (near == null) { this.tip.hidden = true; return; }
    const { colour, codes } = this, code = codes?.[near];
    const lines = [this.names?.[near] ?? `point ${near}`];
    if (colour && code !== 0xffff) {
      const value = colour.names ? colour.names[code] : LL.format(colour.low + (code / 0xfffe) * (colour.high - colour.low));
      lines.push(`${colour.title || "value"}: ${value}`);
    }
    this.tip.textContent = lines.join("\n");
    this.tip.hidden = false;
    const [sx, sy] = this.toScreen(this.xy[2 * near], this.xy[2 * near + 1]);
    this.tip.style.left = `${LL.clamp(sx + 12, 4, Math.max(4, this.plot.clientWidth - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${sy + 14 + this.tip.offsetHeight > this.plot.clientHeight ? sy - 14 - this.tip.offsetHeight : sy + 14}px`;
  }

  pick(p) {
    const point = this.nearest(p, 8), serial = ++this.serial + Date.now() % 1e9 * 1000;
    this.picked = point == null ? this.toData(...p) : [this.xy[2 * point], this.xy[2 * point + 1]];
    LL.measured("map").picked = { point, position: this.picked };
    this.host.send("pick", point == null ? { position: this.picked, serial } : { point, serial });
    this.drawOverlay();
  }

  close(path) {
    // A corner every few pixels is enough; a lasso travels as its polygon, never as a list of points.
    const step = Math.max(1, Math.ceil(path.length / 300));
    this.lasso = path.filter((_, i) => i % step === 0).map((p) => this.toData(...p));
    this.host.send("polygon", { points: this.lasso, serial: ++this.serial + Date.now() % 1e9 * 1000 });
  }

  // ---- drawing ----
  draw() {
    if (this.asked_frame) return;
    this.asked_frame = requestAnimationFrame(() => { this.asked_frame = 0; this.paint(); });
  }

  table(look) {
    const { colour } = this, size = 65536, table = (this.lut ??= new Uint8Array(size * 3));
    const grey = look.dark ? [112, 116, 124] : [160, 164, 172], plain = look.dark ? [122, 158, 210] : [74, 112, 168];
    for (let i = 0; i < size; i++) {
      let rgb = plain;
      if (colour) {
        if (i === 0xffff) rgb = grey;
        else if (colour.names) { if (i >= colour.names.length) continue; rgb = LL.hex(LL.category(i)); }
        else { const k = 3 * Math.round((255 * i) / 0xfffe); rgb = [LL.SEQUENTIAL[k], LL.SEQUENTIAL[k + 1], LL.SEQUENTIAL[k + 2]]; }
      }
      table.set(rgb, 3 * i);
    }
    return table;
  }

  paint() {
    const began = performance.now(), { w, h, x: cx, y: cy, scale } = this.frameView();
    if (!w || !h) return;
    const ratio = Math.min(2, window.devicePixelRatio || 1), W = Math.round(w * ratio), H = Math.round(h * ratio);
    if (this.canvas.width !== W || this.canvas.height !== H) { this.canvas.width = W; this.canvas.height = H; }
    const context = this.canvas.getContext("2d"), look = LL.theme(this.root);
    if (!this.n) { context.clearRect(0, 0, W, H); return; }
    const key = `${look.dark}|${JSON.stringify(this.colour)}`;
    if (this.tableKey !== key) { this.tableKey = key; this.colours = this.table(look); }
    const { xy, codes, n, colours, hidden } = this, names = this.colour?.names;
    const image = this.buffer?.width === W && this.buffer.height === H ? this.buffer : (this.buffer = new ImageData(W, H));
    const out = image.data, words = new Uint32Array(out.buffer), s = scale * ratio;
    words.fill(0xff000000 | (look.background[2] << 16) | (look.background[1] << 8) | look.background[0]);
    const skip = names && hidden.size ? names.map((_, i) => hidden.has(i)) : null;
    const zoomed = Math.sqrt(scale / this.home);
    const radius = ratio * LL.clamp(150 / Math.sqrt(n), 0.7, 3.2) * LL.clamp(zoomed, 1, 3);
    if (n * radius * radius < 4e6) {
      // A disc a point, edges softened, blended over what lies below.
      const alpha = LL.clamp(60 / Math.sqrt(n), 0.35, 0.85), r = Math.ceil(radius + 1), stamp = [];
      for (let dy = -r; dy <= r; dy++) for (let dx = -r; dx <= r; dx++) {
        const cover = LL.clamp(radius + 0.5 - Math.hypot(dx, dy), 0, 1) * alpha;
        if (cover > 0.01) stamp.push([dx, dy, cover]);
      }
      for (let i = 0; i < n; i++) {
        const px = ((xy[2 * i] - cx) * s + W / 2) | 0, py = ((cy - xy[2 * i + 1]) * s + H / 2) | 0;
        if (px < -r || py < -r || px >= W + r || py >= H + r) continue;
        const code = codes ? codes[i] : 0;
        if (skip && skip[code]) continue;
        const red = colours[3 * code], green = colours[3 * code + 1], blue = colours[3 * code + 2];
        for (const [dx, dy, cover] of stamp) {
          const qx = px + dx, qy = py + dy;
          if (qx < 0 || qy < 0 || qx >= W || qy >= H) continue;
          const o = 4 * (qy * W + qx);
          out[o] += (red - out[o]) * cover;
          out[o + 1] += (green - out[o + 1]) * cover;
          out[o + 2] += (blue - out[o + 2]) * cover;
        }
      }
    } else {
      // Very many points: a count and the last colour a pixel, shown by the count's logarithm.
      const counts = new Uint16Array(W * H), labels = new Uint16Array(W * H);
      let most = 1;
      for (let i = 0; i < n; i++) {
        const px = ((xy[2 * i] - cx) * s + W / 2) | 0, py = ((cy - xy[2 * i + 1]) * s + H / 2) | 0;
        if (px < 0 || py < 0 || px >= W || py >= H) continue;
        const code = codes ? codes[i] : 0;
        if (skip && skip[code]) continue;
        const o = py * W + px;
        if (counts[o] < 65535) counts[o] += 1;
        if (counts[o] > most) most = counts[o];
        labels[o] = code;
      }
      const top = Math.log1p(Math.min(most, 40));
      for (let o = 0; o < W * H; o++) {
        if (!counts[o]) continue;
        const cover = 0.35 + 0.65 * Math.min(1, Math.log1p(counts[o]) / top), k = 3 * labels[o];
        for (let c = 0; c < 3; c++) out[4 * o + c] += (colours[k + c] - out[4 * o + c]) * cover;
      }
    }
    context.putImageData(image, 0, 0);
    this.canvas.dataset.drawn = "1";
    this.drawOverlay(look);
    const took = performance.now() - began, m = LL.measured("map");
    m.frames += 1;
    m.latencies_ms.push(took);
    if (m.latencies_ms.length > 500) m.latencies_ms.shift();
  }

  drawOverlay(look = LL.theme(this.root)) {
    const w = this.plot.clientWidth, h = this.plot.clientHeight, ratio = Math.min(2, window.devicePixelRatio || 1);
    const context = this.overlay.getContext("2d"), { marker, marker_label: label } = this.host.data;
    this.overlay.width = Math.round(w * ratio);
    this.overlay.height = Math.round(h * ratio);
    this.overlay.style.width = `${w}px`;
    this.overlay.style.height = `${h}px`;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (!this.n) return;
    const ink = LL.css(look.text), paper = LL.css(look.background);
    const ring = (x, y, r, colour, line) => {
      context.beginPath();
      context.arc(x, y, r, 0, 7);
      context.strokeStyle = paper;
      context.lineWidth = line + 2.5;
      context.stroke();
      context.strokeStyle = colour;
      context.lineWidth = line;
      context.stroke();
    };
    const outline = (path, closed) => {
      context.beginPath();
      path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (closed) context.closePath();
      context.fillStyle = LL.css(look.primary, 0.1);
      context.fill();
      context.strokeStyle = LL.css(look.primary);
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    };
    if (this.tracing) outline(this.tracing, false);
    else if (this.lasso) outline(this.lasso.map(([x, y]) => this.toScreen(x, y)), true);
    if (this.near != null) ring(...this.toScreen(this.xy[2 * this.near], this.xy[2 * this.near + 1]), 6, ink, 1.5);
    if (this.picked) ring(...this.toScreen(...this.picked), 7, LL.css(look.primary), 2);
    if (marker) {
      const [x, y] = this.toScreen(...marker);
      ring(x, y, 9, ink, 2);
      context.fillStyle = ink;
      context.beginPath();
      context.arc(x, y, 2, 0, 7);
      context.fill();
      context.font = `600 12px ${look.font}`;
      context.lineWidth = 3;
      context.strokeStyle = paper;
      context.strokeText(label, x + 14, y + 4);
      context.fillText(label, x + 14, y + 4);
    }
  }

  destroy() {
    cancelAnimationFrame(this.asked_frame);
    this.sizes.disconnect();
    this.unkey();
  }
};
