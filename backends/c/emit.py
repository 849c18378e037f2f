"""C99 text of kernels and of the programs that call them; it is C++ as well."""

from collections.abc import Iterable, Mapping, Sequence

from xdsl.dialects.func import FuncOp

from niwaki.backends.c import vectors
from niwaki.backends.c.aliasing import aliased_arguments
from niwaki.backends.c.emit_kernel import KernelEmitter
from niwaki.backends.c.emit_program import ConstantArray, ProgramEmitter
from niwaki.backends.c.kernel_text import kernel_functions
from niwaki.ir.dialects import plan
from niwaki.ir.lowered import EntryPoint

PRELUDE = """\
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* a * b + c, rounded once where the core has the instruction. */
#ifndef NIWAKI_FMA
#if defined(FP_FAST_FMAF) || defined(__ARM_FEATURE_FMA) || defined(__FMA__)
#if defined(__GNUC__)
#define NIWAKI_FMA(a, b, c) __builtin_fmaf((a), (b), (c))
#else
#define NIWAKI_FMA(a, b, c) fmaf((a), (b), (c))
#endif
#else
#define NIWAKI_FMA(a, b, c) ((a) * (b) + (c))
#endif
#endif

#if defined(__GNUC__)
#define NIWAKI_RESTRICT __restrict
#elif defined(__cplusplus)
#define NIWAKI_RESTRICT
#else
#define NIWAKI_RESTRICT restrict
#endif

static inline int32_t niwaki_min(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static inline int32_t niwaki_max(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

static inline int64_t niwaki_min64(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static inline int64_t niwaki_max64(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline uint32_t niwaki_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float niwaki_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Four bytes as a word, at any alignment. */
static inline uint32_t niwaki_word(const void *bytes)
{
    uint32_t word;
    memcpy(&word, bytes, sizeof word);
    return word;
}

static inline void niwaki_store_word(void *bytes, uint32_t word)
{
    memcpy(bytes, &word, sizeof word);
}

/* Words as two signed halves: bytes 0 and 2 (even) or 1 and 3 (odd) of x, widened and added to the
 * halves of y; two low halves in a word; products of halves, added to a sum. UPPER: the upper word
 * of a product of words, added to a sum. */
#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__thumb__)
#define NIWAKI_PACKED(name, text)                                                               \\
    static inline uint32_t name(uint32_t x, uint32_t y)                                         \\
    {                                                                                           \\
        uint32_t result;                                                                        \\
        __asm__(text : "=r"(result) : "r"(y), "r"(x));                                          \\
        return result;                                                                          \\
    }
#define NIWAKI_PACKED_SUM(name, text)                                                           \\
    static inline uint32_t name(uint32_t x, uint32_t y, uint32_t sum)                           \\
    {                                                                                           \\
        uint32_t result;                                                                        \\
        __asm__(text : "=r"(result) : "r"(x), "r"(y), "r"(sum));                                \\
        return result;                                                                          \\
    }
NIWAKI_PACKED(NIWAKI_EXTEND_EVEN, "sxtab16 %0, %1, %2")
NIWAKI_PACKED(NIWAKI_EXTEND_ODD, "sxtab16 %0, %1, %2, ror #8")
NIWAKI_PACKED_SUM(NIWAKI_MULTIPLY_BOTH, "smlad %0, %1, %2, %3")
NIWAKI_PACKED_SUM(NIWAKI_MULTIPLY_LOW_LOW, "smlabb %0, %1, %2, %3")
NIWAKI_PACKED_SUM(NIWAKI_MULTIPLY_LOW_HIGH, "smlabt %0, %1, %2, %3")
NIWAKI_PACKED_SUM(NIWAKI_MULTIPLY_HIGH_LOW, "smlatb %0, %1, %2, %3")
NIWAKI_PACKED_SUM(NIWAKI_MULTIPLY_HIGH_HIGH, "smlatt %0, %1, %2, %3")
NIWAKI_PACKED_SUM(NIWAKI_MULTIPLY_UPPER, "smmla %0, %1, %2, %3")
NIWAKI_PACKED(NIWAKI_PACK, "pkhbt %0, %2, %1, lsl #16")
/* An i8 that is nearest to x, or to x >> shift (a literal of 1 to 31). */
#define NIWAKI_SATURATE_TEXT(x, text)                                                           \\
    __extension__({                                                                             \\
        uint32_t niwaki_result;                                                                 \\
        __asm__("ssat %0, #8, %1" text : "=r"(niwaki_result) : "r"(x));                         \\
        niwaki_result;                                                                          \\
    })
#define NIWAKI_SATURATE(x) NIWAKI_SATURATE_TEXT((x), "")
#define NIWAKI_SATURATE_SHIFTED(x, shift) NIWAKI_SATURATE_TEXT((x), ", asr #" #shift)
/* Four bytes of w, extended, with the next eight words of x. */
#define NIWAKI_DOTS_OF_FOUR                                                                     \\
    "ldr %6, [%5], #4\\n\\t"                                                                      \\
    "ldmia %4!, {r8-r11}\\n\\t"                                                                   \\
    "sxtb16 %7, %6\\n\\t"                                                                         \\
    "smlad %0, r8, %7, %0\\n\\t"                                                                  \\
    "smlad %1, r9, %7, %1\\n\\t"                                                                  \\
    "smlad %2, r10, %7, %2\\n\\t"                                                                 \\
    "smlad %3, r11, %7, %3\\n\\t"                                                                 \\
    "ldmia %4!, {r8-r11}\\n\\t"                                                                   \\
    "sxtb16 %7, %6, ror #8\\n\\t"                                                                 \\
    "smlad %0, r8, %7, %0\\n\\t"                                                                  \\
    "smlad %1, r9, %7, %1\\n\\t"                                                                  \\
    "smlad %2, r10, %7, %2\\n\\t"                                                                 \\
    "smlad %3, r11, %7, %3\\n\\t"
#define NIWAKI_DOTS_OF_EIGHT NIWAKI_DOTS_OF_FOUR NIWAKI_DOTS_OF_FOUR
#define NIWAKI_DOTS(text)                                                                       \\
    __asm__(text                                                                                \\
            : "+r"(s0), "+r"(s1), "+r"(s2), "+r"(s3), "+r"(x), "+r"(w), "=&r"(four),            \\
              "=&r"(pair)                                                                       \\
            :                                                                                   \\
            : "r8", "r9", "r10", "r11", "memory")

__attribute__((always_inline)) static inline void
niwaki_dots(const uint32_t *x, const uint8_t *w, int32_t fours, uint32_t *sums)
{
    uint32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], four, pair;
    for (; fours >= 4; fours -= 4) {
        NIWAKI_DOTS(NIWAKI_DOTS_OF_EIGHT NIWAKI_DOTS_OF_EIGHT);
    }
    if ((fours & 2) != 0) {
        NIWAKI_DOTS(NIWAKI_DOTS_OF_EIGHT);
    }
    if ((fours & 1) != 0) {
        NIWAKI_DOTS(NIWAKI_DOTS_OF_FOUR);
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}

/* Calls cost few instructions beside the words, but each copy of the loop hundreds of bytes. */
__attribute__((noinline, unused)) static void
niwaki_long_dots(const uint32_t *x, const uint8_t *w, int32_t fours, uint32_t *sums)
{
    niwaki_dots(x, w, fours, sums);
}

/* Two halves of w with the next four words of x. */
#define NIWAKI_DOTS_OF_TWO                                                                      \\
    "ldr %6, [%5], #4\\n\\t"                                                                      \\
    "ldmia %4!, {r8-r11}\\n\\t"                                                                   \\
    "smlad %0, r8, %6, %0\\n\\t"                                                                  \\
    "smlad %1, r9, %6, %1\\n\\t"                                                                  \\
    "smlad %2, r10, %6, %2\\n\\t"                                                                 \\
    "smlad %3, r11, %6, %3\\n\\t"
#define NIWAKI_HALF_DOTS(text)                                                                  \\
    __asm__(text                                                                                \\
            : "+r"(s0), "+r"(s1), "+r"(s2), "+r"(s3), "+r"(x), "+r"(w), "=&r"(two)              \\
            :                                                                                   \\
            : "r8", "r9", "r10", "r11", "memory")

__attribute__((noinline, unused)) static void
niwaki_half_dots(const uint32_t *x, const uint16_t *w, int32_t twos, uint32_t *sums)
{
    uint32_t s0 = sums[0], s1 = sums[1], s2 = sums[2], s3 = sums[3], two;
    for (; twos >= 4; twos -= 4) {
        NIWAKI_HALF_DOTS(
            NIWAKI_DOTS_OF_TWO NIWAKI_DOTS_OF_TWO NIWAKI_DOTS_OF_TWO NIWAKI_DOTS_OF_TWO);
    }
    for (; twos > 0; --twos) {
        NIWAKI_HALF_DOTS(NIWAKI_DOTS_OF_TWO);
    }
    sums[0] = s0;
    sums[1] = s1;
    sums[2] = s2;
    sums[3] = s3;
}
#else
static inline uint32_t niwaki_half(uint32_t word, int shift)
{
    return (uint32_t)(int32_t)(int16_t)(uint16_t)(word >> shift);
}

static inline uint32_t niwaki_extend(uint32_t x, uint32_t y, int shift)
{
    const int32_t first = (int8_t)(uint8_t)(x >> shift);
    const int32_t second = (int8_t)(uint8_t)(x >> (shift + 16));
    return ((y + (uint32_t)first) & 0xffffu) | (((y >> 16) + (uint32_t)second) << 16);
}

#define NIWAKI_EXTEND_EVEN(x, y) niwaki_extend((x), (y), 0)
#define NIWAKI_EXTEND_ODD(x, y) niwaki_extend((x), (y), 8)
#define NIWAKI_PACK(low, high) (((low) & 0xffffu) | ((high) << 16))
#define NIWAKI_MULTIPLY_LOW_LOW(x, y, sum) ((sum) + niwaki_half((x), 0) * niwaki_half((y), 0))
#define NIWAKI_MULTIPLY_LOW_HIGH(x, y, sum) ((sum) + niwaki_half((x), 0) * niwaki_half((y), 16))
#define NIWAKI_MULTIPLY_HIGH_LOW(x, y, sum) ((sum) + niwaki_half((x), 16) * niwaki_half((y), 0))
#define NIWAKI_MULTIPLY_HIGH_HIGH(x, y, sum) ((sum) + niwaki_half((x), 16) * niwaki_half((y), 16))
#define NIWAKI_MULTIPLY_BOTH(x, y, sum) \\
    NIWAKI_MULTIPLY_HIGH_HIGH((x), (y), NIWAKI_MULTIPLY_LOW_LOW((x), (y), (sum)))

static inline void niwaki_dots(const uint32_t *x, const uint8_t *w, int32_t fours, uint32_t *sums)
{
    for (; fours > 0; --fours) {
        const uint32_t four = niwaki_word(w);
        for (int odd = 0; odd < 2; ++odd) {
            const uint32_t pair = niwaki_extend(four, 0u, 8 * odd);
            for (int row = 0; row < 4; ++row) {
                sums[row] = NIWAKI_MULTIPLY_BOTH(*x, pair, sums[row]);
                ++x;
            }
        }
        w += 4;
    }
}

#define niwaki_long_dots niwaki_dots

static inline void
niwaki_half_dots(const uint32_t *x, const uint16_t *w, int32_t twos, uint32_t *sums)
{
    for (; twos > 0; --twos) {
        const uint32_t pair = niwaki_word(w);
        for (int row = 0; row < 4; ++row) {
            sums[row] = NIWAKI_MULTIPLY_BOTH(*x, pair, sums[row]);
            ++x;
        }
        w += 2;
    }
}

static inline int32_t niwaki_saturate(int32_t x)
{
    return niwaki_max(niwaki_min(x, 127), -128);
}

#define NIWAKI_SATURATE(x) ((uint32_t)niwaki_saturate((int32_t)(x)))
#define NIWAKI_SATURATE_SHIFTED(x, shift) NIWAKI_SATURATE((int32_t)(x) >> (shift))

static inline uint32_t niwaki_multiply_upper(uint32_t x, uint32_t y, uint32_t sum)
{
    const int64_t product = (int64_t)(int32_t)x * (int64_t)(int32_t)y;
    return sum + (uint32_t)((uint64_t)product >> 32);
}

#define NIWAKI_MULTIPLY_UPPER(x, y, sum) niwaki_multiply_upper((x), (y), (sum))
#endif
"""

_ROW_DOTS = """\
/* Dot products of bytes, and of halves. */
static inline uint32_t niwaki_row_dot(const uint8_t *x, const uint8_t *w, int32_t length)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < length; ++i) {
        sum += (int8_t)x[i] * (int8_t)w[i];
    }
    return (uint32_t)sum;
}

static inline uint32_t niwaki_half_row_dot(const uint16_t *x, const uint16_t *w, int32_t length)
{
    int32_t sum = 0;
    for (int32_t i = 0; i < length; ++i) {
        sum += (int16_t)x[i] * (int16_t)w[i];
    }
    return (uint32_t)sum;
}
"""


def emit_module(
    kernels: Iterable[FuncOp],
    programs: Sequence[plan.ProgramOp],
    entries: Mapping[str, EntryPoint],
    constants: Sequence[ConstantArray] = (),
    shared: bool = False,
    vectorized: bool = False,
) -> str:
    """C text: a static function `kernel_<name>` for each kernel, `run_<name>` for each program.

    `run_<name>` takes arena, state, inputs, outputs as in `entries[name]`; `constants` is in order
    of offset. `shared`: kernels that differ only in numbers become one function, with these as
    arguments. `vectorized`: vectors of kernels are those of Helium. Raises DoesNotFitError if a
    buffer is too large for 32-bit indices.
    """
    texts = [KernelEmitter(kernel, vectorized).text() for kernel in kernels]
    functions, calls = kernel_functions(texts, aliased_arguments(programs), shared)
    runs = (
        ProgramEmitter(program, entries[program.sym_name.data], constants, calls).text()
        for program in programs
    )
    return "\n".join([PRELUDE, vectors.PRELUDE if vectorized else _ROW_DOTS, *functions, *runs])
