"""Local simplifications of elementwise operations, none of which changes a result or a gradient.

A rule returns the value that replaces the operation's result, or None. It inserts new operations
through the builder, which carries the location of the old one.
"""

import math
from collections.abc import Callable

from xdsl.ir import Operation, OpResult, SSAValue

from niwaki.ir.builder import Builder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import broadcast_shapes, f32, shape_of, type_of


def _producer(value: SSAValue) -> Operation | None:
    return value.op if isinstance(value, OpResult) else None


def _splat(value: SSAValue) -> float | int | None:
    """The number that fills `value`, if it is a constant."""
    producer = _producer(value)
    return producer.value.value.data if isinstance(producer, nn.ConstantOp) else None


def _like(op: nn.Elementwise, value: Value, b: Builder) -> Value:
    """`value` under the shape of the result of `op`."""
    return b.broadcast(value, shape_of(op.results[0]))


def drop_broadcasts(op: nn.Elementwise, b: Builder) -> Value | None:
    """An operand needs no broadcast (a constant no shape) where the result's shape stays."""
    operands = list(op.operands)
    shape = shape_of(op.results[0])
    changed = False
    for i, operand in enumerate(operands):
        source = _unbroadcast(
            operand, b, shape, [shape_of(o) for o in operands if o is not operand]
        )
        if source is not None:
            operands[i] = source
            changed = True
    if not changed:
        return None
    return b.one(
        type(op).create(
            operands=operands, properties=op.properties, result_types=[type_of(op.results[0])]
        )
    )


def _unbroadcast(
    operand: Value, b: Builder, shape: tuple[int, ...], others: list[tuple[int, ...]]
) -> Value | None:
    match _producer(operand):
        case nn.BroadcastOp(x=x) if broadcast_shapes(shape_of(x), *others) == shape:
            return x
        case nn.ConstantOp(value=value) if shape_of(operand) and broadcast_shapes(*others) == shape:
            return b.one(nn.ConstantOp.make(value=value, shape=()))
        case _:
            return None


def simplify_add(op: nn.AddOp, b: Builder) -> Value | None:
    """x + 0."""
    for x, c in ((op.a, op.b), (op.b, op.a)):
        if _splat(c) == 0:
            return _like(op, x, b)
    return None


def simplify_sub(op: nn.SubOp, b: Builder) -> Value | None:
    """x - 0; a step of rows that were looked up, where the rest of the table stays."""
    return _like(op, op.a, b) if _splat(op.b) == 0 else _step_of_rows(op, b)


def _step_of_rows(op: nn.SubOp, b: Builder) -> Value | None:
    """table - scatter_add(x, indices) * lr touches the rows at `indices` only."""
    match _producer(op.b):
        case nn.MulOp(a=OpResult(op=nn.ScatterAddOp() as gradient), b=factor) if (
            op.b.has_one_use() and gradient.y.has_one_use() and shape_of(factor) == ()
        ):
            step = b.neg(b.mul(gradient.x, factor))
            return b.add_rows(op.a, step, gradient.indices)
        case _:
            return None


def simplify_div(op: nn.DivOp, b: Builder) -> Value | None:
    """x / 1."""
    return _like(op, op.a, b) if _splat(op.b) == 1 else None


def simplify_mul(op: nn.MulOp, b: Builder) -> Value | None:
    """x * 1; x * c1 * c2 where the product of the constants costs no rounding."""
    for x, c in ((op.a, op.b), (op.b, op.a)):
        factor = _splat(c)
        if factor == 1:
            return _like(op, x, b)
        inner = _producer(x)
        if isinstance(inner, nn.MulOp) and factor is not None:
            return _merged_factors(op, inner, factor, b)
    return None


def _merged_factors(op: nn.MulOp, inner: nn.MulOp, factor: float, b: Builder) -> Value | None:
    for x, c in ((inner.a, inner.b), (inner.b, inner.a)):
        inner_factor = _splat(c)
        exact = inner_factor is not None and (
            _is_power_of_two(factor) or _is_power_of_two(inner_factor)
        )
        if exact and type_of(op.y).element_type == f32:
            assert inner_factor is not None
            constant = b.constant(factor * inner_factor)
            return b.mul(_like(op, x, b), constant)
    return None


def _is_power_of_two(number: float) -> bool:
    """Near enough to 1 that scaling by it neither overflows nor underflows in practice."""
    mantissa, exponent = math.frexp(number)
    return abs(mantissa) == 0.5 and abs(exponent) <= 32


def simplify_neg(op: nn.NegOp, b: Builder) -> Value | None:
    """-(-x)."""
    inner = _producer(op.x)
    return inner.x if isinstance(inner, nn.NegOp) else None


def simplify_select(op: nn.SelectOp, b: Builder) -> Value | None:
    """Both arms are one value."""
    return _like(op, op.a, b) if op.a is op.b else None


def simplify_relu(op: nn.ReluOp, b: Builder) -> Value | None:
    """Of a relu or relu6."""
    return op.x if isinstance(_producer(op.x), nn.ReluOp | nn.Relu6Op) else None


def simplify_relu6(op: nn.Relu6Op, b: Builder) -> Value | None:
    """Of a relu6, or of a relu."""
    inner = _producer(op.x)
    if isinstance(inner, nn.Relu6Op):
        return op.x
    return b.relu6(inner.x) if isinstance(inner, nn.ReluOp) else None


def simplify_max(op: nn.MaxOp, b: Builder) -> Value | None:
    """max(x, x); max(max(x, c1), c2)."""
    return _simplify_extremum(op, max, b)


def simplify_min(op: nn.MinOp, b: Builder) -> Value | None:
    """min(x, x); min(min(x, c1), c2)."""
    return _simplify_extremum(op, min, b)


def _simplify_extremum(
    op: nn.MaxOp | nn.MinOp, choose: Callable[[float, float], float], b: Builder
) -> Value | None:
    if op.a is op.b:
        return op.a
    inner = _producer(op.a)
    if not isinstance(inner, type(op)):
        return None
    # The constants must be second operands: only then does the gradient of ties stay.
    outer_bound, inner_bound = _splat(op.b), _splat(inner.b)
    if outer_bound is None or inner_bound is None or type_of(op.y).element_type != f32:
        return None
    bound = b.constant(choose(outer_bound, inner_bound))
    return b.one(type(op).make(_like(op, inner.a, b), bound))
