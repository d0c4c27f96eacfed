// Player: the pictures along a drawn path, played in a corner of the map while a dot follows the path.
LL.Player = class {
  constructor(moved, closed) {
    const { el, button } = LL;
    this.moved = moved;
    this.at = 0;
    this.playing = false;
    this.canvas = el("canvas", { class: "ll-picture", role: "img", "aria-label": "picture decoded on the path" });
    this.toggle = button("", "Pause", "Play or pause (Space)", () => this.play(!this.playing));
    this.range = el("input", { type: "range", min: "0", max: "1", value: "0", "aria-label": "place on the path",
      oninput: () => { this.play(false); this.show(Number(this.range.value)); } });
    this.label = el("span", {}, "");
    this.node = el("div", { class: "ll-player", hidden: true }, this.canvas,
      el("div", { class: "ll-player-row" }, this.toggle, this.range, button("close", "", "Close the path (Esc)", closed)), this.label);
  }

  get open() { return !this.node.hidden; }

  // frames: canvases; inside: for each whether data lie there.
  load(frames, inside) {
    Object.assign(this, { frames, inside });
    this.node.hidden = false;
    this.range.max = String(frames.length - 1);
    const { width, height } = frames[0], scale = Math.max(1, Math.floor(160 / Math.max(width, height)));
    this.canvas.style.width = `${width * scale}px`;
    this.canvas.style.height = `${height * scale}px`;
    this.show(0);
    this.play(!window.matchMedia("(prefers-reduced-motion: reduce)").matches);
  }

  show(at) {
    this.at = at;
    const frame = this.frames[at];
    if (this.canvas.width !== frame.width) { this.canvas.width = frame.width; this.canvas.height = frame.height; }
    this.canvas.getContext("2d").drawImage(frame, 0, 0);
    this.range.value = String(at);
    this.label.textContent = `${at + 1} of ${this.frames.length}${this.inside[at] ? "" : " · far from all data"}`;
    this.moved(at);
  }

  play(on) {
    clearInterval(this.timer);
    this.playing = on;
    this.toggle.lastChild.textContent = on ? "Pause" : "Play";
    if (on) this.timer = setInterval(() => this.show((this.at + 1) % this.frames.length), 90);
  }

  close() {
    this.play(false);
    this.node.hidden = true;
  }
};
