"""Masks in memory: bits, each row of the last dimension from a new byte on, lowest bit first."""

from collections.abc import Callable, Sequence

from xdsl.dialects.builtin import VectorType, i8
from xdsl.ir import Attribute

from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.ir.dialects.tensor_op import i1


def is_mask(value: Value) -> bool:
    """Whether a scalar or vector consists of i1."""
    kind: Attribute = value.type
    return (kind.element_type if isinstance(kind, VectorType) else kind) == i1


def load(k: KernelBuilder, ref: Value, indices: Sequence[Index], lanes: int) -> Value:
    """`lanes` bits from the element `indices` on; `lanes` is 1, 2, 4 or a multiple of 8.

    The element's column is a multiple of min(lanes, 8).
    """
    place, column = _byte(k, indices)
    if lanes % 8 == 0:
        return k.unpack_bits(k.load_vector(ref, place, lanes // 8))
    byte = k.shift_right(k.load(ref, place), _shift(k, column))
    if lanes == 1:
        return k.cast(byte, i1)
    shifts = k.from_elements([k.constant(i, i8) for i in range(lanes)])
    return k.cast(k.shift_right(k.broadcast(byte, lanes), shifts), i1)


def store(k: KernelBuilder, mask: Value, ref: Value, indices: Sequence[Index]) -> None:
    """Stores the bits of `mask` from the element `indices` on; constraints as for `load`."""
    place, column = _byte(k, indices)
    lanes = k.lanes(mask)
    if lanes % 8 == 0:
        k.store(k.pack_bits(mask), ref, place)
        return
    shift = _shift(k, column)
    bits = _collect(k, [k.extract(mask, i) for i in range(lanes)])
    others = k.bit_xor(k.shift_left(k.constant((1 << lanes) - 1, i8), shift), k.constant(-1, i8))
    kept = k.bit_and(k.load(ref, place), others)
    k.store(k.bit_or(kept, k.shift_left(bits, shift)), ref, place)


def shift_in(k: KernelBuilder, bit: Value, ref: Value, indices: Sequence[Index]) -> None:
    """Stores the bit of the element `indices` where those of a whole byte follow one another.

    Each one pushes the others down: behind the last one all are in their places.
    """
    place, _ = _byte(k, indices)
    others = k.shift_right(k.load(ref, place), k.constant(1, i8))
    k.store(k.select(bit, k.bit_or(others, k.constant(-128, i8)), others), ref, place)


def store_byte(
    k: KernelBuilder, bits: Sequence[Value], ref: Value, indices: Sequence[Index]
) -> None:
    """Stores up to 8 scalar bits as the byte that begins with the element `indices`."""
    k.store(_collect(k, bits), ref, _byte(k, indices)[0])


def each_byte(k: KernelBuilder, size: int, body: Callable[[Index, int], None]) -> None:
    """body(start, bits) for each byte of a row of `size` bits."""
    whole = size // 8 * 8
    if whole:
        k.each(0, whole, 8, lambda start: body(start, 8))
    if size % 8:
        body(whole, size % 8)


def _collect(k: KernelBuilder, bits: Sequence[Value]) -> Value:
    result = k.cast(bits[0], i8)
    for i, bit in enumerate(bits[1:], 1):
        result = k.bit_or(result, k.shift_left(k.cast(bit, i8), k.constant(i, i8)))
    return result


def _byte(k: KernelBuilder, indices: Sequence[Index]) -> tuple[list[Index], Index]:
    """(indices of the byte, column of the bit)."""
    if not indices:
        return [0], 0
    return [*indices[:-1], k.idiv(indices[-1], 8)], indices[-1]


def _shift(k: KernelBuilder, column: Index) -> Value:
    within = k.imod(column, 8)
    return k.constant(within, i8) if isinstance(within, int) else k.cast(within, i8)
