"""bf16, whose bits are stored as i16, and i8 in kernels: conversions from and to f32."""

from collections.abc import Sequence

from xdsl.dialects.builtin import bf16, f32, i8, i16, i32
from xdsl.ir import Attribute

from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.ir.dialects.kernel import element_of

_LARGEST = 127.0
_ROUND = 1.5 * 2**23
"""Adding this to a float leaves its nearest integer in the low bits."""
_QUIET = 0x400000
"""The bit that every nan of arithmetic has."""


def load(k: KernelBuilder, ref: Value, indices: Sequence[Index], lanes: int = 1) -> Value:
    """`lanes` elements of `ref`, stored as f32, i16 (bf16) or i8, as f32."""
    return widen(k, k.load(ref, indices, lanes))


def widen(k: KernelBuilder, x: Value) -> Value:
    """Stored elements as f32, exactly; f32 as it is."""
    if element_of(x.type) != i16:
        return k.cast(x, f32)
    bits = k.cast(x, i32)
    return k.bitcast(k.shift_left(bits, k.constant(16, i32, k.lanes(x))), f32)


def narrow(k: KernelBuilder, x: Value, element: Attribute) -> Value:
    """f32 rounded to bf16 (as i16) or i8, as `nn.narrow` says."""
    return _to_bf16(k, x) if element == bf16 else _to_i8(k, x)


def _to_bf16(k: KernelBuilder, x: Value) -> Value:
    """The upper half of the bits, after adding just less than half of its last one."""
    lanes = k.lanes(x)
    bits, half = k.bitcast(x, i32), k.constant(16, i32, lanes)
    odd = k.bit_and(k.shift_right(bits, half), k.constant(1, i32, lanes))
    rounded = k.add(k.add(bits, k.constant(0x7FFF, i32, lanes)), odd)
    nan = k.bit_or(bits, k.constant(_QUIET, i32, lanes))
    return k.cast(k.shift_right(k.select(k.compare(x, x, "oeq"), rounded, nan), half), i16)


def _to_i8(k: KernelBuilder, x: Value) -> Value:
    lanes = k.lanes(x)
    at_least = k.max(x, k.constant(-_LARGEST, f32, lanes))
    inside = k.min(at_least, k.constant(_LARGEST, f32, lanes))
    shifted = k.add(inside, k.constant(_ROUND, f32, lanes))
    return k.cast(k.bitcast(shifted, i32), i8)
