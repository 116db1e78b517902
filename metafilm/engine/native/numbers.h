/* What all kernels share: numbers in and out of memory, NaN, and what they take. */

#ifndef METAFILM_NUMBERS
#define METAFILM_NUMBERS

#include <stdint.h>
#include <string.h>

/* Channels a kernel takes: its sums lie on the stack, where more would run over. functions.py offers it no wider
 * maps; each function checks all the same, since what follows from a mistake there is not an error but a crash. */
#define MOST 2048
enum { FINE = 0, TOO_WIDE = 1 };

/* `careful` is a constant to its callers: inlined, each has its own loop. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

typedef uint16_t bfloat16;

static inline float load_bfloat16(bfloat16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, 4);
    return result;
}

/* To nearest, ties to even. Of NaN only where the mantissa's lower half is zero, as in every bfloat16 and in what the
 * processor itself makes; a full one would be rounded up over its sign, to a zero. Arithmetic hands on a NaN's
 * mantissa, so it is the floats that come in which are looked at, by `plain`: a few per channel instead
 * of each result. */
static inline bfloat16 store_bfloat16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bfloat16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

static inline float load_float(float value) { return value; }
static inline float store_float(float value) { return value; }

static inline float plain(float value) { return value != value ? __builtin_nanf("") : value; }

#endif
