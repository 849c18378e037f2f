"""Kernels of labels and random masks."""

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import MemRefType, f32, i32

from niwaki.backends.kernels import masks
from niwaki.backends.kernels.alone import spec_alone
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, shape_of

_MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
_SHIFTS = (16, 15, 16)


def one_hot(
    op: nn.OneHotOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.one_hot`; a label outside [0, depth) gives a row of zeros."""

    def emit(k: KernelBuilder) -> None:
        labels, y = k.args
        *outer, depth = shape_of(op.y)

        def row(place: list[Index]) -> None:
            label = k.cast(k.load(labels, place), i32)

            def block(start: Index, lanes: int) -> None:
                numbers = _count_from(k, k.cast(k.index(start), i32), lanes)
                chosen = k.compare(numbers, k.broadcast(label, lanes), "eq")
                one, zero = k.constant(1.0, f32, lanes), k.constant(0.0, f32, lanes)
                k.store(k.select(chosen, one, zero), y, [*place, start])

            each_block(k, depth, target.lanes, block)

        k.nest(outer, row)

    return spec_alone(operands, results, emit)


def count_correct(
    op: nn.CountCorrectOp,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> KernelSpec:
    """The kernel of `nn.count_correct`."""

    def emit(k: KernelBuilder) -> None:
        logits, labels, y = k.args
        rows, columns = shape_of(op.logits)
        zero, one = k.constant(0, i32), k.constant(1, i32)

        def row(n: Value, carried: Sequence[Value]) -> Sequence[Value]:
            def larger(c: Value, best: Sequence[Value]) -> Sequence[Value]:
                value = k.load(logits, [n, c])
                better = k.compare(value, best[0], "ogt")
                where = k.select(better, k.cast(c, i32), best[1])
                return [k.select(better, value, best[0]), where]

            _, found = k.loop(1, columns, 1, larger, [k.load(logits, [n, 0]), zero])
            correct = k.compare(found, k.load(labels, [n]), "eq")
            return [k.add(carried[0], k.select(correct, one, zero))]

        (count,) = k.loop(0, rows, 1, row, [zero])
        k.store(count, y, [])

    return spec_alone(operands, results, emit)


def random_mask(
    op: nn.RandomMaskOp,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> KernelSpec:
    """The kernel of `nn.random_mask`; the first operand gives its shape only."""
    shape = shape_of(op.mask) or (1,)
    threshold = math.ceil(op.rate.value.data * 2**32)
    seed = get_int(op.properties, "seed")
    lanes = max(target.lanes, 8) if target.lanes > 1 else 1

    def emit(k: KernelBuilder) -> None:
        _, counter, mask = k.args
        step = _lowbias32(k, k.load(counter, []))
        base = _lowbias32(k, k.bit_xor(k.constant(_signed(seed), i32), step))
        *outer, columns = shape

        def bits(first: Value, width: int) -> Value:
            """The bits of `width` elements, the first one number `first`."""
            mixed = _lowbias32(k, _count_from(k, k.add(base, first), width))
            if threshold == 0:
                return k.compare(mixed, mixed, "eq")
            return k.compare(k.constant(_signed(threshold - 1), i32, width), mixed, "ult")

        def row(place: list[Index]) -> None:
            number: Index = 0
            for index, size in zip(place, outer, strict=True):
                number = k.iadd(k.imul(number, size), index)
            start = k.imul(number, columns)

            def block(column: Index, width: int) -> None:
                first = k.cast(k.index(k.iadd(start, column)), i32)
                masks.store(k, bits(first, width), mask, [*place, column])

            def byte(column: Index, width: int) -> None:
                first = k.cast(k.index(k.iadd(start, column)), i32)
                numbers = [k.add(first, k.constant(i, i32)) for i in range(width)]
                values = [bits(n, 1) for n in numbers]
                masks.store_byte(k, values, mask, [*place, column])

            if lanes > 1:
                each_block(k, columns, lanes, block)
            else:
                masks.each_byte(k, columns, byte)

        k.nest(outer, row)

    return spec_alone(operands, results, emit)


def _count_from(k: KernelBuilder, first: Value, lanes: int) -> Value:
    """first, first + 1, ... as i32."""
    if lanes == 1:
        return first
    steps = k.from_elements([k.constant(i, i32) for i in range(lanes)])
    return k.add(k.broadcast(first, lanes), steps)


def _lowbias32(k: KernelBuilder, x: Value) -> Value:
    """The 32-bit mixer of `nn.random_mask`."""
    lanes = k.lanes(x)
    for shift, multiplier in zip(_SHIFTS, (*_MULTIPLIERS, None), strict=True):
        x = k.bit_xor(x, k.shift_right(x, k.constant(shift, i32, lanes)))
        if multiplier is not None:
            x = k.mul(x, k.constant(_signed(multiplier), i32, lanes))
    return x


def _signed(value: int) -> int:
    """The i32 with the low 32 bits of `value`."""
    return (value + 2**31) % 2**32 - 2**31
