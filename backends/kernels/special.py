"""Kernels of labels and random masks, and the elements of one-hot rows."""

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import MemRefType, f32, i32

from niwaki.backends.kernels import masks, random
from niwaki.backends.kernels.alone import spec_alone
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, shape_of


def one_hot(k: KernelBuilder, label: Value, first: Index, lanes: int) -> Value:
    """Elements of a row of `nn.one_hot` from `first` on; zeros for a label outside the row."""
    numbers = random.count_from(k, k.cast(k.index(first), i32), lanes)
    chosen = k.compare(numbers, k.broadcast(k.cast(label, i32), lanes), "eq")
    return k.select(chosen, k.constant(1.0, f32, lanes), k.constant(0.0, f32, lanes))


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
        base = random.step_base(k, k.load(counter, []), seed)
        *outer, columns = shape

        def bits(first: Value, width: int) -> Value:
            """The bits of `width` elements, the first one number `first`."""
            mixed = random.hashes(k, base, first, width)
            if threshold == 0:
                return k.compare(mixed, mixed, "eq")
            return k.compare(k.constant(random.signed(threshold - 1), i32, width), mixed, "ult")

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
