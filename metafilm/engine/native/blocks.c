/* A frozen inverted residual block and its gradient. The expanded maps are six times as wide as what comes in and goes
 * out: they are made a few images and a slab of features at a time, stay in the cache and are never kept.
 *
 *     y1 = x w1,  a1 = clamp(k1 y1 + d1)      a 1x1 convolution; without `expand` a1 = x
 *     y2 = depthwise(a1),  a2 = clamp(k2 y2 + d2)
 *     y3 = a2 w3,  out = k3 y3 + d3 (+ x)     a 1x1 convolution
 *
 * The affines k, d are the norms' own with the task's FiLM in them; the weights are constants. Maps are [rows, H, W, C]
 * of float or bfloat16 (the file is compiled once for each, as kernels.c); all arithmetic is of float. Inside, channels
 * are padded with zeros to whole vectors, and a slab of L of them is [pixels, L].
 */

#ifndef T

#include <stdint.h>
#include <string.h>

#include "numbers.h"

#if defined(__AVX512F__)
#define LANES 16
#define ROWS 8 /* of a tile of the matrix product: ROWS x WIDE sums fill the registers */
#else
#define LANES 8
#define ROWS 4
#endif
#define WIDE 3 /* vectors */
#define SLAB (WIDE * LANES)
#define MOST_WINDOWS 6

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t mask __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

struct block {
    long H, W, C, E, h, w, O;           /* maps that come in, features inside, maps that go out */
    long side, stride, top, left;       /* of the depthwise convolution; the padding before it */
    long expand, skip;                  /* whether there is a first 1x1 convolution; whether x is added */
    long at_once;                       /* images that go together */
    float low1, high1, low2, high2;     /* the activations */
};

/* Channels to a vector, of which weights and affines have whole ones. */
int lanes(void) { return LANES; }

static long padded(long channels) { return (channels + LANES - 1) / LANES * LANES; }

/* sum (+)= a [rows, K] b [K, vecs], with constant rows and vecs. */
ALWAYS_INLINE void accumulate(const float *a, long lda, const float *b, long K, vector sum[ROWS][WIDE], int rows,
                              int vecs) {
    for (long k = 0; k < K; k++, b += vecs * LANES) {
        vector v[WIDE];
#pragma GCC unroll 3
        for (int j = 0; j < vecs; j++) v[j] = *(const vector *)(b + j * LANES);
#pragma GCC unroll 8
        for (int i = 0; i < rows; i++) {
            float s = a[i * lda + k];
#pragma GCC unroll 3
            for (int j = 0; j < vecs; j++) sum[i][j] += s * v[j];
        }
    }
}

/* c [rows, vecs] (+)= a [rows, K] b [K, vecs], with constant rows, vecs and more. */
ALWAYS_INLINE void tile(const float *a, long lda, const float *b, long K, float *c, long ldc, int rows, int vecs,
                        int more) {
    vector sum[ROWS][WIDE];
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vecs; j++) sum[i][j] = more ? *(const vector *)(c + i * ldc + j * LANES) : (vector){0};
    accumulate(a, lda, b, K, sum, rows, vecs);
#pragma GCC unroll 8
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
        for (int j = 0; j < vecs; j++) *(vector *)(c + i * ldc + j * LANES) = sum[i][j];
}

ALWAYS_INLINE void tiles(const float *a, long lda, const float *b, long M, long K, float *c, long ldc, int vecs,
                         int more) {
    long i = 0;
    for (; i + ROWS <= M; i += ROWS) tile(a + i * lda, lda, b, K, c + i * ldc, ldc, ROWS, vecs, more);
    for (; i + 2 <= M; i += 2) tile(a + i * lda, lda, b, K, c + i * ldc, ldc, 2, vecs, more);
    for (; i < M; i++) tile(a + i * lda, lda, b, K, c + i * ldc, ldc, 1, vecs, more);
}

/* One panel: c [M, L] = a [M, K] b [K, L], L at most WIDE vectors. */
static void panel(const float *a, long lda, const float *b, long M, long K, long L, float *c, long ldc) {
    if (L == 3 * LANES) tiles(a, lda, b, M, K, c, ldc, 3, 0);
    else if (L == 2 * LANES) tiles(a, lda, b, M, K, c, ldc, 2, 0);
    else tiles(a, lda, b, M, K, c, ldc, 1, 0);
}

static void panel_more(const float *a, long lda, const float *b, long M, long K, long L, float *c, long ldc) {
    if (L == 3 * LANES) tiles(a, lda, b, M, K, c, ldc, 3, 1);
    else if (L == 2 * LANES) tiles(a, lda, b, M, K, c, ldc, 2, 1);
    else tiles(a, lda, b, M, K, c, ldc, 1, 1);
}

/* c [M, N] (+)= a [M, K] b [K, N], N whole vectors; b in panels. */
static void multiply(const float *a, const float *b, long M, long K, long N, float *c, int more) {
    for (long n = 0; n < N; n += SLAB, b += SLAB * K) {
        long L = N - n < SLAB ? N - n : SLAB;
        if (more) panel_more(a, K, b, M, K, L, c + n, N);
        else panel(a, K, b, M, K, L, c + n, N);
    }
}

/* As PyTorch's hardtanh: NaN stays. */
ALWAYS_INLINE float clamp(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

ALWAYS_INLINE vector either(mask which, vector yes, vector no) {
    return (vector)((which & (mask)yes) | (~which & (mask)no));
}

ALWAYS_INLINE vector clamped(vector value, vector low, vector high) {
    value = either(value < low, low, value);
    return either(value > high, high, value);
}

/* A row of pixels through a panel: c [M, L] = a b where it is wanted, and its clamped affine to `to`; M in whole tiles. */
ALWAYS_INLINE void clamped_tiles(const float *a, long K, const float *b, long M, float *c, float *to, const float *k,
                                 const float *d, vector low, vector high, int vecs) {
    for (long i = 0; i < M; i += ROWS) {
        vector sum[ROWS][WIDE];
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
            for (int j = 0; j < vecs; j++) sum[r][j] = (vector){0};
        accumulate(a + i * K, K, b, K, sum, ROWS, vecs);
#pragma GCC unroll 8
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 3
            for (int j = 0; j < vecs; j++) {
                long at = ((i + r) * vecs + j) * LANES;
                if (c) *(vector *)(c + at) = sum[r][j];
                vector z = *(const vector *)(k + j * LANES) * sum[r][j] + *(const vector *)(d + j * LANES);
                *(vector *)(to + at) = clamped(z, low, high);
            }
    }
}

static void clamped_panel(const float *a, long K, const float *b, long M, long L, float *c, float *to, const float *k,
                          const float *d, vector low, vector high) {
    if (L == 3 * LANES) clamped_tiles(a, K, b, M, c, to, k, d, low, high, 3);
    else if (L == 2 * LANES) clamped_tiles(a, K, b, M, c, to, k, d, low, high, 2);
    else clamped_tiles(a, K, b, M, c, to, k, d, low, high, 1);
}

/* What a sweep does with the sums of its windows: it clamps their affine; takes them for y of a clamped affine whose
 * gradient is `other`, and writes y's gradient; or takes them for that gradient, and `other` for y. */
enum { CLAMPED, VALUES, GRADIENTS };

typedef struct {
    const float *k, *d; /* the affine, [L] */
    float low, high;
    const float *other; /* [h, w, L] */
    float *out;         /* [h, across, L] */
    long across;
    float *of_k, *of_d; /* [L], added to */
} ending;

typedef struct {
    vector k, d, low, high, s, q;
} line;

ALWAYS_INLINE void finish(vector found, const ending *e, line *now, long at, long to, int mode) {
    if (mode == CLAMPED) found = clamped(now->k * found + now->d, now->low, now->high);
    if (mode == VALUES || mode == GRADIENTS) {
        vector other = *(const vector *)(e->other + at);
        vector y = mode == VALUES ? found : other, g = mode == VALUES ? other : found;
        vector z = now->k * y + now->d;
        g = either((z <= now->low) | (z >= now->high), (vector){0}, g);
        now->s += g;
        now->q += g * y;
        found = now->k * g;
    }
    *(vector *)(e->out + to) = found;
}

/* `count` windows beside each other, of high x long taps; constants all but image, weights and where they go. Taps are
 * `down` and `right` apart in the weights, windows `step` pixels in what they make. */
ALWAYS_INLINE void windows(const float *image, long wide, const float *weight, long down, long right, long L,
                           const ending *e, line *now, long at, long to, int high, int along, int stride, int step,
                           int count, int mode) {
    vector sum[MOST_WINDOWS];
#pragma GCC unroll 8
    for (int j = 0; j < count; j++) sum[j] = (vector){0};
    for (int i = 0; i < high; i++, image += wide * L, weight += down) {
        vector w[5];
#pragma GCC unroll 5
        for (int t = 0; t < along; t++) w[t] = *(const vector *)(weight + t * right);
#pragma GCC unroll 16
        for (int p = 0; p < (count - 1) * stride + along; p++) {
            vector v = *(const vector *)(image + p * L);
#pragma GCC unroll 5
            for (int t = 0; t < along; t++)
                if (p >= t && (p - t) % stride == 0 && (p - t) / stride < count) sum[(p - t) / stride] += w[t] * v;
        }
    }
#pragma GCC unroll 8
    for (int j = 0; j < count; j++) finish(sum[j], e, now, at + j * step * L, to + j * step * L, mode);
}

/* A row of w of them. */
ALWAYS_INLINE void row(const float *image, long wide, const float *weight, long down, long right, long L,
                       const ending *e, line *now, long at, long to, long w, int high, int along, int stride, int step,
                       int mode) {
    long j = 0;
#define WINDOWS(count)                                                                                               \
    for (; j + count <= w; j += count)                                                                               \
        windows(image + j * stride * L, wide, weight, down, right, L, e, now, at + j * step * L, to + j * step * L,  \
                high, along, stride, step, count, mode);
    WINDOWS(6)
    WINDOWS(3)
    WINDOWS(1)
}

/* A vector's own part of the ending, and its sums at the end. */
static line begun(const ending *e, long c) {
    return (line){*(const vector *)(e->k + c), *(const vector *)(e->d + c), e->low - (vector){0},
                  e->high - (vector){0},       {0},                         {0}};
}

static void ended(const ending *e, long c, vector s, vector q) {
    *(vector *)(e->of_d + c) += s;
    *(vector *)(e->of_k + c) += q;
}

/* A depthwise convolution of one image [.., wide, L] by weight [side * side, L] to [h, w, L], vector by vector. */
ALWAYS_INLINE void sweep(const float *image, long wide, const float *weight, long h, long w, long L, ending e,
                         int side, int stride, int mode) {
    for (long c = 0; c < L; c += LANES) {
        line now = begun(&e, c);
        vector s = {0}, q = {0};
        for (long i = 0; i < h; i++) {
            now.s = now.q = (vector){0}; /* sums of sums: a float loses less of them */
            row(image + i * stride * wide * L + c, wide, weight + c, side * L, L, L, &e, &now, i * w * L + c,
                i * e.across * L + c, w, side, side, stride, 1, mode);
            s += now.s, q += now.q;
        }
        if (mode != CLAMPED) ended(&e, c, s, q);
    }
}

#define SWEEP(mode)                                                                                                   \
    static void sweep_##mode(const float *image, long wide, const float *weight, long h, long w, long L, ending e,    \
                             long side, long stride) {                                                                \
        if (side == 3 && stride == 1) sweep(image, wide, weight, h, w, L, e, 3, 1, mode);                             \
        else if (side == 3) sweep(image, wide, weight, h, w, L, e, 3, 2, mode);                                       \
        else if (stride == 1) sweep(image, wide, weight, h, w, L, e, 5, 1, mode);                                     \
        else sweep(image, wide, weight, h, w, L, e, 5, 2, mode);                                                      \
    }
SWEEP(CLAMPED)
SWEEP(VALUES)

/* The gradient's sweep of a convolution of stride 1: over the gradient, padded by side - 1 less the padding before, with
 * the taps in reverse order. */
static void back(const float *around, long wide, const float *turned, long H, long W, long L, ending e, long side) {
    if (side == 3) sweep(around, wide, turned, H, W, L, e, 3, 1, GRADIENTS);
    else sweep(around, wide, turned, H, W, L, e, 5, 1, GRADIENTS);
}

/* Of one of stride 2: an even pixel of the padded image meets every other tap of the gradient's pixels around it, an odd
 * one the others. `around` is padded by side / 2 before. */
ALWAYS_INLINE void back_by_two(const float *around, long wide, const float *turned, long H, long W, long L, ending e,
                               long top, long left, int side) {
    for (long c = 0; c < L; c += LANES) {
        line now = begun(&e, c);
        vector s = {0}, q = {0};
        for (long i = 0; i < H; i++) {
            now.s = now.q = (vector){0};
            for (long odd = 0; odd < 2; odd++) {
                long j = (odd + left) % 2, count = (W - j + 1) / 2, tall = (i + top) % 2;
                long high = (side + 1) / 2 - tall, along = (side + 1) / 2 - odd;
                const float *from = around + (((i + top) / 2 - high + 1 + side / 2) * wide + (j + left) / 2 - along + 1 +
                                              side / 2) * L + c;
                /* the last of its taps is the first of the reverse order */
                const float *weight = turned + ((side - 1 - tall - 2 * (high - 1)) * side + side - 1 - odd - 2 * (along - 1)) * L + c;
                long at = (i * W + j) * L + c;
#define ROW(high, along) row(from, wide, weight, 2 * side * L, 2 * L, L, &e, &now, at, at, count, high, along, 1, 2, GRADIENTS)
                if (!tall && !odd) ROW((side + 1) / 2, (side + 1) / 2);
                else if (!tall) ROW((side + 1) / 2, side / 2);
                else if (!odd) ROW(side / 2, (side + 1) / 2);
                else ROW(side / 2, side / 2);
            }
            s += now.s, q += now.q;
        }
        ended(&e, c, s, q);
    }
}

/* The side of the image that all windows reach, padding included. */
static long reach(long outputs, long stride, long side) { return (outputs - 1) * stride + side; }

/* Sides of the padded gradient that a sweep back reads, by H or W, the padding before and h or w. */
static long around_side(long size, long before, long outputs, long stride, long side) {
    if (stride == 1) return reach(outputs, 1, side);
    long last = (size - 1 + before) / 2 + 1;
    return side / 2 + (last > outputs ? last : outputs);
}

/* Numbers of float that m images take inside; `backwards` for the gradient. */
static long needed(const struct block *b, long m, int backwards) {
    long pixels = b->H * b->W, small = b->h * b->w;
    long area = reach(b->h, b->stride, b->side) * reach(b->w, b->stride, b->side);
    long inside = SLAB * (pixels + area + small), ends = pixels * b->C + small * padded(b->O);
    if (backwards) {
        inside += SLAB * around_side(b->H, b->top, b->h, b->stride, b->side) *
                  around_side(b->W, b->left, b->w, b->stride, b->side);
        ends += pixels * padded(b->C);
    }
    return m * (inside + ends);
}

/* Scratch for `room` images at a time; as many as fit in `bytes`, but one at least and `each` at most. */
long block_scratch(struct block *b, long each, long bytes, int backwards) {
    long fits = bytes / (long)(sizeof(float) * needed(b, 1, backwards));
    b->at_once = fits < 1 ? 1 : fits > each ? each : fits;
    return needed(b, b->at_once, backwards);
}

#define T float
#define LOAD load_float
#define STORE store_float
#define NAME(name) name##_float32
#include "blocks.c"
#undef T
#undef LOAD
#undef STORE
#undef NAME
#define T bfloat16
#define LOAD load_bfloat16
#define STORE store_bfloat16
#define NAME(name) name##_bfloat16
#include "blocks.c"

#else

/* x [pixels, C] as floats: in `room`, unless it is so already. */
ALWAYS_INLINE const float *NAME(floats)(const T *x, long count, float *room) {
    if (sizeof(T) == sizeof(float)) return (const float *)x;
    for (long i = 0; i < count; i++) room[i] = LOAD(x[i]);
    return room;
}

/* A slab, from channel e, of the depthwise convolution's padded images [m, high, wide, L], and of y1 [m, H, W, L] if it is
 * to be kept. */
static void NAME(expanded)(const struct block *b, const float *x, long m, const float *w1, const float *k1,
                           const float *d1, long e, long L, int fresh, int keep, float *y1,
                           float *image) {
    long high = reach(b->h, b->stride, b->side), wide = reach(b->w, b->stride, b->side), pixels = b->H * b->W;
    int by_rows = b->expand && b->W % ROWS == 0 && b->W + b->left <= wide && b->H + b->top <= high;
    if (b->expand && !by_rows) panel(x, b->C, w1 + e * b->C, m * pixels, b->C, L, y1, L);
    if (fresh) memset(image, 0, sizeof(float) * m * high * wide * L); /* the pixels inside are written each time */
    long rows = b->H + b->top < high ? b->H : high - b->top, columns = b->W + b->left < wide ? b->W : wide - b->left;
    long real = b->E - e < L ? b->E - e : L;
    vector low = b->low1 - (vector){0}, top = b->high1 - (vector){0};
    if (by_rows) { /* in one pass */
        for (long n = 0; n < m; n++)
            for (long i = 0; i < b->H; i++) {
                long at = (n * b->H + i) * b->W;
                clamped_panel(x + at * b->C, b->C, w1 + e * b->C, b->W, L, keep ? y1 + at * L : 0,
                              image + ((n * high + i + b->top) * wide + b->left) * L, k1 + e, d1 + e, low, top);
            }
        return;
    }
    for (long n = 0; n < m; n++)
        for (long i = 0; i < rows; i++)
            for (long j = 0; j < columns; j++) {
                float *to = image + ((n * high + i + b->top) * wide + j + b->left) * L;
                long at = (n * b->H + i) * b->W + j;
                if (b->expand)
                    for (long c = 0; c < L; c += LANES) {
                        vector y = *(const vector *)(y1 + at * L + c);
                        y = *(const vector *)(k1 + e + c) * y + *(const vector *)(d1 + e + c);
                        *(vector *)(to + c) = clamped(y, low, top);
                    }
                else
                    memcpy(to, x + at * b->C + e, sizeof(float) * real);
            }
}

/* The block of `rows` images, the first of which is number `first` of a batch whose tasks have `each` images.
 * Affines [tasks, padded channels]; out and y3 [rows, h, w, O]. */
int NAME(block)(const struct block *b, const T *x, const float *w1, const float *k1, const float *d1, const float *wd,
                const float *k2, const float *d2, const float *w3, const float *k3, const float *d3, long first,
                long rows, long each, float *scratch, T *y3, T *out) {
    long E = padded(b->E), O = padded(b->O), C = b->C, pixels = b->H * b->W, small = b->h * b->w;
    if (E > MOST || O > MOST || C > MOST) return TOO_WIDE;
    long wide = reach(b->w, b->stride, b->side), area = reach(b->h, b->stride, b->side) * wide;
    float *y1 = scratch, *image = y1 + b->at_once * SLAB * pixels, *a2 = image + b->at_once * SLAB * area;
    float *product = a2 + b->at_once * SLAB * small, *as_floats = product + b->at_once * small * O;
    for (long n = 0; n < rows;) {
        long task = (first + n) / each, m = (task + 1) * each - (first + n);
        if (m > rows - n) m = rows - n;
        if (m > b->at_once) m = b->at_once;
        const T *from = x + n * pixels * C;
        const float *values = NAME(floats)(from, m * pixels * C, as_floats);
        for (long e = 0; e < E; e += SLAB) {
            long L = E - e < SLAB ? E - e : SLAB;
            NAME(expanded)(b, values, m, w1, k1 + task * E, d1 + task * E, e, L, !e || L < SLAB, 0, y1, image);
            ending end = {k2 + task * E + e, d2 + task * E + e, b->low2, b->high2, 0, 0, b->w, 0, 0};
            for (long i = 0; i < m; i++) {
                end.out = a2 + i * small * L;
                sweep_CLAMPED(image + i * area * L, wide, wd + e * b->side * b->side, b->h, b->w, L, end, b->side,
                              b->stride);
            }
            multiply(a2, w3 + e * O, m * small, L, O, product, e > 0);
        }
        const float *gain = k3 + task * O, *shift = d3 + task * O;
        for (long i = 0; i < m * small; i++)
#pragma GCC ivdep
            for (long c = 0; c < b->O; c++) {
                long at = (n * small + i) * b->O + c;
                T kept = STORE(product[i * O + c]);
                float value = gain[c] * LOAD(kept) + shift[c];
                y3[at] = kept;
                out[at] = STORE(b->skip ? value + LOAD(from[i * C + c]) : value);
            }
        n += m;
    }
    return FINE;
}

/* The gradients: of_x [rows, H, W, C]; added to, the affines' [tasks, padded channels]. w1t and w3t are the weights
 * transposed, and `turned` is wd with its taps in reverse order. */
int NAME(block_gradient)(const struct block *b, const T *grad, const T *x, const T *y3, const float *w1,
                         const float *w1t, const float *k1, const float *d1, const float *wd, const float *turned,
                         const float *k2, const float *d2, const float *w3t, const float *k3, long first, long rows,
                         long each, float *scratch, T *of_x, double *of_k1, double *of_d1, double *of_k2,
                         double *of_d2, double *of_k3, double *of_d3) {
    long E = padded(b->E), O = b->O, C = b->C, wide_c = padded(C), taps = b->side * b->side;
    long pixels = b->H * b->W, small = b->h * b->w, high = reach(b->h, b->stride, b->side);
    long wide = reach(b->w, b->stride, b->side), area = high * wide;
    if (E > MOST || O > MOST || C > MOST) return TOO_WIDE;
    long by_two = b->stride == 2, before_it = by_two ? b->side / 2 : b->side - 1;
    long broad = around_side(b->W, b->left, b->w, b->stride, b->side);
    long whole = around_side(b->H, b->top, b->h, b->stride, b->side) * broad;
    long inset = (before_it - (by_two ? 0 : b->top)) * broad + before_it - (by_two ? 0 : b->left);
    /* the gradient of y1 takes its place */
    float *y1 = scratch, *image = y1 + b->at_once * SLAB * pixels, *g2 = image + b->at_once * SLAB * area;
    float *around = g2 + b->at_once * SLAB * small, *g3 = around + b->at_once * SLAB * whole;
    float *product = g3 + b->at_once * small * padded(O), *as_floats = product + b->at_once * pixels * wide_c;
    float ones[SLAB], zeros[SLAB] = {0};
    for (long c = 0; c < SLAB; c++) ones[c] = 1;
    float s[MOST], q[MOST];
    for (long n = 0; n < rows;) {
        long task = (first + n) / each, m = (task + 1) * each - (first + n);
        if (m > rows - n) m = rows - n;
        if (m > b->at_once) m = b->at_once;
        const float *values = NAME(floats)(x + n * pixels * C, m * pixels * C, as_floats);
        const float *gain = k3 + task * padded(O);
        for (long begin = 0; begin < m * small; begin += 256) {
            long end = begin + 256 < m * small ? begin + 256 : m * small;
            memset(s, 0, sizeof(float) * O);
            memset(q, 0, sizeof(float) * O);
            for (long i = begin; i < end; i++)
#pragma GCC ivdep
                for (long c = 0; c < O; c++) {
                    float g = LOAD(grad[(n * small + i) * O + c]);
                    s[c] += g;
                    q[c] += g * LOAD(y3[(n * small + i) * O + c]);
                    g3[i * O + c] = g * gain[c];
                }
            for (long c = 0; c < O; c++) of_d3[task * padded(O) + c] += s[c], of_k3[task * padded(O) + c] += q[c];
        }
        T *to = of_x + n * pixels * C;
        const T *beside = b->skip ? grad + n * small * O : 0;
        for (long e = 0; e < E; e += SLAB) {
            long L = E - e < SLAB ? E - e : SLAB, at = task * E + e;
            int fresh = !e || L < SLAB;
            NAME(expanded)(b, values, m, w1, k1 + task * E, d1 + task * E, e, L, fresh, 1, y1, image);
            if (!b->expand) memset(y1, 0, sizeof(float) * m * pixels * L); /* no values: any number will do */
            panel(g3, O, w3t + e * O, m * small, O, L, g2, L);
            if (fresh) memset(around, 0, sizeof(float) * m * whole * L);
            float sums[4 * SLAB] = {0};
            ending second = {k2 + at, d2 + at, b->low2, b->high2, 0, 0, broad, sums, sums + SLAB};
            ending before = {ones, zeros, -__builtin_inff(), __builtin_inff(), 0, 0, b->W, sums + 2 * SLAB, sums + 3 * SLAB};
            if (b->expand) before.k = k1 + at, before.d = d1 + at, before.low = b->low1, before.high = b->high1;
            for (long i = 0; i < m; i++) {
                float *mine = around + i * whole * L;
                second.other = g2 + i * small * L, second.out = mine + inset * L;
                sweep_VALUES(image + i * area * L, wide, wd + e * taps, b->h, b->w, L, second, b->side, b->stride);
                before.other = before.out = y1 + i * pixels * L;
                const float *weight = turned + e * taps;
                if (!by_two) back(mine, broad, weight, b->H, b->W, L, before, b->side);
                else if (b->side == 3) back_by_two(mine, broad, weight, b->H, b->W, L, before, b->top, b->left, 3);
                else back_by_two(mine, broad, weight, b->H, b->W, L, before, b->top, b->left, 5);
            }
            for (long c = 0; c < L; c++) {
                of_k2[at + c] += sums[c], of_d2[at + c] += sums[SLAB + c];
                if (b->expand) of_k1[at + c] += sums[2 * SLAB + c], of_d1[at + c] += sums[3 * SLAB + c];
            }
            if (b->expand) multiply(y1, w1t + e * wide_c, m * pixels, L, wide_c, product, e > 0);
            else
                for (long i = 0; i < m * pixels; i++)
                    for (long c = 0; c < L && e + c < C; c++) {
                        float value = y1[i * L + c];
                        to[i * C + e + c] = STORE(beside ? value + LOAD(beside[i * C + e + c]) : value);
                    }
        }
        if (b->expand)
            for (long i = 0; i < m * pixels; i++)
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    float value = product[i * wide_c + c];
                    to[i * C + c] = STORE(beside ? value + LOAD(beside[i * C + c]) : value);
                }
        n += m;
    }
    return FINE;
}

/* out = clamp(k x + d) over pixels [tasks, pixels, C]; k and d [tasks, C]. */
int NAME(norm_act)(const T *x, const float *k, const float *d, float low, float high, long tasks, long pixels, long C,
                   T *out) {
    for (long t = 0; t < tasks; t++, k += C, d += C)
        for (long i = t * pixels; i < (t + 1) * pixels; i++)
#pragma GCC ivdep
            for (long c = 0; c < C; c++) out[i * C + c] = STORE(clamp(k[c] * LOAD(x[i * C + c]) + d[c], low, high));
    return FINE;
}

/* Its gradients; of_k and of_d [tasks, C] are added to. */
int NAME(norm_act_gradient)(const T *grad, const T *x, const float *k, const float *d, float low, float high,
                            long tasks, long pixels, long C, T *of_x, double *of_k, double *of_d) {
    if (C < 1 || C > MOST) return TOO_WIDE;
    float s[MOST], q[MOST];
    for (long t = 0; t < tasks; t++, k += C, d += C, of_k += C, of_d += C)
        for (long first = t * pixels; first < (t + 1) * pixels; first += 256) {
            long last = first + 256 < (t + 1) * pixels ? first + 256 : (t + 1) * pixels;
            memset(s, 0, sizeof(float) * C);
            memset(q, 0, sizeof(float) * C);
            for (long i = first; i < last; i++)
#pragma GCC ivdep
                for (long c = 0; c < C; c++) {
                    float value = LOAD(x[i * C + c]), z = k[c] * value + d[c];
                    float g = (z <= low) | (z >= high) ? 0.0f : LOAD(grad[i * C + c]);
                    s[c] += g;
                    q[c] += g * value;
                    of_x[i * C + c] = STORE(k[c] * g);
                }
            for (long c = 0; c < C; c++) of_d[c] += s[c], of_k[c] += q[c];
        }
    return FINE;
}

#endif
