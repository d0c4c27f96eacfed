// Thumbs: small pictures of points, asked of the server by row, one request in flight; and where to show them.
LL.fetchPart = async (base, path) => {
  let last = "no answer";
  for (const address of LL.addresses(base, path)) {
    const answer = await fetch(`${location.protocol}//${address}`).catch(() => null);
    if (answer?.ok && answer.headers.get("content-type") === "application/octet-stream") return answer.arrayBuffer();
    if (answer) last = answer.status;
  }
  throw Object.assign(new Error(String(last)), { status: last });
};

// Packed pictures (mapping/pictures.py) to canvases.
LL.unpackPictures = (buffer) => {
  const size = new DataView(buffer).getUint32(0, true);
  const { n, h, w, c } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 4, size)));
  return Array.from({ length: n }, (_, i) => {
    const data = new Uint8Array(buffer, 4 + size + i * h * w * c, h * w * c);
    const canvas = LL.el("canvas", {});
    LL.paint(canvas, { w, h, rgba: LL.expand({ w, h, c, data }) });
    return canvas;
  });
};

LL.Thumbs = class {
  static KEPT = 3000;
  static AT_ONCE = 128;

  constructor(arrived) {
    this.arrived = arrived;
    this.known = new Map();
    this.token = null;
    this.urgent = null;
    this.wanted = [];
    this.busy = false;
  }

  use(token, base) {
    this.base = base;
    if (token === this.token) return;
    this.token = token;
    this.known.clear();
    this.wanted = [];
    this.urgent = null;
  }

  get(row) { return this.known.get(row) ?? null; }

  // Newer wishes replace those that wait; a hovered point goes first.
  want(rows) { this.wanted = rows.filter((row) => !this.known.has(row)); this.pump(); }
  hurry(row) { if (!this.known.has(row)) { this.urgent = row; this.pump(); } }

  async pump() {
    if (this.busy || !this.token || (this.urgent == null && !this.wanted.length)) return;
    const rows = this.urgent != null ? [this.urgent] : this.wanted.splice(0, LL.Thumbs.AT_ONCE), token = this.token;
    this.urgent = null;
    this.busy = true;
    try {
      const canvases = LL.unpackPictures(await LL.fetchPart(this.base, `/ll/pictures/${token}?rows=${rows.join(",")}`));
      if (token === this.token) {
        for (const [i, row] of rows.entries()) this.known.set(row, canvases[i]);
        for (const row of this.known.keys()) { if (this.known.size <= LL.Thumbs.KEPT) break; this.known.delete(row); }
        this.arrived();
      }
    } catch {
      this.wanted = []; // pictures are a help; without them the map still works
    }
    this.busy = false;
    this.pump();
  }

  // Rows whose pictures, size pixels wide, don't cover each other: of each cell of a grid that stays put while the map
  // is moved the first in order, unless it covers an earlier one.
  static choose({ xy, codes, n, skip }, view, size) {
    const step = 2 ** Math.floor(Math.log2(view.scale)), side = size / 2 / step; // in data units
    const x0 = Math.floor((view.x - view.w / 2 / view.scale) / side), y0 = Math.floor((view.y - view.h / 2 / view.scale) / side);
    const columns = Math.ceil(view.w / view.scale / side) + 1, rows = Math.ceil(view.h / view.scale / side) + 1;
    const first = new Int32Array(columns * rows).fill(-1), found = [];
    for (let i = 0; i < n; i++) {
      const column = Math.floor(xy[2 * i] / side) - x0, row = Math.floor(xy[2 * i + 1] / side) - y0;
      if (!(column >= 0 && row >= 0 && column < columns && row < rows)) continue;
      if (skip !== null && skip[codes[i]] === 1) continue;
      const o = row * columns + column;
      if (first[o] < 0) { first[o] = i; found.push(i); }
    }
    const apart = size / view.scale, kept = [];
    for (const i of found.sort((a, b) => a - b)) {
      const x = xy[2 * i], y = xy[2 * i + 1];
      if (kept.every((k) => Math.abs(xy[2 * k] - x) >= apart || Math.abs(xy[2 * k + 1] - y) >= apart)) kept.push(i);
    }
    return kept;
  }
};
