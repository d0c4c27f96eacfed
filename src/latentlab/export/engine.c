// The browser engine: runs a decoder that lowering.py has written down as a list of steps, in WebAssembly SIMD.
//
// Numbers are float32. A map lies in memory pixel by pixel, (height, width, channels); a flat state is a map of one
// pixel. A step is STEP words: its kind, five addresses in bytes (0 for none), then whole numbers or float
// bits. Every buffer starts at 16 bytes and has room for a multiple of four floats.
// Built by `python -m latentlab.export.build_engine`; program.py names the same kinds and words.
#include <wasm_simd128.h>

typedef v128_t vec;

enum { STEP = 24 };
enum { CONV, PAD, LINEAR, ACT, AFFINE, ADD, ADD_MAP, RESIZE, TRANSPOSE, COPY, GROUP_NORM, PIXEL_NORM, LOOKUP };
enum { IDENTITY, RELU, LEAKY_RELU, SILU, SIGMOID, TANH, HALF_TANH, LOGISTIC, SQUARE, RSQRT, SCALE };

#define INLINE static inline __attribute__((always_inline))
#define EXPORT(name) __attribute__((export_name(#name)))

INLINE float *at(const int *step, int slot) { return (float *)(unsigned long)step[slot]; }
INLINE float number(int word) { return *(const float *)&word; }
INLINE vec splat(float x) { return wasm_f32x4_splat(x); }
INLINE vec load(const float *p) { return wasm_v128_load(p); }
INLINE void store(float *p, vec x) { wasm_v128_store(p, x); }
INLINE vec add(vec a, vec b) { return wasm_f32x4_add(a, b); }
INLINE vec sub(vec a, vec b) { return wasm_f32x4_sub(a, b); }
INLINE vec mul(vec a, vec b) { return wasm_f32x4_mul(a, b); }
INLINE vec divide(vec a, vec b) { return wasm_f32x4_div(a, b); }
INLINE vec least(vec a, vec b) { return wasm_f32x4_pmin(a, b); }
INLINE vec most(vec a, vec b) { return wasm_f32x4_pmax(a, b); }

// ---- elementwise ---------------------------------------------------------------------------------------------

// e^x to about one unit in the last place: x = n ln 2 + r, a polynomial of r, and n put into the exponent.
static vec exponential(vec x) {
  x = most(least(x, splat(88.0f)), splat(-87.0f));
  vec n = wasm_f32x4_nearest(mul(x, splat(1.44269504f)));
  vec r = sub(sub(x, mul(n, splat(0.693359375f))), mul(n, splat(-2.12194440e-4f)));
  vec p = splat(1.9875691500e-4f);
  p = add(mul(p, r), splat(1.3981999507e-3f));
  p = add(mul(p, r), splat(8.3334519073e-3f));
  p = add(mul(p, r), splat(4.1665795894e-2f));
  p = add(mul(p, r), splat(1.6666665459e-1f));
  p = add(mul(p, r), splat(5.0000001201e-1f));
  p = add(add(mul(p, mul(r, r)), r), splat(1.0f));
  vec power = wasm_i32x4_shl(wasm_i32x4_add(wasm_i32x4_trunc_sat_f32x4(n), wasm_i32x4_splat(127)), 23);
  return mul(p, power);
}

static vec sigmoid(vec x) { return divide(splat(1.0f), add(splat(1.0f), exponential(wasm_f32x4_neg(x)))); }

static vec hyperbolic(vec x) {
  return sub(splat(1.0f), divide(splat(2.0f), add(exponential(add(x, x)), splat(1.0f))));
}

// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|), the logarithm as 2 artanh(t) with t of at most 1/3.
static vec softplus(vec x) {
  vec e = exponential(wasm_f32x4_neg(wasm_f32x4_abs(x)));
  vec t = divide(e, add(e, splat(2.0f))), s = mul(t, t), p = splat(2.0f / 15.0f);
  for (int k = 13; k >= 1; k -= 2) p = add(mul(p, s), splat(2.0f / (float)k));
  return add(most(x, splat(0.0f)), mul(p, t));
}

// The mean of a logistic value at 1/2 + x/4 that is cut off at 0 and 1 (likelihoods.Logistic).
static vec logistic(vec x, float scale) {
  vec location = add(splat(0.5f), mul(x, splat(0.25f))), s = splat(scale);
  vec below = sub(softplus(divide(sub(splat(1.0f), location), s)), softplus(divide(wasm_f32x4_neg(location), s)));
  return least(most(sub(splat(1.0f), mul(s, below)), splat(0.0f)), splat(1.0f));
}

#define EACH(expression) \
  for (int i = 0; i < n; i += 4) { vec x = load(in + i); store(out + i, (expression)); } break

static void act(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2), value = number(step[8]);
  int n = step[6];
  switch (step[7]) {
    case IDENTITY: EACH(x);
    case RELU: EACH(most(x, splat(0.0f)));
    case LEAKY_RELU: EACH(wasm_v128_bitselect(x, mul(x, splat(value)), wasm_f32x4_gt(x, splat(0.0f))));
    case SILU: EACH(mul(x, sigmoid(x)));
    case SIGMOID: EACH(sigmoid(x));
    case TANH: EACH(hyperbolic(x));
    case HALF_TANH: EACH(add(mul(splat(0.5f), hyperbolic(x)), splat(0.5f)));
    case LOGISTIC: EACH(logistic(x, value));
    case SQUARE: EACH(mul(x, x));
    case RSQRT: EACH(divide(splat(1.0f), wasm_f32x4_sqrt(x)));
    case SCALE: EACH(mul(x, splat(value)));
  }
}

// ---- convolution ---------------------------------------------------------------------------------------------

typedef struct {
  int in_row, in_step, cin, kh, kw, dy, dx, out_col;
} Shape;

// `pixels` outputs in a row, 4 `vecs` channels of each: what the registers hold.
INLINE void tile(const float *in, const float *w, const float *bias, float *out, const Shape s, int lanes,
                 const int pixels, const int vecs) {
  vec sum[8];
  _Pragma("unroll") for (int p = 0; p < pixels; p++)
    _Pragma("unroll") for (int v = 0; v < vecs; v++) sum[p * vecs + v] = load(bias + 4 * v);
  for (int ky = 0; ky < s.kh; ky++)
    for (int kx = 0; kx < s.kw; kx++) {
      const float *from = in + ky * s.dy * s.in_row + kx * s.dx * s.cin;
      for (int c = 0; c < s.cin; c++, w += 4 * vecs) {
        vec weight[2];
        _Pragma("unroll") for (int v = 0; v < vecs; v++) weight[v] = load(w + 4 * v);
        _Pragma("unroll") for (int p = 0; p < pixels; p++) {
          vec x = wasm_v128_load32_splat(from + p * s.in_step + c);
          _Pragma("unroll") for (int v = 0; v < vecs; v++)
            sum[p * vecs + v] = add(sum[p * vecs + v], mul(x, weight[v]));
        }
      }
    }
  _Pragma("unroll") for (int p = 0; p < pixels; p++) {
    float *to = out + p * s.out_col;
    if (lanes == 4 * vecs) {
      _Pragma("unroll") for (int v = 0; v < vecs; v++) store(to + 4 * v, sum[p * vecs + v]);
    } else {
      float all[8];
      _Pragma("unroll") for (int v = 0; v < vecs; v++) store(all + 4 * v, sum[p * vecs + v]);
      for (int i = 0; i < lanes; i++) to[i] = all[i];
    }
  }
}

static void wide(const float *in, const float *w, const float *bias, float *out, Shape s, int lanes, int n) {
  for (; n >= 4; n -= 4, in += 4 * s.in_step, out += 4 * s.out_col) tile(in, w, bias, out, s, lanes, 4, 2);
  for (; n > 0; n--, in += s.in_step, out += s.out_col) tile(in, w, bias, out, s, lanes, 1, 2);
}

static void narrow(const float *in, const float *w, const float *bias, float *out, Shape s, int lanes, int n) {
  for (; n >= 8; n -= 8, in += 8 * s.in_step, out += 8 * s.out_col) tile(in, w, bias, out, s, lanes, 8, 1);
  for (; n > 0; n--, in += s.in_step, out += s.out_col) tile(in, w, bias, out, s, lanes, 1, 1);
}

// in is padded already; weights are (channels out / block, kh, kw, channels in, block), block 8, or 4 for few channels.
static void conv(const int *step) {
  const float *in = at(step, 1), *weights = at(step, 2), *bias = at(step, 3);
  float *out = at(step, 4);
  int cout = step[8], height = step[9], width = step[10], out_row = step[11], sy = step[15], sx = step[16];
  int block = step[19];
  Shape s = {step[6], sx * step[7], step[7], step[13], step[14], step[17], step[18], step[12]};
  int size = s.kh * s.kw * s.cin * block;
  for (int y = 0; y < height; y++)
    for (int c = 0; c < cout; c += block) {
      const float *from = in + y * sy * s.in_row, *w = weights + c / block * size;
      float *to = out + y * out_row + c;
      int lanes = cout - c < block ? cout - c : block;
      if (block == 8) wide(from, w, bias + c, to, s, lanes, width);
      else narrow(from, w, bias + c, to, s, lanes, width);
    }
}

static void pad(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2);
  int height = step[6], row = step[7] * step[8], top = step[9], left = step[10] * step[8];
  int out_height = step[11], out_row = step[12] * step[8];
  __builtin_memset(out, 0, 4 * out_height * out_row);
  for (int y = 0; y < height; y++) __builtin_memcpy(out + (y + top) * out_row + left, in + y * row, 4 * row);
}

// Weights (outputs / 8, inputs, 8); both ends of the memory are multiples of four.
static void linear(const int *step) {
  const float *in = at(step, 1), *w = at(step, 2), *bias = at(step, 3);
  float *out = at(step, 4);
  int inputs = step[6], outputs = step[7];
  for (int c = 0; c < outputs; c += 8) {
    vec a = load(bias + c), b = load(bias + c + 4), d = splat(0.0f), e = d;
    int k = 0;
    for (; k + 2 <= inputs; k += 2, w += 16) {
      vec x = splat(in[k]), y = splat(in[k + 1]);
      a = add(a, mul(x, load(w)));
      b = add(b, mul(x, load(w + 4)));
      d = add(d, mul(y, load(w + 8)));
      e = add(e, mul(y, load(w + 12)));
    }
    if (k < inputs) {
      vec x = splat(in[k]);
      a = add(a, mul(x, load(w)));
      b = add(b, mul(x, load(w + 4)));
      w += 8;
    }
    store(out + c, add(a, d));
    if (c + 4 < outputs) store(out + c + 4, add(b, e));
  }
}

// ---- everything else -----------------------------------------------------------------------------------------

// x scale + shift, channel by channel.
static void affine(const int *step) {
  const float *in = at(step, 1), *scale = at(step, 2), *shift = at(step, 3);
  float *out = at(step, 4);
  int pixels = step[6], channels = step[7], scaled = step[2] != 0, shifted = step[3] != 0;
  for (int p = 0; p < pixels; p++, in += channels, out += channels)
    for (int c = 0; c < channels; c++) out[c] = in[c] * (scaled ? scale[c] : 1.0f) + (shifted ? shift[c] : 0.0f);
}

static void sum(const int *step) {
  const float *a = at(step, 1), *b = at(step, 2);
  float *out = at(step, 3);
  for (int i = 0; i < step[6]; i += 4) store(out + i, add(load(a + i), load(b + i)));
}

static void add_map(const int *step) {
  const float *in = at(step, 1), *map = at(step, 2);
  float *out = at(step, 3);
  int channels = step[7];
  for (int p = 0; p < step[6]; p++)
    for (int c = 0; c < channels; c++) out[p * channels + c] = in[p * channels + c] + map[p];
}

// Nearest or bilinear with pixels as areas (align_corners=False), as torch counts them.
static void resize(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2);
  int h = step[6], w = step[7], channels = step[8], oh = step[9], ow = step[10], bilinear = step[11];
  float sy = (float)h / (float)oh, sx = (float)w / (float)ow;
  for (int y = 0; y < oh; y++)
    for (int x = 0; x < ow; x++, out += channels) {
      if (!bilinear) {
        int fy = (int)((float)y * sy), fx = (int)((float)x * sx);
        fy = fy < h ? fy : h - 1;
        fx = fx < w ? fx : w - 1;
        __builtin_memcpy(out, in + (fy * w + fx) * channels, 4 * channels);
        continue;
      }
      float py = ((float)y + 0.5f) * sy - 0.5f, px = ((float)x + 0.5f) * sx - 0.5f;
      py = py > 0.0f ? py : 0.0f;
      px = px > 0.0f ? px : 0.0f;
      int y0 = (int)py, x0 = (int)px, y1 = y0 + 1 < h ? y0 + 1 : y0, x1 = x0 + 1 < w ? x0 + 1 : x0;
      float fy = py - (float)y0, fx = px - (float)x0;
      const float *a = in + (y0 * w + x0) * channels, *b = in + (y0 * w + x1) * channels;
      const float *c = in + (y1 * w + x0) * channels, *d = in + (y1 * w + x1) * channels;
      for (int k = 0; k < channels; k++)
        out[k] = (1.0f - fy) * ((1.0f - fx) * a[k] + fx * b[k]) + fy * ((1.0f - fx) * c[k] + fx * d[k]);
    }
}

static void transpose(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2);
  int rows = step[6], columns = step[7];
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) out[c * rows + r] = in[r * columns + c];
}

static void copy(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2);
  for (int r = 0; r < step[6]; r++) __builtin_memcpy(out + r * step[9], in + r * step[8], 4 * step[7]);
}

static void group_norm(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2);
  int pixels = step[6], channels = step[7], groups = step[8], each = channels / groups;
  double n = (double)pixels * each, eps = number(step[9]);
  for (int g = 0; g < groups; g++) {
    double mean = 0.0, spread = 0.0;
    for (int p = 0; p < pixels; p++)
      for (int c = g * each; c < (g + 1) * each; c++) mean += in[p * channels + c];
    mean /= n;
    for (int p = 0; p < pixels; p++)
      for (int c = g * each; c < (g + 1) * each; c++) {
        double away = in[p * channels + c] - mean;
        spread += away * away;
      }
    double scale = 1.0 / __builtin_sqrt(spread / n + eps);
    for (int p = 0; p < pixels; p++)
      for (int c = g * each; c < (g + 1) * each; c++)
        out[p * channels + c] = (float)((in[p * channels + c] - mean) * scale);
  }
}

static void pixel_norm(const int *step) {
  const float *in = at(step, 1);
  float *out = at(step, 2);
  double squares = 0.0;
  for (int i = 0; i < step[6]; i++) squares += (double)in[i] * in[i];
  float scale = (float)(1.0 / __builtin_sqrt(squares / step[6] + number(step[7])));
  for (int i = 0; i < step[6]; i++) out[i] = in[i] * scale;
}

static void lookup(const int *step) {
  const float *in = at(step, 1), *table = at(step, 2);
  float *out = at(step, 3), last = (float)(step[7] - 1);
  for (int i = 0; i < step[6]; i++) {
    float k = __builtin_rintf(in[i]);
    k = k > 0.0f ? (k < last ? k : last) : 0.0f;
    __builtin_memcpy(out + i * step[8], table + (int)k * step[8], 4 * step[8]);
  }
}

EXPORT(run) void run(const int *step, int count) {
  for (; count > 0; count--, step += STEP) switch (step[0]) {
      case CONV: conv(step); break;
      case PAD: pad(step); break;
      case LINEAR: linear(step); break;
      case ACT: act(step); break;
      case AFFINE: affine(step); break;
      case ADD: sum(step); break;
      case ADD_MAP: add_map(step); break;
      case RESIZE: resize(step); break;
      case TRANSPOSE: transpose(step); break;
      case COPY: copy(step); break;
      case GROUP_NORM: group_norm(step); break;
      case PIXEL_NORM: pixel_norm(step); break;
      case LOOKUP: lookup(step); break;
    }
}

// One unit's numbers at every pixel: h factor + offset; every operation of an edit has that form.
EXPORT(edit) void edit(float *state, int pixels, int channels, int unit, float factor, float offset) {
  for (int p = 0; p < pixels; p++) state[p * channels + unit] = state[p * channels + unit] * factor + offset;
}
