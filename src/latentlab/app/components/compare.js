// Compare: the sliders of one model and the pictures of several; the others follow where their latents were matched.
LL.views.compare = class extends LL.views.traverse {
  // ---- layout ----
  build() {
    super.build();
    this.others = [];
    this.root.firstChild.classList.add("ll-compare");
    this.canvas.setAttribute("aria-label", `image decoded by ${this.host.data.name}`);
  }

  adopt(data) {
    super.adopt(data);
    this.root.firstChild.classList.remove("ll-two");
    this.mainCaption.hidden = false;
    this.mainCaption.textContent = data.name;
    this.pictures.prepend(this.sourceBox);
    while (this.others.length > data.others.length) this.dismiss(this.others.pop());
    data.others.forEach((given, i) => this.seatOther(given, i));
    this.resize();
    this.drawOthers();
  }

  seatOther(given, i) {
    const { el } = LL;
    let other = this.others[i];
    const host = { data: { token: given.token, base: this.host.data.base },
      trigger: (name, value) => this.host.trigger(name, value), send: () => {} };
    if (!other) {
      other = this.others[i] = { given, canvas: el("canvas", { class: "ll-other ll-picture", role: "img" }),
        caption: el("figcaption") };
      other.figure = el("figure", { class: "ll-figure" }, other.canvas, other.caption);
      this.pictures.append(other.figure);
      other.seat = new LL.Seat(host, {
        ready: () => { if (other.seat.engine.kind !== "rerun") this.drawOther(other); },
        frame: (parts, info) => this.otherFrame(other, parts, info),
        live: () => this.send(),
        changed: () => this.drawOther(other),
        status: () => {},
        error: (sentence) => this.status.error(sentence),
      });
    } else {
      other.given = given;
      other.seat.update(host);
    }
    const [, h, w] = given.image_shape;
    if (!other.canvas.dataset.drawn) { other.canvas.width = w; other.canvas.height = h; }
    other.canvas.setAttribute("aria-label", `image decoded by ${given.name}`);
    other.caption.replaceChildren(given.name, el("span", { class: "ll-sub" }, ` ${given.note}`));
    if (given.image && (other.seat.engine.kind === "rerun" || !other.canvas.dataset.drawn)) {
      LL.pixels(LL.revive(given.image)).then((image) => LL.paint(other.canvas, image));
    }
  }

  dismiss(other) {
    other.seat.destroy();
    other.figure.remove();
  }

  resize() {
    const shown = this.pictures.clientWidth;
    if (!shown || !this.shapeHW) return;
    const [h, w] = this.shapeHW, canvases = [this.canvas, ...this.others.map((other) => other.canvas)];
    if (!this.sourceBox.hidden) canvases.unshift(this.sourceCanvas);
    const room = LL.clamp((shown - 12 * (canvases.length - 1)) / canvases.length, Math.min(w, 96), 256);
    for (const canvas of canvases) LL.fit(canvas, room, w, h);
    // A caption may be longer than its picture is wide.
    for (const canvas of canvases) canvas.parentElement.style.maxWidth = canvas.style.width;
  }

  // ---- following ----
  // Where a matched latent of the other model goes: as far from its own start as its partner's quantile has moved. A
  // category stays at its own start as long as its partner does, and then goes where that one's category leads.
  followed(other) {
    const z = Float32Array.from(other.given.z), origin = this.host.data.origin;
    for (const link of other.given.links) {
      z[link.to] += this.carried(link, this.z[link.from]) - this.carried(link, origin[link.from]);
    }
    for (const link of other.given.categories) {
      const now = this.largest(this.z, link), partner = link.partners[now];
      if (now === this.largest(origin, link) || partner < 0) continue;
      for (let i = 0; i < link.size; i++) z[link.to + i] = i === partner ? 1 : 0;
    }
    return z;
  }

  largest(z, { from, partners }) {
    let best = 0;
    for (let i = 1; i < partners.length; i++) if (z[from + i] > z[from + best]) best = i;
    return best;
  }

  carried({ x, y }, value) {
    let k = 1;
    while (k < x.length - 1 && value > x[k]) k++;
    const span = x[k] - x[k - 1];
    return span > 0 ? y[k - 1] + ((y[k] - y[k - 1]) * LL.clamp(value - x[k - 1], 0, span)) / span : y[k];
  }

  draw() {
    super.draw();
    this.drawOthers();
  }

  drawOthers() {
    for (const other of this.others ?? []) this.drawOther(other);
  }

  drawOther(other) {
    if (other.seat && this.z) other.seat.engine.draw({ z: this.followed(other), flags: LL.WANT_IMAGE });
  }

  async otherFrame(other, parts, info) {
    if (!parts.image) return;
    LL.paint(other.canvas, await LL.pixels(parts.image));
    LL.record("compare", other.seat.engine.kind, info.latency(), info.request?.z);
  }

  destroy() {
    super.destroy();
    for (const other of this.others) this.dismiss(other);
  }
};
