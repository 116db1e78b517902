/* What lies between two convolutions, each in one pass over channels-last memory.
 *
 * Maps are [rows, H, W, C], pooled maps [rows, H/2, W/2, C]; a place is which of a window's four pixels (row by
 * row) is the greatest, the first of equals. The file is compiled once for float and once for bfloat16 maps (it
 * includes itself); sums are of float, row by row, so that they don't depend on who adds them up.
 */

#ifndef T

#include <stdint.h>
#include <string.h>

#include "numbers.h"

/* A diverged network must be seen to have diverged: NaN passes through every kernel as through PyTorch's. */
#if defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__
#error "with -ffinite-math-only (part of -ffast-math) the comparisons that keep NaN are dropped"
#endif

/* Whether `value`, later in its window, takes the place of the greatest so far: as PyTorch has it, NaN is greater
 * than all numbers, and the last NaN is the greatest. Looking for NaN in each comparison costs a tenth of the time,
 * so images are pooled without, and once more with it where a channel's sum, which no NaN leaves a number, is NaN. */
#define BEATS(value, best, careful) ((value) > (best) || ((careful) && (value) != (value)))

static int any_nan(const float *values, long count) {
    int found = 0;
    for (long i = 0; i < count; i++) found |= values[i] != values[i];
    return found;
}

#define T float
#define LOAD load_float
#define STORE store_float
#define NAME(name) name##_float32
#include "kernels.c"
#undef T
#undef LOAD
#undef STORE
#undef NAME
#define T bfloat16
#define LOAD load_bfloat16
#define STORE store_bfloat16
#define NAME(name) name##_bfloat16
#include "kernels.c"

/* x [rows, H, W], padded by one pixel of zeros, to buffer [(H + 2), (W + 2)]. */
static void pad(const float *x, long H, long W, float *buffer) {
    memset(buffer, 0, sizeof(float) * (H + 2) * (W + 2));
    for (long i = 0; i < H; i++) memcpy(buffer + (i + 1) * (W + 2) + 1, x + i * W, sizeof(float) * W);
}

/* Of all 3x3 patches of each image: their sum [rows, 9] and the sum of their outer products [rows, 9, 9]. */
int patch_sums(const float *x, long rows, long H, long W, float *buffer, float *sums, float *products) {
    for (long n = 0; n < rows; n++) {
        pad(x + n * H * W, H, W, buffer);
        for (long a = 0; a < 9; a++) {
            const float *first = buffer + (a / 3) * (W + 2) + a % 3;
            float sum = 0;
            for (long i = 0; i < H; i++)
#pragma GCC ivdep
                for (long j = 0; j < W; j++) sum += first[i * (W + 2) + j];
            sums[n * 9 + a] = sum;
            for (long b = a; b < 9; b++) {
                const float *second = buffer + (b / 3) * (W + 2) + b % 3;
                float product = 0;
                for (long i = 0; i < H; i++)
                    for (long j = 0; j < W; j++) product += first[i * (W + 2) + j] * second[i * (W + 2) + j];
                products[n * 81 + a * 9 + b] = products[n * 81 + b * 9 + a] = product;
            }
        }
    }
    return FINE;
}

#else

/* One image of `pool`. */
ALWAYS_INLINE void NAME(pool_image)(const T *image, long H, long W, long C, const float *k, T *pooled,
                                    uint8_t *places, float *s, float *q, int careful) {
    long h = H / 2, w = W / 2;
    memset(s, 0, sizeof(float) * C);
    memset(q, 0, sizeof(float) * C);
    for (long i = 0; i < h; i++)
        for (long j = 0; j < w; j++) {
            const T *p0 = image + (2 * i * W + 2 * j) * C, *p1 = p0 + C, *p2 = p0 + W * C, *p3 = p2 + C;
            T *out = pooled + (i * w + j) * C;
            uint8_t *place = places + (i * w + j) * C;
#pragma GCC ivdep
            for (long c = 0; c < C; c++) {
                float a = LOAD(p0[c]), b = LOAD(p1[c]), d = LOAD(p2[c]), e = LOAD(p3[c]);
                float best = a;
                int where = 0;
                where = BEATS(b, best, careful) ? 1 : where;
                best = BEATS(b, best, careful) ? b : best;
                where = BEATS(d, best, careful) ? 2 : where;
                best = BEATS(d, best, careful) ? d : best;
                where = BEATS(e, best, careful) ? 3 : where;
                best = BEATS(e, best, careful) ? e : best;
                out[c] = STORE(careful ? plain(best) : best);
                place[c] = (uint8_t)where;
                a -= k[c], b -= k[c], d -= k[c], e -= k[c];
                s[c] += (a + b) + (d + e);
                q[c] += (a * a + b * b) + (d * d + e * e);
            }
        }
    for (long i = 0; i < H; i++)
        for (long j = (i < 2 * h ? 2 * w : 0); j < W; j++) { /* what odd sides leave out of the windows */
            const T *p = image + (i * W + j) * C;
#pragma GCC ivdep
            for (long c = 0; c < C; c++) {
                float a = LOAD(p[c]) - k[c];
                s[c] += a;
                q[c] += a * a;
            }
        }
}

/* pooled, places, and per row the sums [rows, 2, C] of (y - shift) and of its square. The shift, any value of the
 * channel, keeps the square of the mean from cancelling the mean of the squares. */
int NAME(pool)(const T *y, long rows, long H, long W, long C, const T *shift, T *pooled, uint8_t *places,
               float *sums) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    float k[MOST], s[MOST], q[MOST];
    long map = H * W * C, small = (H / 2) * (W / 2) * C;
    for (long c = 0; c < C; c++) k[c] = LOAD(shift[c]);
    for (long n = 0; n < rows; n++, y += map, pooled += small, places += small, sums += 2 * C) {
        NAME(pool_image)(y, H, W, C, k, pooled, places, s, q, 0);
        if (any_nan(s, C)) NAME(pool_image)(y, H, W, C, k, pooled, places, s, q, 1);
        memcpy(sums, s, sizeof(float) * C);
        memcpy(sums + C, q, sizeof(float) * C);
    }
    return FINE;
}

/* grad = grad of pooled where it came from + offset + slope * y, for the rows of one task; of the `counted` first
 * of them the moments are. */
static void NAME(unpool_task)(const T *of_pooled, const uint8_t *places, const T *y, const float *offset,
                              const float *slope, long rows, long counted, long H, long W, long C, T *grad) {
    float d[MOST], k[MOST];
    for (long c = 0; c < C; c++) d[c] = plain(offset[c]), k[c] = plain(slope[c]);
    long h = H / 2, w = W / 2;
    for (long n = 0; n < rows; n++) {
        if (n == counted) memset(d, 0, sizeof(float) * C), memset(k, 0, sizeof(float) * C);
        for (long i = 0; i < h; i++)
            for (long j = 0; j < w; j++) {
                long at = ((n * h + i) * w + j) * C, first = ((n * H + 2 * i) * W + 2 * j) * C;
                const T *g = of_pooled + at;
                const uint8_t *place = places + at;
                for (int p = 0; p < 4; p++) {
                    long to = first + ((p >> 1) * W + (p & 1)) * C;
                    const T *from = y + to;
                    T *out = grad + to;
#pragma GCC ivdep
                    for (long c = 0; c < C; c++)
                        out[c] = STORE(d[c] + k[c] * LOAD(from[c]) + (place[c] == p ? LOAD(g[c]) : 0.0f));
                }
            }
        for (long i = 0; i < H; i++)
            for (long j = (i < 2 * h ? 2 * w : 0); j < W; j++) {
                long to = ((n * H + i) * W + j) * C;
#pragma GCC ivdep
                for (long c = 0; c < C; c++) grad[to + c] = STORE(d[c] + k[c] * LOAD(y[to + c]));
            }
    }
}

int NAME(unpool)(const T *of_pooled, const uint8_t *places, const T *y, const float *offset, const float *slope,
                 long tasks, long rows, long counted, long H, long W, long C, T *grad) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    long maps = rows * H * W * C, pooled = rows * (H / 2) * (W / 2) * C;
    for (long t = 0; t < tasks; t++)
        NAME(unpool_task)(of_pooled + t * pooled, places + t * pooled, y + t * maps, offset + t * C, slope + t * C,
                          rows, counted, H, W, C, grad + t * maps);
    return FINE;
}

/* The entries of u [rows, H, W, C] where the maxima were. */
int NAME(gather)(const T *u, const uint8_t *places, long rows, long H, long W, long C, T *out) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    long h = H / 2, w = W / 2;
    for (long n = 0; n < rows; n++)
        for (long i = 0; i < h; i++)
            for (long j = 0; j < w; j++) {
                long at = ((n * h + i) * w + j) * C;
                const T *p0 = u + ((n * H + 2 * i) * W + 2 * j) * C, *p1 = p0 + C, *p2 = p0 + W * C, *p3 = p2 + C;
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    int k = places[at + c];
                    T low = k & 1 ? p1[c] : p0[c], high = k & 1 ? p3[c] : p2[c];
                    out[at + c] = k & 2 ? high : low;
                }
            }
    return FINE;
}

/* out = relu(gain * x + shift) over pixels [tasks, pixels, C]; gain and shift [tasks, C]. */
int NAME(affine)(const T *x, const float *gain, const float *shift, long tasks, long pixels, long C, T *out) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    float k[MOST], d[MOST];
    for (long t = 0; t < tasks; t++, gain += C, shift += C) {
        for (long c = 0; c < C; c++) k[c] = plain(gain[c]), d[c] = plain(shift[c]);
        for (long i = t * pixels; i < (t + 1) * pixels; i++)
#pragma GCC ivdep
            for (long c = 0; c < C; c++) {
                float value = k[c] * LOAD(x[i * C + c]) + d[c];
                out[i * C + c] = STORE(value < 0 ? 0 : value); /* NaN stays */
            }
    }
    return FINE;
}

/* The gradients of one task's. Sums over 256 pixels are of float, those over all of double. */
ALWAYS_INLINE void NAME(affine_gradient_task)(const T *grad, const T *out, const T *x, const float *gain, long pixels,
                                              long C, T *of_x, double *of_gain, double *of_shift, int careful) {
    float s[MOST], q[MOST];
    for (long first = 0; first < pixels; first += 256) {
        long last = first + 256 < pixels ? first + 256 : pixels;
        memset(s, 0, sizeof(float) * C);
        memset(q, 0, sizeof(float) * C);
        for (long i = first; i < last; i++)
#pragma GCC ivdep
            for (long c = 0; c < C; c++) {
                long at = i * C + c;
                float g = LOAD(out[at]) <= 0 ? 0.0f : LOAD(grad[at]); /* of NaN too */
                of_x[at] = STORE(careful ? plain(g * gain[c]) : g * gain[c]);
                s[c] += g;
                q[c] += g * LOAD(x[at]);
            }
        for (long c = 0; c < C; c++) of_shift[c] += s[c], of_gain[c] += q[c];
    }
}

/* Its gradients; of_gain and of_shift [tasks, C] are sums over the pixels. */
int NAME(affine_gradient)(const T *grad, const T *out, const T *x, const float *gain, long tasks, long pixels,
                          long C, T *of_x, double *of_gain, double *of_shift) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    long size = pixels * C;
    for (long t = 0; t < tasks; t++, grad += size, out += size, x += size, of_x += size) {
        /* a copy of the gain beside the sums, as in `affine`, would cost a tenth of the time here */
        if (any_nan(gain, C))
            NAME(affine_gradient_task)(grad, out, x, gain, pixels, C, of_x, of_gain, of_shift, 1);
        else
            NAME(affine_gradient_task)(grad, out, x, gain, pixels, C, of_x, of_gain, of_shift, 0);
        gain += C, of_gain += C, of_shift += C;
    }
    return FINE;
}

static void pad(const float *x, long H, long W, float *buffer);

/* One image of `stem`, padded. */
ALWAYS_INLINE void NAME(stem_image)(const float *buffer, const float *weight, long H, long W, long C, T *pooled,
                                    uint8_t *places, float *s, float *q, int careful) {
    long h = H / 2, w = W / 2, wide = W + 2;
    memset(s, 0, sizeof(float) * C);
    memset(q, 0, sizeof(float) * C);
    for (long i = 0; i < h; i++)
        for (long j = 0; j < w; j++) {
            float p[16];
            for (int a = 0; a < 4; a++)
                for (int b = 0; b < 4; b++) p[a * 4 + b] = buffer[(2 * i + a) * wide + 2 * j + b];
            T *out = pooled + (i * w + j) * C;
            uint8_t *place = places + (i * w + j) * C;
#pragma GCC ivdep
            for (long c = 0; c < C; c++) {
                float a = 0, b = 0, d = 0, e = 0;
#pragma GCC unroll 9
                for (int k = 0; k < 9; k++) {
                    float v = weight[k * C + c];
                    int at = (k / 3) * 4 + k % 3;
                    a += v * p[at];
                    b += v * p[at + 1];
                    d += v * p[at + 4];
                    e += v * p[at + 5];
                }
                float best = a;
                int where = 0;
                where = BEATS(b, best, careful) ? 1 : where;
                best = BEATS(b, best, careful) ? b : best;
                where = BEATS(d, best, careful) ? 2 : where;
                best = BEATS(d, best, careful) ? d : best;
                where = BEATS(e, best, careful) ? 3 : where;
                best = BEATS(e, best, careful) ? e : best;
                out[c] = STORE(careful ? plain(best) : best);
                place[c] = (uint8_t)where;
                s[c] += (a + b) + (d + e);
                q[c] += (a * a + b * b) + (d * d + e * e);
            }
        }
    for (long i = 0; i < H; i++)
        for (long j = (i < 2 * h ? 2 * w : 0); j < W; j++) {
            const float *p = buffer + i * wide + j;
#pragma GCC ivdep
            for (long c = 0; c < C; c++) {
                float a = 0;
                for (int k = 0; k < 9; k++) a += weight[k * C + c] * p[(k / 3) * wide + k % 3];
                s[c] += a;
                q[c] += a * a;
            }
        }
}

/* A 3x3 convolution of one-channel images x [rows, H, W] by weight [9, C] with `pool`, y never written. */
int NAME(stem)(const float *x, const float *weight, long rows, long H, long W, long C, float *buffer, T *pooled,
               uint8_t *places, float *sums) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    float s[MOST], q[MOST];
    long small = (H / 2) * (W / 2) * C;
    for (long n = 0; n < rows; n++, pooled += small, places += small, sums += 2 * C) {
        pad(x + n * H * W, H, W, buffer);
        NAME(stem_image)(buffer, weight, H, W, C, pooled, places, s, q, 0);
        if (any_nan(s, C)) NAME(stem_image)(buffer, weight, H, W, C, pooled, places, s, q, 1);
        memcpy(sums, s, sizeof(float) * C);
        memcpy(sums + C, q, sizeof(float) * C);
    }
    return FINE;
}

/* The part of the weight's gradient [9, C] (added to) that comes through the pooled maps. */
int NAME(stem_gradient)(const float *x, const T *of_pooled, const uint8_t *places, long rows, long H, long W,
                        long C, float *buffer, float *scratch, double *of_weight) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    long h = H / 2, w = W / 2, wide = W + 2;
    for (long n = 0; n < rows; n++) {
        pad(x + n * H * W, H, W, buffer);
        memset(scratch, 0, sizeof(float) * 9 * C);
        for (long i = 0; i < h; i++)
            for (long j = 0; j < w; j++) {
                float p[16];
                for (int a = 0; a < 4; a++)
                    for (int b = 0; b < 4; b++) p[a * 4 + b] = buffer[(2 * i + a) * wide + 2 * j + b];
                const T *grad = of_pooled + ((n * h + i) * w + j) * C;
                const uint8_t *place = places + ((n * h + i) * w + j) * C;
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    float g = LOAD(grad[c]);
                    int k = place[c];
                    float a = k == 0 ? g : 0.0f, b = k == 1 ? g : 0.0f, d = k == 2 ? g : 0.0f, e = k == 3 ? g : 0.0f;
#pragma GCC unroll 9
                    for (int m = 0; m < 9; m++) {
                        int at = (m / 3) * 4 + m % 3;
                        scratch[m * C + c] += (a * p[at] + b * p[at + 1]) + (d * p[at + 4] + e * p[at + 5]);
                    }
                }
            }
        for (long m = 0; m < 9 * C; m++) of_weight[m] += scratch[m];
    }
    return FINE;
}

#endif
