"""Gradient rules of elementwise operations."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.passes.gradients.rule import Cotangents, Rule, sum_to

UnaryRule: TypeAlias = Callable[[Builder, Any, SSAValue], SSAValue]
"""From the cotangent of the result to that of the operand."""


def _unary(rule: UnaryRule) -> Rule:
    def vjp(b: Builder, op: nn.Unary, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
        return [rule(b, op, g) if needed[0] else None]

    return vjp


def _exceeds(b: Builder, x: SSAValue, bound: float) -> SSAValue:
    return b.compare(x, b.number(bound, x), "gt")


def _inside(b: Builder, x: SSAValue, low: float, high: float) -> SSAValue:
    return b.logical_and(_exceeds(b, x, low), b.compare(x, b.number(high, x), "lt"))


def _where(b: Builder, mask: SSAValue, g: SSAValue) -> SSAValue:
    return b.select(mask, g, b.number(0.0, g))


def _one_minus(b: Builder, x: SSAValue) -> SSAValue:
    return b.sub(b.number(1.0, x), x)


def _abs(b: Builder, op: nn.AbsOp, g: SSAValue) -> SSAValue:
    negative = b.compare(op.x, b.number(0.0, op.x), "lt")
    return b.select(_exceeds(b, op.x, 0.0), g, _where(b, negative, b.neg(g)))


def _rsqrt(b: Builder, op: nn.RsqrtOp, g: SSAValue) -> SSAValue:
    return b.mul(b.scale(g, -0.5), b.mul(b.mul(op.y, op.y), op.y))


def _erf(b: Builder, op: nn.ErfOp, g: SSAValue) -> SSAValue:
    bell = b.exp(b.neg(b.mul(op.x, op.x)))
    return b.mul(g, b.scale(bell, 2.0 / math.sqrt(math.pi)))


def _leaky_relu(b: Builder, op: nn.LeakyReluOp, g: SSAValue) -> SSAValue:
    slope = op.slope.value.data
    source = op.y if slope >= 0 else op.x
    return b.select(_exceeds(b, source, 0.0), g, b.scale(g, slope))


def _sigmoid(b: Builder, op: nn.SigmoidOp, g: SSAValue) -> SSAValue:
    return b.mul(g, b.mul(op.y, _one_minus(b, op.y)))


def _hard_swish(b: Builder, op: nn.HardSwishOp, g: SSAValue) -> SSAValue:
    slope = b.add(b.scale(op.x, 1.0 / 3.0), b.number(0.5, op.x))
    inner = _where(b, _exceeds(b, op.x, -3.0), b.mul(g, slope))
    return b.select(_exceeds(b, op.x, 3.0), g, inner)


def _silu(b: Builder, op: nn.SiluOp, g: SSAValue) -> SSAValue:
    s = b.sigmoid(op.x)
    rest = b.add(b.mul(op.x, _one_minus(b, s)), b.number(1.0, s))
    return b.mul(g, b.mul(s, rest))


def _gelu(b: Builder, op: nn.GeluOp, g: SSAValue) -> SSAValue:
    slope = _gelu_slope if op.approximate.data == "none" else _gelu_tanh_slope
    return b.mul(g, slope(b, op.x))


def _gelu_slope(b: Builder, x: SSAValue) -> SSAValue:
    """Phi(x) + x * phi(x)."""
    one = b.number(1.0, x)
    cdf = b.scale(b.add(b.erf(b.scale(x, math.sqrt(0.5))), one), 0.5)
    bell = b.exp(b.scale(b.mul(x, x), -0.5))
    return b.add(cdf, b.mul(x, b.scale(bell, 1.0 / math.sqrt(2.0 * math.pi))))


def _gelu_tanh_slope(b: Builder, x: SSAValue) -> SSAValue:
    """The derivative of x / 2 * (1 + tanh(u)), u = sqrt(2 / pi) * (x + 0.044715 * x^3)."""
    factor, cubic = math.sqrt(2.0 / math.pi), 0.044715
    one = b.number(1.0, x)
    square = b.mul(x, x)
    t = b.tanh(b.mul(b.scale(x, factor), b.add(one, b.scale(square, cubic))))
    du = b.add(b.number(factor, x), b.scale(square, 3.0 * factor * cubic))
    steep = b.mul(b.mul(x, du), _one_minus(b, b.mul(t, t)))
    return b.scale(b.add(b.add(one, t), steep), 0.5)


def _summed(b: Builder, operands: Sequence[SSAValue], cotangents: Cotangents) -> Cotangents:
    """Undoes the broadcasting of `operands` in their `cotangents`."""
    return [
        None if g is None else sum_to(b, g, shape_of(operand))
        for operand, g in zip(operands, cotangents, strict=True)
    ]


def _add(b: Builder, op: nn.AddOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return _summed(b, op.operands, [g if n else None for n in needed])


def _sub(b: Builder, op: nn.SubOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    db = b.neg(sum_to(b, g, shape_of(op.b))) if needed[1] else None
    return _summed(b, op.operands, [g if needed[0] else None, db])


def _mul(b: Builder, op: nn.MulOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    da = b.mul(g, op.b) if needed[0] else None
    db = b.mul(g, op.a) if needed[1] else None
    return _summed(b, op.operands, [da, db])


def _div(b: Builder, op: nn.DivOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    da = b.div(g, op.b)
    db = b.neg(b.mul(da, op.y)) if needed[1] else None
    return _summed(b, op.operands, [da if needed[0] else None, db])


def _chosen(
    b: Builder, mask: SSAValue, g: SSAValue, operands: Sequence[SSAValue], needed: Sequence[bool]
) -> Cotangents:
    """The cotangents of two operands of which `mask` chose the first."""
    zero = b.number(0.0, g)
    da = b.select(mask, g, zero) if needed[0] else None
    db = b.select(mask, zero, g) if needed[1] else None
    return _summed(b, operands, [da, db])


def _extremum(predicate: str) -> Rule:
    def vjp(b: Builder, op: nn.Binary, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
        return _chosen(b, b.compare(op.a, op.b, predicate), g, op.operands, needed)

    return vjp


def _select(b: Builder, op: nn.SelectOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [None, *_chosen(b, op.mask, g, [op.a, op.b], needed[1:])]


RULES: Mapping[type[Operation], Rule] = {
    nn.AddOp: _add,
    nn.SubOp: _sub,
    nn.MulOp: _mul,
    nn.DivOp: _div,
    nn.MaxOp: _extremum("ge"),
    nn.MinOp: _extremum("le"),
    nn.SelectOp: _select,
    nn.NegOp: _unary(lambda b, op, g: b.neg(g)),
    nn.AbsOp: _unary(_abs),
    nn.ExpOp: _unary(lambda b, op, g: b.mul(g, op.y)),
    nn.LogOp: _unary(lambda b, op, g: b.div(g, op.x)),
    nn.SqrtOp: _unary(lambda b, op, g: b.div(b.scale(g, 0.5), op.y)),
    nn.RsqrtOp: _unary(_rsqrt),
    nn.ErfOp: _unary(_erf),
    nn.ReluOp: _unary(lambda b, op, g: _where(b, _exceeds(b, op.y, 0.0), g)),
    nn.Relu6Op: _unary(lambda b, op, g: _where(b, _inside(b, op.y, 0.0, 6.0), g)),
    nn.LeakyReluOp: _unary(_leaky_relu),
    nn.SigmoidOp: _unary(_sigmoid),
    nn.TanhOp: _unary(lambda b, op, g: b.mul(g, _one_minus(b, b.mul(op.y, op.y)))),
    nn.HardSigmoidOp: _unary(
        lambda b, op, g: _where(b, _inside(b, op.y, 0.0, 1.0), b.scale(g, 1.0 / 6.0))
    ),
    nn.HardSwishOp: _unary(_hard_swish),
    nn.SiluOp: _unary(_silu),
    nn.SoftplusOp: _unary(lambda b, op, g: b.mul(g, b.sigmoid(op.x))),
    nn.GeluOp: _unary(_gelu),
}
"""Masks come from the result where it tells as much: then no activation is kept, only bits."""
