// Picture: a drawn result; the image under the pointer, or the one that the arrow keys are at, can be chosen.
LL.views.picture = class {
  constructor(root, host) {
    this.root = root;
    this.at = null;
    this.build();
    this.update(host);
  }

  build() {
    const { el } = LL;
    this.image = el("img", { class: "ll-sheet-image", draggable: "false" });
    this.id = `ll-cell-${Math.random().toString(36).slice(2)}`;
    this.cell = el("div", { class: "ll-cell", role: "gridcell", id: this.id, hidden: true });
    this.hover = el("div", { class: "ll-cell ll-cell-hover", "aria-hidden": "true", hidden: true });
    this.box = el("div", { class: "ll-cells", tabindex: "0", role: "grid" }, this.image, this.hover,
      el("div", { role: "row" }, this.cell));
    this.note = el("p", { class: "ll-hint ll-cell-note", "aria-hidden": "true" });
    this.root.replaceChildren(el("div", { class: "ll-paper" }, this.box), this.note);
    this.box.addEventListener("pointermove", (event) => this.point(this.under(event)));
    this.box.addEventListener("pointerleave", () => this.point(null));
    this.box.addEventListener("click", (event) => {
      const place = this.under(event);
      if (place) { this.go(place); this.choose(place); }
    });
    this.box.addEventListener("focus", () => this.show());
    this.box.addEventListener("blur", () => this.show());
    this.box.addEventListener("keydown", (event) => this.key(event));
  }

  update(host) {
    const { data } = host;
    this.host = host;
    this.rows = data.rows;
    this.name = data.name;
    [this.wide, this.high] = data.size;
    if (this.image.getAttribute("src") !== data.address) this.image.src = data.address;
    this.image.alt = data.alt;
    this.image.width = this.wide;
    this.image.height = this.high;
    this.box.setAttribute("aria-label", `${data.alt}: arrow keys move, enter puts the sliders there`);
    this.box.setAttribute("aria-rowcount", this.rows.length);
    this.box.setAttribute("aria-colcount", Math.max(...this.rows.map((row) => row.length)));
    if (this.at) this.at = this.nearest(...this.at);
    this.point(null);
    this.show();
  }

  nearest(row, column) {
    const i = LL.clamp(row, 0, this.rows.length - 1);
    return [i, LL.clamp(column, 0, this.rows[i].length - 1)];
  }

  get(place) { return place && this.rows[place[0]][place[1]]; }

  // The cell below the pointer, in pixels of the picture, whatever size it is shown at.
  under(event) {
    const { left, top, width, height } = this.image.getBoundingClientRect();
    const x = ((event.clientX - left) / width) * this.wide, y = ((event.clientY - top) / height) * this.high;
    for (const [i, row] of this.rows.entries()) {
      for (const [j, [, x0, y0, x1, y1]] of row.entries()) if (x >= x0 && x < x1 && y >= y0 && y < y1) return [i, j];
    }
    return null;
  }

  put(node, place) {
    node.hidden = !place;
    if (!place) return;
    const [, x0, y0, x1, y1] = this.get(place), share = (v, all) => `${((100 * v) / all).toFixed(4)}%`;
    Object.assign(node.style, { left: share(x0, this.wide), top: share(y0, this.high),
      width: share(x1 - x0, this.wide), height: share(y1 - y0, this.high) });
  }

  point(place) {
    this.pointed = place;
    this.put(this.hover, place);
    this.box.classList.toggle("ll-over", Boolean(place));
    this.say();
  }

  show() {
    const on = this.root.getRootNode().activeElement === this.box && this.box.matches(":focus-visible");
    if (on && !this.at) this.at = [0, 0];
    this.put(this.cell, on ? this.at : null);
    if (on) {
      const [i, j] = this.at;
      this.cell.setAttribute("aria-rowindex", i + 1);
      this.cell.setAttribute("aria-colindex", j + 1);
      this.cell.setAttribute("aria-label", this.get(this.at)[5]);
      this.box.setAttribute("aria-activedescendant", this.id);
    } else this.box.removeAttribute("aria-activedescendant");
    this.say();
  }

  say() {
    const cell = this.get(this.pointed) ?? (this.cell.hidden ? null : this.get(this.at));
    this.note.textContent = cell ? `${cell[5]}: click or Enter puts the sliders there`
      : "Click an image to put the sliders there.";
  }

  go(place) {
    this.at = place;
    this.show();
  }

  choose(place) {
    this.host.trigger("chosen", { picture: this.name, cell: this.get(place)[0] });
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [i, j] = this.at ?? [0, 0], by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (by) this.go(this.nearest(i + by[0], j + by[1]));
    else if (event.key === "Home") this.go([i, 0]);
    else if (event.key === "End") this.go(this.nearest(i, Infinity));
    else if (event.key === "Enter" || event.key === " ") this.choose(this.at ?? [0, 0]);
    else return;
    this.point(null);
    event.preventDefault();
    event.stopPropagation();
  }

  destroy() {}
};
