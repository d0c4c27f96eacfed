// Map: points in the plane; pan, zoom, pick, lasso, draw a path, see the images. Uses splat.js, thumbs.js, player.js.
LL.views.map = class {
  constructor(root, host) {
    this.root = root;
    this.hidden = new Set();
    this.serial = 0;
    this.mode = "move";
    this.images = false;
    this.shown = [];
    this.splat = new LL.Splat();
    this.thumbs = new LL.Thumbs(() => { this.drawOverlay(); if (this.near != null) this.describe(this.near); });
    this.rest = LL.debounce(140, () => {
      this.moving = false;
      if (this.drafted) this.draw();
      else this.chooseImages();
    });
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
      "aria-label": "map of encoded images: drag to move, wheel to zoom, click a point to open it, L to lasso, P to draw a path, I for images" });
    this.overlay = el("canvas", { class: "ll-overlay" });
    this.tipText = el("div", {});
    this.tipImage = el("div", { class: "ll-tip-image", hidden: true });
    this.tip = el("div", { class: "ll-tip", hidden: true }, this.tipImage, this.tipText);
    const mode = (name, label, title) => button("", label, title, () => this.setMode(name), { "data-mode": name });
    this.modes = [mode("move", "Move", "Move: drag moves the map (M)"),
      mode("lasso", "Lasso", "Lasso: drag around points to select them (L, or Shift and drag)"),
      mode("path", "Path", "Path: draw a line, and play what the model decodes on it (P)")];
    this.imagesToggle = button("", "Images", "Images: show some at every zoom (I); zoomed in, they show by themselves",
      () => { this.images = !this.images; this.showMode(); this.chooseImages(); });
    const tools = el("div", { class: "ll-modes" }, el("div", { class: "ll-joined", role: "group", "aria-label": "What dragging does" }, this.modes),
      this.imagesToggle);
    this.player = new LL.Player(() => this.drawOverlay(), () => this.dropPath());
    const corner = el("div", { class: "ll-corner" },
      button("plus", "", "Zoom in (+)", () => this.zoom(1.5)), button("minus", "", "Zoom out (−)", () => this.zoom(1 / 1.5)),
      button("fit", "", "Show all points (0)", () => { this.fit(); this.draw(); }));
    this.plot = el("div", { class: "ll-plot" }, this.canvas, this.overlay, tools, corner, this.player.node, this.tip);
    this.legend = el("div", { class: "ll-legend" });
    this.hint = el("span", {}, "");
    this.note = el("span", { class: "ll-note", role: "status" });
    this.root.replaceChildren(el("div", { class: "ll-map" }, this.plot,
      el("div", { class: "ll-foot" }, this.legend, this.note, this.hint)));
    this.pointer();
    this.showMode();
  }

  setMode(mode) {
    this.mode = this.mode === mode ? "move" : mode;
    this.showMode();
  }

  showMode() {
    for (const node of this.modes) node.setAttribute("aria-pressed", String(node.dataset.mode === this.mode));
    this.imagesToggle.setAttribute("aria-pressed", String(this.images));
    this.canvas.classList.toggle("ll-drawing", this.mode !== "move");
    this.hint.textContent = {
      move: "Drag to move, wheel to zoom, click to open, Shift+drag to lasso",
      lasso: "Drag around points to select them", path: "Drag a path from anywhere to anywhere",
    }[this.mode];
  }

  // ---- data ----
  update(host) {
    this.host = host;
    const { data } = host;
    this.plot.style.height = `${data.height}px`;
    this.imagesToggle.hidden = !data.pictures;
    this.thumbs.use(data.pictures, data.base);
    const source = data.token ?? data.points, paint = data.colour_token ?? data.colour;
    const fresh = this.revision !== data.revision;
    this.revision = data.revision;
    if (source !== this.source || paint !== this.paintSource) {
      const moved = source !== this.source;
      this.source = source;
      this.paintSource = paint;
      this.load(data, fresh, moved);
    } else if (fresh) this.fit();
    this.loadPath(data);
    this.look = null;
    this.draw();
  }

  // Points and their colours come apart, so that another colour doesn't send a million points again.
  async load(data, fresh, moved) {
    const began = performance.now(), { source, paintSource } = this;
    try {
      const [points, paint] = await Promise.all([
        moved || !this.xy ? this.part(data, data.token, data.points) : null,
        data.colour_token || data.colour ? this.part(data, data.colour_token, data.colour) : null]);
      if (source !== this.source || paintSource !== this.paintSource) return;
      if (points) { this.takePoints(points, fresh); this.showMode(); }
      this.codes = null;
      this.colour = null;
      if (paint) {
        const [header, start] = LL.views.map.header(paint);
        // Colours of fewer points than there are belong to a map that has grown since.
        if (header.n === this.n) {
          this.colour = header.colour;
          this.codes = new Uint16Array(paint, start, header.n);
        }
      }
      this.hidden.clear();
      this.buildLegend();
      this.note.textContent = "";
      this.paint();
      this.rest();
      const m = LL.measured("map");
      m.engine = data.token ? "server" : "rerun";
      m.points = this.n;
      m.load_ms = performance.now() - began;
      m.drawn_at = Date.now();
    } catch (error) {
      if (error.status === 404 && this.asked !== source) {
        this.asked = source;
        this.source = this.paintSource = null;
        this.host.trigger("expired", source);
        return;
      }
      this.note.textContent = `The points could not be loaded (${error.message}).`;
    }
  }

  part(data, token, text) {
    return token ? LL.fetchPart(data.base, `/ll/points/${token}`) : LL.bytes(text).buffer;
  }

  static header(buffer) {
    const size = new DataView(buffer).getUint32(0, true);
    return [JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size))), 4 + size];
  }

  takePoints(buffer, fresh) {
    const [header, start] = LL.views.map.header(buffer);
    const before = this.xy, now = new Float32Array(buffer, start, 2 * header.n);
    this.n = header.n;
    this.ids = header.ids ? new Int32Array(buffer, start + 8 * header.n, header.n) : null;
    this.names = header.hover;
    this.goal = now;
    this.xy = now;
    cancelAnimationFrame(this.gliding);
    // While another layout was waited for, the map was not on the page: it goes on where it was.
    const kept = before ? null : LL.metrics.kept;
    if (kept?.revision === this.revision) {
      Object.assign(this, kept.state);
      this.glide(kept.xy, now);
    } else if (fresh || !before) { this.touched = false; this.lasso = null; this.picked = null; this.fit(); }
    else {
      if (!this.touched) this.fit();
      this.glide(before, now);
    }
  }

  // Points of the same images glide to their new places; nothing jumps.
  glide(before, now) {
    const shared = Math.min(before.length, now.length);
    let same = shared > 400000 || window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    for (let i = 0, step = Math.max(1, shared >> 10); !same && i < shared; i += step) if (before[i] !== now[i]) break; else if (i + step >= shared) same = true;
    if (same) return;
    const from = before.slice(0, shared), began = performance.now(), moving = now.slice();
    const step = () => {
      const t = Math.min(1, (performance.now() - began) / 450), ease = t * t * (3 - 2 * t);
      if (t >= 1) this.xy = now;
      else {
        for (let i = 0; i < shared; i++) moving[i] = from[i] + (now[i] - from[i]) * ease;
        this.xy = moving;
        this.gliding = requestAnimationFrame(step);
      }
      this.draw();
    };
    step();
  }

  async loadPath(data) {
    const path = data.path, source = path ? path.token ?? path.frames : null;
    if (source === this.pathSource) return;
    this.pathSource = source;
    if (!path) { this.route = null; this.player.close(); return this.drawOverlay(); }
    try {
      const frames = LL.unpackPictures(await this.part(data, path.token, path.frames));
      if (source !== this.pathSource) return;
      this.route = path;
      this.player.load(frames, path.inside);
      LL.measured("map").frames_on_path = frames.length;
    } catch (error) {
      this.note.textContent = `The path's pictures could not be loaded (${error.message}).`;
    }
  }

  dropPath() {
    this.route = null;
    this.player.close();
    this.host.send("path", { points: null, serial: this.stamp() });
    this.drawOverlay();
  }

  stamp() { return ++this.serial + (Date.now() % 1e9) * 1000; }

  buildLegend() {
    const { el, format } = LL, { colour } = this;
    if (!colour) return this.legend.replaceChildren(el("span", {}, `${this.n?.toLocaleString("en")} points`));
    const title = colour.title ? el("b", {}, colour.title) : null;
    if (!colour.names) {
      const t = LL.SEQUENTIAL, stops = [0, 51, 102, 153, 204, 255].map((i) => `rgb(${t[3 * i]},${t[3 * i + 1]},${t[3 * i + 2]})`).join(",");
      return this.legend.replaceChildren(...[title, el("span", {}, (colour.cut ? "≤ " : "") + format(colour.low)),
        el("i", { class: "ll-legend-bar", style: `background:linear-gradient(to right,${stops});margin:0 4px` }),
        el("span", {}, (colour.cut ? "≥ " : "") + format(colour.high))].filter(Boolean));
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
    this.touched = this.moving = true;
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
    else if (event.key === "Escape" && this.player.open) this.dropPath();
    else if (event.key === "Escape" && this.lasso) { this.lasso = null; this.host.send("polygon", { points: null, serial: this.stamp() }); this.draw(); }
    else if (event.key === " " && this.player.open && this.root.getRootNode().activeElement === this.canvas) this.player.play(!this.player.playing);
    else if ("mlpMLP".includes(event.key)) this.setMode({ m: "move", l: "lasso", p: "path" }[event.key.toLowerCase()]);
    else if ("iI".includes(event.key) && !this.imagesToggle.hidden) this.imagesToggle.click();
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
      path = event.shiftKey || this.mode !== "move" ? [start] : null;
      this.drawing = event.shiftKey ? "lasso" : this.mode;
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
        this.touched = this.moving = true;
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
    this.thumbs.hurry(near);
    this.describe(near);
  }

  describe(near) {
    const { colour, codes } = this, code = codes?.[near];
    const lines = [this.names?.[near] ?? (this.ids ? `image ${this.ids[near].toLocaleString("en")}` : `point ${near}`)];
    if (colour && code !== 0xffff) {
      const value = colour.names ? colour.names[code] : LL.format(colour.low + (code / 0xfffe) * (colour.high - colour.low));
      const bound = !colour.cut ? "" : code === 0 ? "at most " : code === 0xfffe ? "at least " : "";
      lines.push(`${colour.title || "value"}: ${bound}${value}`);
    }
    this.tipText.textContent = lines.join("\n");
    const image = this.thumbs.get(near);
    this.tipImage.hidden = !image;
    if (image) { this.tipImage.replaceChildren(image); }
    this.tip.hidden = false;
    const [sx, sy] = this.toScreen(this.xy[2 * near], this.xy[2 * near + 1]);
    this.tip.style.left = `${LL.clamp(sx + 12, 4, Math.max(4, this.plot.clientWidth - this.tip.offsetWidth - 4))}px`;
    this.tip.style.top = `${sy + 14 + this.tip.offsetHeight > this.plot.clientHeight ? sy - 14 - this.tip.offsetHeight : sy + 14}px`;
  }

  pick(p) {
    const point = this.nearest(p, 8), serial = this.stamp();
    this.picked = point == null ? this.toData(...p) : [this.xy[2 * point], this.xy[2 * point + 1]];
    LL.measured("map").picked = { point, position: this.picked };
    this.host.send("pick", point == null ? { position: this.picked, serial } : { point, serial });
    this.drawOverlay();
  }

  close(path) {
    // A corner every few pixels is enough; a lasso travels as its polygon, never as a list of points.
    const step = Math.max(1, Math.ceil(path.length / 300));
    const points = path.filter((_, i) => i % step === 0 || i === path.length - 1).map((p) => this.toData(...p));
    if (this.drawing === "path") {
      this.route = { points, inside: null };
      this.player.close();
      return this.host.send("path", { points, serial: this.stamp() });
    }
    this.lasso = points;
    this.host.send("polygon", { points, serial: this.stamp() });
  }

  // ---- images on the map ----
  // Shown when few points are left on the screen, or at every zoom where a person asks for them.
  chooseImages() {
    const zoomed = this.view && this.view.scale > 1.5 * this.home && this.inside <= 1500;
    if (!this.n || !this.thumbs.token || !(this.images || zoomed)) this.shown = [];
    else {
      this.shown = LL.Thumbs.choose({ ...this.points(), n: this.n }, this.frameView(), 46);
      this.thumbs.want(this.shown);
    }
    LL.measured("map").images = this.shown.length;
    this.drawOverlay();
  }

  drawImages(context, look) {
    const { w, h } = this.frameView(), side = 42;
    context.imageSmoothingEnabled = false;
    for (const row of this.shown) {
      const image = this.thumbs.get(row);
      if (!image) continue;
      const [x, y] = this.toScreen(this.xy[2 * row], this.xy[2 * row + 1]);
      if (x < -side || y < -side || x > w + side || y > h + side) continue;
      const scale = side / Math.max(image.width, image.height), iw = image.width * scale, ih = image.height * scale;
      const code = this.codes ? this.codes[row] : 0, [r, g, b] = this.colours.subarray(3 * code, 3 * code + 3);
      context.fillStyle = this.codes ? `rgb(${r},${g},${b})` : LL.css(look.text, 0.35);
      context.fillRect(x - iw / 2 - 1.5, y - ih / 2 - 1.5, iw + 3, ih + 3);
      context.drawImage(image, x - iw / 2, y - ih / 2, iw, ih);
    }
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

  // The points as the drawing wants them: what the legend hides is marked by code.
  points() {
    const { hidden, colour } = this;
    let skip = null;
    if (colour?.names && hidden.size) {
      skip = new Uint8Array(65536);
      for (const i of hidden) skip[i] = 1;
    }
    return { xy: this.xy, codes: this.codes ?? null, n: this.n, skip };
  }

  paint() {
    const began = performance.now(), view = this.frameView();
    if (!view.w || !view.h) return;
    if (!this.look || began - this.looked > 1000) { this.look = LL.theme(this.root); this.looked = began; }
    const look = this.look;
    if (!this.n) { this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height); return; }
    const key = `${look.dark}|${JSON.stringify(this.colour)}`;
    if (this.tableKey !== key) { this.tableKey = key; this.colours = this.table(look); }
    // Points come in random order, so the first ones are a fair draft of all: as many as fit a frame while moving.
    const points = this.points(), draft = this.moving ? LL.clamp(Math.round(7 / (this.pace ?? 1e-5)), 100000, this.n) : this.n;
    points.n = Math.min(this.n, draft);
    this.inside = this.splat.paint(this.canvas, points, this.colours, view, this.home, look.background, this.n);
    if (points.n > 50000) this.pace = Math.max(0.7 * (this.pace ?? 0), (performance.now() - began) / points.n);
    this.drafted = points.n < this.n;
    this.canvas.dataset.drawn = "1";
    this.drawOverlay(look);
    this.rest();
    const took = performance.now() - began, m = LL.measured("map");
    m.frames += 1;
    m.latencies_ms.push(took);
    if (m.latencies_ms.length > 500) m.latencies_ms.shift();
  }

  drawOverlay(look = this.look ?? LL.theme(this.root)) {
    const w = this.plot.clientWidth, h = this.plot.clientHeight, ratio = Math.min(2, window.devicePixelRatio || 1);
    const context = this.overlay.getContext("2d"), { marker, marker_label: label } = this.host.data;
    const W = Math.round(w * ratio), H = Math.round(h * ratio);
    if (this.overlay.width !== W || this.overlay.height !== H) { this.overlay.width = W; this.overlay.height = H; }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, W, H);
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
    if (this.shown.length) this.drawImages(context, look);
    const outline = (path, closed) => {
      context.beginPath();
      path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      if (closed) context.closePath();
      context.fillStyle = LL.css(look.primary, 0.1);
      if (closed || this.drawing !== "path") context.fill();
      context.strokeStyle = LL.css(look.primary);
      context.lineWidth = 1.5;
      context.setLineDash([5, 4]);
      context.stroke();
      context.setLineDash([]);
    };
    if (this.tracing) outline(this.tracing, false);
    else if (this.lasso) outline(this.lasso.map(([x, y]) => this.toScreen(x, y)), true);
    if (this.route) this.drawRoute(context, look, ring);
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

  // The path, pale and dashed where it leaves the data, and the place whose picture is shown.
  drawRoute(context, look, ring) {
    const { points, inside } = this.route, places = points.map(([x, y]) => this.toScreen(x, y));
    for (let i = 1; i < places.length; i++) {
      const within = !inside || (inside[i - 1] && inside[i]);
      context.beginPath();
      context.moveTo(...places[i - 1]);
      context.lineTo(...places[i]);
      context.setLineDash(within ? [] : [4, 4]);
      context.lineWidth = within ? 3 : 2;
      context.strokeStyle = within ? LL.css(look.primary) : LL.css(look.text, 0.55);
      context.stroke();
    }
    context.setLineDash([]);
    if (this.player.open && inside) ring(...places[Math.min(this.player.at, places.length - 1)], 6, LL.css(look.primary), 3);
  }

  destroy() {
    const { view, home, bounds, touched, mode, images } = this;
    if (this.goal) {
      const state = { view, home, bounds, touched, mode, images };
      Object.defineProperty(LL.metrics, "kept", { value: { revision: this.revision, xy: this.goal, state }, configurable: true });
    }
    this.player.close();
    this.rest.cancel();
    cancelAnimationFrame(this.gliding);
    cancelAnimationFrame(this.asked_frame);
    this.sizes.disconnect();
    this.unkey();
  }
};
