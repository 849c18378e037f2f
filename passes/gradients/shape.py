"""Gradient rules of reductions and of operations that move elements."""

import math
from collections.abc import Mapping, Sequence

from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, get_ints, shape_of, type_of
from niwaki.passes.gradients.rule import Cotangents, Rule, sum_to


def _reduce_sum(b: Builder, op: nn.ReduceSumOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [b.broadcast(g, shape_of(op.x))]


def _reduce_mean(
    b: Builder, op: nn.ReduceMeanOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    count = math.prod(shape_of(op.x)) / math.prod(shape_of(op.y))
    return [b.broadcast(b.scale(g, 1.0 / count), shape_of(op.x))]


def _reduce_max(b: Builder, op: nn.ReduceMaxOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    largest = b.compare(op.x, op.y, "eq")
    count = b.reduce_sum(b.cast(largest, type_of(g).element_type), get_ints(op.properties, "axes"))
    return [b.select(largest, b.div(g, count), b.number(0.0, g))]


def _reshape(b: Builder, op: nn.ReshapeOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [b.reshape(g, shape_of(op.x))]


def _broadcast(b: Builder, op: nn.BroadcastOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [sum_to(b, g, shape_of(op.x))]


def _transpose(b: Builder, op: nn.TransposeOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    permutation = get_ints(op.properties, "permutation")
    return [b.transpose(g, [permutation.index(i) for i in range(len(permutation))])]


def _pad(b: Builder, op: nn.PadOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    steps = [i + 1 for i in get_ints(op.properties, "interior")]
    return [b.slice(g, get_ints(op.properties, "low"), shape_of(op.x), steps)]


def _slice(b: Builder, op: nn.SliceOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    starts, sizes, steps = (get_ints(op.properties, k) for k in ("starts", "sizes", "steps"))
    high = [
        size - (start + (count - 1) * step + 1)
        for size, start, count, step in zip(shape_of(op.x), starts, sizes, steps, strict=True)
    ]
    return [b.pad(g, starts, high, [step - 1 for step in steps])]


def _concat(b: Builder, op: nn.ConcatOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    axis = get_int(op.properties, "axis")
    starts = [0] * len(shape_of(g))
    result: list[SSAValue | None] = []
    for operand, wanted in zip(op.operands, needed, strict=True):
        sizes = shape_of(operand)
        result.append(b.slice(g, starts, sizes) if wanted else None)
        starts[axis] += sizes[axis]
    return result


def _gather(b: Builder, op: nn.GatherOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [b.scatter_add(g, op.indices, shape_of(op.table)[0]), None]


def _scatter_add(
    b: Builder, op: nn.ScatterAddOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    return [b.gather(g, op.indices), None]


RULES: Mapping[type[Operation], Rule] = {
    nn.ReduceSumOp: _reduce_sum,
    nn.ReduceMeanOp: _reduce_mean,
    nn.ReduceMaxOp: _reduce_max,
    nn.ReshapeOp: _reshape,
    nn.BroadcastOp: _broadcast,
    nn.TransposeOp: _transpose,
    nn.PadOp: _pad,
    nn.SliceOp: _slice,
    nn.ConcatOp: _concat,
    nn.GatherOp: _gather,
    nn.ScatterAddOp: _scatter_add,
}
