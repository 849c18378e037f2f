"""Vectors of four 32-bit lanes as C has them on cores with Helium (`arm_mve.h`).

A vector of 4 n lanes is n registers. Narrow integers lie in 32-bit lanes, widened as they are
loaded, so that they are stored and extended without another instruction; masks are predicates.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from xdsl.dialects import arith, math, vector
from xdsl.dialects.builtin import Float32Type, IntegerType, VectorType
from xdsl.ir import Attribute, Operation, SSAValue

from niwaki.backends.kernels.builder import KernelBuilder
from niwaki.ir.dialects import kernel
from niwaki.ir.dialects.kernel import element_of

LANES = 4
PRELUDE = r"""#include <arm_mve.h>

/* The predicate of four lanes for four bits. */
static inline mve_pred16_t niwaki_predicate(uint32_t bits)
{
    const uint32_t apart = (bits & 1u) | (bits & 2u) << 3 | (bits & 4u) << 6 | (bits & 8u) << 9;
    return (mve_pred16_t)(apart * 15u);
}

/* Dot products of a row with four rows that are `stride` elements apart. Up to 64 bytes are spelled
 * out: the last 16 lie across the end of a row, where those of x that were counted are 0. Rows of
 * fewer than 16 bytes may be read as 16 if they are as far apart. */
#define NIWAKI_ROWS_OF_16(loaded, at)                                                           \
    do {                                                                                        \
        const int8x16_t niwaki_x = (loaded);                                                    \
        s0 = vmladavaq_s8(s0, niwaki_x, vldrbq_s8(w0 + (at)));                                  \
        s1 = vmladavaq_s8(s1, niwaki_x, vldrbq_s8(w1 + (at)));                                  \
        s2 = vmladavaq_s8(s2, niwaki_x, vldrbq_s8(w2 + (at)));                                  \
        s3 = vmladavaq_s8(s3, niwaki_x, vldrbq_s8(w3 + (at)));                                  \
    } while (0)
#define NIWAKI_FIRST_ROWS(loaded, load_w)                                                       \
    do {                                                                                        \
        const int8x16_t niwaki_x = (loaded);                                                    \
        s0 = vmladavq_s8(niwaki_x, load_w(w0));                                                 \
        s1 = vmladavq_s8(niwaki_x, load_w(w1));                                                 \
        s2 = vmladavq_s8(niwaki_x, load_w(w2));                                                 \
        s3 = vmladavq_s8(niwaki_x, load_w(w3));                                                 \
    } while (0)
#define NIWAKI_LOAD_SOME(w) vldrbq_z_s8((w), some)
#define NIWAKI_ROW_LOOP(bits, load)                                                             \
    do {                                                                                        \
        register int32_t r4 __asm__("r4") = 0, r6 __asm__("r6") = 0, r8 __asm__("r8") = 0;      \
        register int32_t r10 __asm__("r10") = 0, count __asm__("lr") = length;                  \
        __asm__("dlstp." bits " lr, lr\n"                                                       \
                ".Lniwaki%=:\n\t" load " q0, [%5], #16\n\t" load " q1, [%6], #16\n\t"           \
                "vmladava.s" bits " %0, q0, q1\n\t" load " q2, [%7], #16\n\t"                   \
                "vmladava.s" bits " %1, q0, q2\n\t" load " q1, [%8], #16\n\t"                   \
                "vmladava.s" bits " %2, q0, q1\n\t" load " q2, [%9], #16\n\t"                   \
                "vmladava.s" bits " %3, q0, q2\n\tletp lr, .Lniwaki%="                          \
                : "+r"(r4), "+r"(r6), "+r"(r8), "+r"(r10), "+r"(count), "+r"(x0), "+r"(w0),     \
                  "+r"(w1), "+r"(w2), "+r"(w3)                                                  \
                :                                                                               \
                : "q0", "q1", "q2", "memory");                                                  \
        s0 = r4;                                                                                \
        s1 = r6;                                                                                \
        s2 = r8;                                                                                \
        s3 = r10;                                                                               \
    } while (0)

__attribute__((always_inline)) static inline int32x4_t
niwaki_sums(int32_t s0, int32_t s1, int32_t s2, int32_t s3)
{
    int32x4_t sums;
    __asm__("vmov %e0, %1, %2\n\tvmov %f0, %3, %4"
            : "=&w"(sums)
            : "r"(s0), "r"(s1), "r"(s2), "r"(s3));
    return sums;
}

__attribute__((always_inline)) static inline int32x4_t
niwaki_row_dots(const uint8_t *x, const uint8_t *w, int32_t stride, int32_t length)
{
    const int8_t *x0 = (const int8_t *)x, *w0 = (const int8_t *)w;
    const int8_t *w1 = w0 + stride, *w2 = w1 + stride, *w3 = w2 + stride;
    int32_t s0, s1, s2, s3;
    if (length > 64) {
        NIWAKI_ROW_LOOP("8", "vldrb.u8");
    } else if (length < 16) {
        const mve_pred16_t some = vctp8q((uint32_t)length);
        if (stride >= 16) {
            NIWAKI_FIRST_ROWS(vldrbq_z_s8(x0, some), vldrbq_s8);
        } else {
            NIWAKI_FIRST_ROWS(vldrbq_z_s8(x0, some), NIWAKI_LOAD_SOME);
        }
    } else {
        const mve_pred16_t last = vpnot(vctp8q((uint32_t)(16 - (length & 15))));
        NIWAKI_FIRST_ROWS(vldrbq_s8(x0), vldrbq_s8);
        if (length >= 32) {
            NIWAKI_ROWS_OF_16(vldrbq_s8(x0 + 16), 16);
        }
        if (length >= 48) {
            NIWAKI_ROWS_OF_16(vldrbq_s8(x0 + 32), 32);
        }
        if (length == 64) {
            NIWAKI_ROWS_OF_16(vldrbq_s8(x0 + 48), 48);
        } else if ((length & 15) != 0) {
            NIWAKI_ROWS_OF_16(vldrbq_z_s8(x0 + (length - 16), last), length - 16);
        }
    }
    return niwaki_sums(s0, s1, s2, s3);
}

__attribute__((always_inline)) static inline int32x4_t
niwaki_half_row_dots(const uint16_t *x, const uint16_t *w, int32_t stride, int32_t length)
{
    const uint16_t *x0 = x, *w0 = w, *w1 = w0 + stride, *w2 = w1 + stride, *w3 = w2 + stride;
    int32_t s0, s1, s2, s3;
    NIWAKI_ROW_LOOP("16", "vldrh.u16");
    return niwaki_sums(s0, s1, s2, s3);
}

/* Dot products of four rows of bytes with as many; they are long by whole registers. */
__attribute__((always_inline)) static inline int32_t
niwaki_pair(const int8_t *x, const int8_t *w, int32_t length)
{
    int32_t sum = vmladavq_s8(vldrbq_s8(x), vldrbq_s8(w));
    _Pragma("GCC unroll 8") for (int32_t i = 16; i < length; i += 16)
    {
        sum = vmladavaq_s8(sum, vldrbq_s8(x + i), vldrbq_s8(w + i));
    }
    return sum;
}

__attribute__((always_inline)) static inline int32x4_t niwaki_paired_dots(
    const uint8_t *xs, int32_t x_stride, const uint8_t *ws, int32_t w_stride, int32_t length)
{
    const int8_t *x = (const int8_t *)xs, *w = (const int8_t *)ws;
    return niwaki_sums(
        niwaki_pair(x, w, length), niwaki_pair(x + x_stride, w + w_stride, length),
        niwaki_pair(x + 2 * x_stride, w + 2 * w_stride, length),
        niwaki_pair(x + 3 * x_stride, w + 3 * w_stride, length));
}
"""
_BOTH: Mapping[type[Operation], str] = MappingProxyType(
    {
        arith.AddiOp: "vaddq{n}_s32({}, {})",
        arith.SubiOp: "vsubq{n}_s32({}, {})",
        arith.MuliOp: "vmulq{n}_s32({}, {})",
        arith.AndIOp: "vandq_s32({}, {})",
        arith.OrIOp: "vorrq_s32({}, {})",
        arith.XOrIOp: "veorq_s32({}, {})",
        arith.MinSIOp: "vminq_s32({}, {})",
        arith.MaxSIOp: "vmaxq_s32({}, {})",
        arith.AddfOp: "vaddq{n}_f32({}, {})",
        arith.SubfOp: "vsubq{n}_f32({}, {})",
        arith.MulfOp: "vmulq{n}_f32({}, {})",
    }
)
"""Of two vectors of i32 or f32; {n}: where the second operand may be a scalar."""
_SPREADABLE = frozenset(
    {arith.AddiOp, arith.SubiOp, arith.MuliOp, arith.MulfOp, arith.AddfOp, arith.SubfOp}
)
_ONE: Mapping[type[Operation], str] = MappingProxyType(
    {
        arith.NegfOp: "vnegq_f32({})",
        math.AbsFOp: "vabsq_f32({})",
        math.RoundEvenOp: "vrndnq_f32({})",
    }
)
_COMPARISONS: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "eq": ("eq", False), "ne": ("ne", False), "slt": ("lt", False), "sle": ("le", False),
        "sgt": ("gt", False), "sge": ("ge", False), "oeq": ("eq", False), "ogt": ("gt", False),
        "oge": ("ge", False), "olt": ("gt", True), "ole": ("ge", True),
    }
)  # fmt: skip
"""Predicate -> condition, and whether the operands change places (a number that is none is less
than any to the core)."""
_LOADS = MappingProxyType(
    {
        8: "vldrbq_s32((const int8_t *)&{})",
        16: "vldrhq_s32((const int16_t *)&{})",
        32: "vldrwq_s32((const int32_t *)&{})",
    }
)
_STORES = MappingProxyType(
    {
        8: "vstrbq_s32((int8_t *)&{}, {});",
        16: "vstrhq_s32((int16_t *)&{}, {});",
        32: "vstrwq_s32((int32_t *)&{}, {});",
    }
)

_LETTERS = MappingProxyType({8: "b", 16: "h"})


def registers(kind: Attribute) -> int:
    """How many registers a value of this type takes; 0: it is spelled out lane by lane."""
    if not isinstance(kind, VectorType) or kind.get_shape()[0] % LANES:
        return 0
    element = kind.element_type
    fits = isinstance(element, IntegerType) and element.width.data <= 32
    return kind.get_shape()[0] // LANES if fits or isinstance(element, Float32Type) else 0


def c_type(element: Attribute) -> str:
    """Of one register."""
    if isinstance(element, Float32Type):
        return "float32x4_t"
    return "mve_pred16_t" if _bits(element) == 1 else "int32x4_t"


def lanes_of(element: Attribute, register: str) -> tuple[str, ...]:
    """The scalars in a register, as kernels have them: without sign."""
    if isinstance(element, Float32Type):
        return tuple(f"vgetq_lane_f32({register}, {n})" for n in range(LANES))
    if _bits(element) == 1:
        return tuple(f"(int)(({register} >> {LANES * n}) & 1u)" for n in range(LANES))
    ctype = f"uint{_bits(element)}_t"
    return tuple(f"({ctype})vgetq_lane_s32({register}, {n})" for n in range(LANES))


def of_lanes(element: Attribute, lanes: Sequence[str]) -> str:
    """A register of four scalars."""
    if _bits(element) == 1:
        bits = " | ".join(f"({lane} * 0x{15 << LANES * n:x})" for n, lane in enumerate(lanes))
        return f"(mve_pred16_t)({bits})"
    suffix, cast = ("f32", "") if isinstance(element, Float32Type) else ("s32", "(int32_t)")
    if 1 < _bits(element) < 32:
        cast = f"(int{_bits(element)}_t)"
    text = f"vdupq_n_{suffix}({cast}{lanes[0]})"
    if all(lane == lanes[0] for lane in lanes):
        return text
    for n, lane in enumerate(lanes[1:], 1):
        text = f"vsetq_lane_{suffix}({cast}{lane}, {text}, {n})"
    return text


def load(element: Attribute, place: str) -> str:
    """A register of what lies from the lvalue `place` on."""
    if isinstance(element, Float32Type):
        return f"vldrwq_f32(&{place})"
    return _LOADS[_bits(element)].format(place)


def store(element: Attribute, place: str, register: str) -> str:
    """The statement that stores a register from the lvalue `place` on."""
    if isinstance(element, Float32Type):
        return f"vstrwq_f32(&{place}, {register});"
    return _STORES[_bits(element)].format(place, register)


def load_apart(element: Attribute, place: str, stride: int) -> str:
    """A register of what lies `stride` elements apart from the lvalue `place` on."""
    bits = _bits(element)
    name = f"vldr{_LETTERS[bits]}q_gather_offset_s32"
    return f"{name}((const int{bits}_t *)&{place}, {_offsets(stride * bits // 8)})"


def store_apart(element: Attribute, place: str, register: str, stride: int) -> str:
    """The statement that stores the lanes `stride` elements apart from the lvalue `place` on."""
    bits = _bits(element)
    name = f"vstr{_LETTERS[bits]}q_scatter_offset_s32"
    return f"{name}((int{bits}_t *)&{place}, {_offsets(stride * bits // 8)}, {register});"


def _offsets(step: int) -> str:
    """0, `step`, 2 `step`, 3 `step`, in bytes."""
    return f"vmulq_n_u32(vidupq_n_u32(0, 1), {step})"


Registers = Callable[[SSAValue], Sequence[str]]
"""The registers of a value, as expressions."""


def expressions(
    op: Operation, of: Registers, scalar: Callable[[SSAValue], str]
) -> list[str] | None:
    """The registers of the result of `op`; None where its lanes must be spelled out.

    `scalar` gives the expression of a value that is spread over all lanes.
    """
    if len(op.results) != 1 or not all(registers(v.type) for v in (*op.operands, *op.results)):
        return None
    product = next((v.owner for v in op.operands if joins_sum(v.owner)), None)
    if isinstance(op, arith.AddiOp) and isinstance(product, arith.MuliOp):
        rest = op.lhs if op.rhs is product.result else op.rhs
        factor = _spread(product.rhs, scalar) or _spread(product.lhs, scalar)
        x = product.lhs if isinstance(product.rhs.owner, vector.BroadcastOp) else product.rhs
        pairs = zip(of(rest), of(x), strict=True)
        return [f"vmlaq_n_s32({total}, {register}, {factor})" for total, register in pairs]
    template = _template(op, scalar)
    if template is None:
        return None
    return [template.format(*texts) for texts in zip(*map(of, op.operands), strict=True)]


def joins_sum(op: object) -> bool:
    """Whether this product with a scalar is one instruction with the sum that comes next."""
    return (
        isinstance(op, arith.MuliOp)
        and registers(op.result.type) > 0
        and _bits(element_of(op.result.type)) == 32
        and any(isinstance(v.owner, vector.BroadcastOp) for v in op.operands)
        and op.result.has_one_use()
        and isinstance(op.next_op, arith.AddiOp)
        and op.result in op.next_op.operands
    )


def _template(op: Operation, scalar: Callable[[SSAValue], str]) -> str | None:
    """The format of one register's operands."""
    kind = type(op)
    element = element_of(op.operands[0].type)
    if kind in _BOTH:
        return _of_two(op, element, scalar)
    if kind in _ONE:
        return _ONE[kind]
    match op:
        case arith.ShLIOp() | arith.ShRSIOp() | arith.ShRUIOp():
            return _shift(op, element)
        case kernel.CompareOp():
            return _comparison(op, element, scalar)
        case kernel.SelectOp():
            suffix = {"float32x4_t": "f32", "int32x4_t": "s32"}.get(c_type(element_of(op.a.type)))
            return None if suffix is None else f"vpselq_{suffix}({{1}}, {{2}}, {{0}})"
        case kernel.CastOp():
            return _cast(element, element_of(op.result.type))
        case kernel.ExtendOp():
            return _extension(op, element)
        case kernel.MultiplyHighOp():
            spread = _spread(op.sum, scalar)
            product = "vmulhq_s32({0}, {1})"
            return f"vaddq_n_s32({product}, {spread})" if spread else f"vaddq_s32({product}, {{2}})"
        case vector.FMAOp():
            spread = _spread(op.lhs, scalar)
            return f"vfmaq_n_f32({{2}}, {{1}}, {spread})" if spread else "vfmaq_f32({2}, {0}, {1})"
        case vector.BitcastOp():
            return _bitcast(element, element_of(op.result.type))
        case _:
            return None


def _of_two(op: Operation, element: Attribute, scalar: Callable[[SSAValue], str]) -> str | None:
    bits = _bits(element)
    if isinstance(op, arith.AndIOp) and bits == 1:
        return "(mve_pred16_t)({} & {})"
    if bits not in (0, 32):
        return None
    text = _BOTH[type(op)]
    if "{n}" not in text:
        return text
    spread = _spread(op.operands[1], scalar)
    if spread is None:
        return text.replace("{n}", "")
    return text.replace("{n}", "_n").replace("{}, {}", f"{{0}}, {spread}")


def _spread(value: SSAValue, scalar: Callable[[SSAValue], str]) -> str | None:
    """The scalar that is in all lanes, as C takes it."""
    if not isinstance(value.owner, vector.BroadcastOp):
        return None
    text = scalar(value.owner.source)
    return text if isinstance(element_of(value.type), Float32Type) else f"(int32_t){text}"


def _shift(op: Operation, element: Attribute) -> str | None:
    amount = KernelBuilder.known(op.operands[1])
    if _bits(element) != 32 or amount is None or not 0 < amount < 32:
        return None
    if isinstance(op, arith.ShLIOp):
        return f"vshlq_n_s32({{0}}, {amount})"
    if isinstance(op, arith.ShRSIOp):
        return f"vshrq_n_s32({{0}}, {amount})"
    return f"vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32({{0}}), {amount}))"


def _comparison(
    op: kernel.CompareOp, element: Attribute, scalar: Callable[[SSAValue], str]
) -> str | None:
    known = _COMPARISONS.get(op.predicate.data)
    if known is None or _bits(element) not in (0, 32):
        return None
    condition, swapped = known
    suffix = "f32" if isinstance(element, Float32Type) else "s32"
    if swapped:
        return f"vcmp{condition}q_{suffix}({{1}}, {{0}})"
    # GCC 12 has an internal error on equality with a constant scalar.
    spread = None if condition in ("eq", "ne") else _spread(op.rhs, scalar)
    if spread is None:
        return f"vcmp{condition}q_{suffix}({{0}}, {{1}})"
    return f"vcmp{condition}q_n_{suffix}({{0}}, {spread})"


def _cast(source: Attribute, result: Attribute) -> str | None:
    """Narrower integers stay in their lanes."""
    if isinstance(source, Float32Type):
        return "vcvtq_s32_f32({0})" if _bits(result) == 32 else None
    if isinstance(result, Float32Type):
        return "vcvtq_f32_s32({0})" if _bits(source) == 32 else None
    return "{0}" if 1 < _bits(result) < _bits(source) else None


def _extension(op: kernel.ExtendOp, source: Attribute) -> str | None:
    if isinstance(op.x.owner, vector.LoadOp | kernel.LoadApartOp):
        return "{0}"
    if _bits(source) == 16:
        return "vmovlbq_s16(vreinterpretq_s16_s32({0}))"
    return "vmovlbq_s16(vmovlbq_s8(vreinterpretq_s8_s32({0})))" if _bits(source) == 8 else None


def _bitcast(source: Attribute, result: Attribute) -> str | None:
    if isinstance(result, Float32Type):
        return "vreinterpretq_f32_s32({0})"
    return "vreinterpretq_s32_f32({0})" if isinstance(source, Float32Type) else None


def byte_of(masks: Sequence[str]) -> str:
    """The bits of two predicates, the first one's lowest, as a byte."""
    low, high = (f"((uint32_t){m} & 0x8421u) * 0x1111u" for m in masks)
    return f"(uint8_t)((({low}) >> 12 & 15u) | (({high}) >> 8 & 240u))"


def masks_of(byte: str) -> list[str]:
    """The two predicates of a byte's bits."""
    return [f"niwaki_predicate({byte})", f"niwaki_predicate((uint32_t){byte} >> 4)"]


def _bits(element: Attribute) -> int:
    """Of an integer; 0 for a float."""
    return element.width.data if isinstance(element, IntegerType) else 0
