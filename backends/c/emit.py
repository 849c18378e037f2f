"""C99 text of kernels and of the programs that call them; it is C++ as well."""

from collections.abc import Iterable, Mapping, Sequence

from xdsl.dialects.func import FuncOp

from niwaki.backends.c.aliasing import aliased_arguments
from niwaki.backends.c.emit_kernel import KernelEmitter
from niwaki.backends.c.emit_program import ConstantArray, ProgramEmitter
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
"""


def emit_module(
    kernels: Iterable[FuncOp],
    programs: Sequence[plan.ProgramOp],
    entries: Mapping[str, EntryPoint],
    constants: Sequence[ConstantArray] = (),
) -> str:
    """C text: a static function `kernel_<name>` for each kernel, `run_<name>` for each program.

    `run_<name>` takes arena, state, inputs, outputs as in `entries[name]`; `constants` is in order
    of offset. Raises DoesNotFitError if a buffer is too large for 32-bit indices.
    """
    aliased = aliased_arguments(programs)
    texts = [PRELUDE]
    parameters: dict[str, list[str]] = {}
    for function in kernels:
        name = function.sym_name.data
        called = name in aliased
        emitter = KernelEmitter(function, aliased[name] if called else None)
        texts.append(emitter.text())
        parameters[name] = emitter.parameter_types
    for program in programs:
        entry = entries[program.sym_name.data]
        texts.append(ProgramEmitter(program, entry, constants, parameters).text())
    return "\n".join(texts)
