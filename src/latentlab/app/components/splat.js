// Splat: points drawn into one canvas, a few as soft discs, very many as counts a pixel, which stay fluent at a million.
LL.Splat = class {
  // Discs cost their area each; above this many pixels a frame points are counted instead.
  static BUDGET = 1.2e6;

  // points { xy, codes, n, skip }, colours (rgb by code), view { w, h, x, y, scale }, home scale, background (rgb). While a
  // map is moved, points may be the first ones only, a draft of ``all``. Returns how many of all lie inside.
  paint(canvas, points, colours, view, home, background, all = points.n) {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const W = Math.round(view.w * ratio), H = Math.round(view.h * ratio);
    if (canvas.width !== W || canvas.height !== H) { canvas.width = W; canvas.height = H; }
    if (this.image?.width !== W || this.image?.height !== H) {
      this.image = new ImageData(W, H);
      this.words = new Uint32Array(this.image.data.buffer);
      this.grid = new Uint32Array(W * H); // how many points fell on a pixel (upper half), and the code of the last
    }
    const s = view.scale * ratio, ox = W / 2 - view.x * s, oy = H / 2 + view.y * s;
    this.words.fill((0xff000000 | (background[2] << 16) | (background[1] << 8) | background[0]) >>> 0);
    const radius = ratio * LL.clamp(150 / Math.sqrt(all), 0.7, 3.2) * LL.clamp(Math.sqrt(view.scale / home), 1, 3);
    const area = (2 * Math.ceil(radius + 1) + 1) ** 2;
    const weight = all / points.n;
    let inside = points.n;
    if (points.n * area > LL.Splat.BUDGET || points.n > 50000) inside = this.count(points, s, ox, oy, W, H);
    if (inside * weight * area <= LL.Splat.BUDGET) {
      // Few are left on the screen: a draft of them would miss most.
      inside = this.discs({ ...points, n: all }, colours, s, ox, oy, W, H, radius, inside * weight);
      canvas.getContext("2d").putImageData(this.image, 0, 0);
      return inside;
    }
    this.shade(colours, W, H, background, weight);
    canvas.getContext("2d").putImageData(this.image, 0, 0);
    return inside * weight;
  }

  // How many points fall on each pixel, and the code of the last; how many there are in all.
  count({ xy, codes, n, skip }, s, ox, oy, W, H) {
    const { grid } = this;
    grid.fill(0);
    let inside = 0;
    for (let i = 0; i < n; i++) {
      const px = (xy[2 * i] * s + ox) | 0, py = (oy - xy[2 * i + 1] * s) | 0;
      if (px < 0 || py < 0 || px >= W || py >= H) continue;
      const code = codes === null ? 0 : codes[i];
      if (skip !== null && skip[code] === 1) continue;
      const o = py * W + px, before = grid[o];
      grid[o] = (before < 0xffff0000 ? (before & 0xffff0000) + 0x10000 : 0xffff0000) | code;
      inside += 1;
    }
    return inside;
  }

  // Counted pixels in the colour of their last point, by the count's logarithm; a draft of few points counts them more.
  shade(colours, W, H, background, weight) {
    const { grid, words } = this, [r, g, b] = background, covers = new Float32Array(64), size = W * H;
    for (let c = 0; c < 64; c++) covers[c] = 0.35 + 0.65 * Math.min(1, Math.log1p(c * weight) / Math.log1p(40));
    for (let o = 0; o < size; o++) {
      const word = grid[o];
      if (word === 0) continue;
      const found = word >>> 16, cover = covers[found < 63 ? found : 63], k = 3 * (word & 0xffff);
      const red = r + (colours[k] - r) * cover, green = g + (colours[k + 1] - g) * cover;
      const blue = b + (colours[k + 2] - b) * cover;
      words[o] = 0xff000000 | (blue << 16) | (green << 8) | red;
    }
  }

  // A disc a point, edges softened, blended over what lies below.
  discs({ xy, codes, n, skip }, colours, s, ox, oy, W, H, radius, few) {
    const out = this.image.data, alpha = LL.clamp(60 / Math.sqrt(few || 1), 0.35, 0.85), r = Math.ceil(radius + 1);
    const dxs = [], dys = [], covers = [];
    for (let dy = -r; dy <= r; dy++) for (let dx = -r; dx <= r; dx++) {
      const cover = LL.clamp(radius + 0.5 - Math.hypot(dx, dy), 0, 1) * alpha;
      if (cover > 0.01) { dxs.push(dx); dys.push(dy); covers.push(cover); }
    }
    let inside = 0;
    for (let i = 0; i < n; i++) {
      const fx = xy[2 * i] * s + ox, fy = oy - xy[2 * i + 1] * s;
      if (!(fx >= -r && fy >= -r && fx < W + r && fy < H + r)) continue;
      const code = codes === null ? 0 : codes[i];
      if (skip !== null && skip[code] === 1) continue;
      inside += 1;
      const px = fx | 0, py = fy | 0, red = colours[3 * code], green = colours[3 * code + 1], blue = colours[3 * code + 2];
      for (let k = 0; k < covers.length; k++) {
        const qx = px + dxs[k], qy = py + dys[k];
        if (qx < 0 || qy < 0 || qx >= W || qy >= H) continue;
        const o = 4 * (qy * W + qx), cover = covers[k];
        out[o] += (red - out[o]) * cover;
        out[o + 1] += (green - out[o + 1]) * cover;
        out[o + 2] += (blue - out[o + 2]) * cover;
      }
    }
    return inside;
  }
};
