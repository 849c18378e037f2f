"""What each elementwise operation computes, on scalars and vectors alike."""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TypeAlias

from xdsl.dialects.builtin import Float32Type, IntegerType, f32, i1, i16, i32, i64
from xdsl.ir import Attribute, Operation

from niwaki.backends.kernels import narrow, vector_math
from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.kernel import element_of
from niwaki.ir.dialects.tensor_op import get_int, type_of

Rule: TypeAlias = Callable[[KernelBuilder, Operation, Sequence[Value]], Value]
"""(builder, operation, operands) -> result; all operands have one number of lanes."""


def evaluate(k: KernelBuilder, op: Operation, operands: Sequence[Value]) -> Value:
    """The result of the elementwise `op` on `operands`.

    Raises NotImplementedError for an operation that is not elementwise.
    """
    rule = RULES.get(type(op))
    if rule is None:
        raise NotImplementedError(f"'{op.name}' is not elementwise")
    return rule(k, op, operands)


def _like(k: KernelBuilder, x: Value, value: float, element: Attribute | None = None) -> Value:
    """A constant with the lanes, and unless given the element type, of `x`."""
    return k.constant(value, element or element_of(x.type), k.lanes(x))


def _is_float(x: Value) -> bool:
    return isinstance(element_of(x.type), Float32Type)


def _clip(k: KernelBuilder, x: Value, low: float, high: float) -> Value:
    """min(max(x, low), high); nan stays nan."""
    return k.min(_like(k, x, high), k.max(_like(k, x, low), x))


def _neg(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return k.neg(x) if _is_float(x) else k.sub(_like(k, x, 0), x)


def _abs(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return k.abs(x) if _is_float(x) else k.max(x, _neg(k, op, xs))


def _rsqrt(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return k.div(_like(k, x, 1.0), k.sqrt(x))


def _relu(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return k.max(_like(k, x, 0.0), x)


def _leaky_relu(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    assert isinstance(op, nn.LeakyReluOp)
    (x,) = xs
    slope = _like(k, x, op.slope.value.data)
    return k.select(k.compare(x, _like(k, x, 0.0), "ogt"), x, k.mul(slope, x))


def _one_plus_exp_of_minus(k: KernelBuilder, x: Value) -> Value:
    """1 + exp(-x); inf, where it overflows, divides to the right limit 0."""
    return k.add(_like(k, x, 1.0), vector_math.exp(k, k.neg(x)))


def _sigmoid(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return k.div(_like(k, x, 1.0), _one_plus_exp_of_minus(k, x))


def _silu(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return k.div(x, _one_plus_exp_of_minus(k, x))


def _hard_sigmoid(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    (x,) = xs
    return _clip(k, k.fma(x, _like(k, x, 1 / 6), _like(k, x, 0.5)), 0.0, 1.0)


def _hard_swish(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    return k.mul(xs[0], _hard_sigmoid(k, op, xs))


def _softplus(k: KernelBuilder, _: Operation, xs: Sequence[Value]) -> Value:
    """max(x, 0) + log1p(exp(-|x|)).

    log1p(e) = log(u) * e / (u - 1) with u = 1 + e as rounded (Kahan): exact for small e too.
    """
    (x,) = xs
    one = _like(k, x, 1.0)
    e = vector_math.exp(k, k.neg(k.abs(x)))
    u = k.add(one, e)
    vanishes = k.compare(u, one, "oeq")
    divisor = k.select(vanishes, one, k.sub(u, one))
    log1p = k.select(vanishes, e, k.div(k.mul(k.log(u), e), divisor))
    return k.add(k.max(_like(k, x, 0.0), x), log1p)


def _gelu(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    assert isinstance(op, nn.GeluOp)
    (x,) = xs
    if op.approximate.data == "tanh":
        cubic = k.fma(k.mul(x, x), _like(k, x, 0.044715), _like(k, x, 1.0))
        inner = k.mul(k.mul(x, _like(k, x, math.sqrt(2 / math.pi))), cubic)
        both = vector_math.tanh(k, inner)
    else:
        both = vector_math.erf(k, k.mul(x, _like(k, x, math.sqrt(0.5))))
    return k.mul(k.mul(x, _like(k, x, 0.5)), k.add(both, _like(k, x, 1.0)))


def _compare(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    assert isinstance(op, nn.CompareOp)
    name = op.predicate.data
    if _is_float(xs[0]):
        return k.compare(xs[0], xs[1], f"o{name}")
    return k.compare(xs[0], xs[1], name if name == "eq" else f"s{name}")


def _cast(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    assert isinstance(op, nn.CastOp)
    (x,) = xs
    source, to = element_of(x.type), op.to
    if source == i1:
        return k.select(x, _like(k, x, 1, to), _like(k, x, 0, to))
    if to == f32 and type_of(op.x).element_type == i16:
        return k.cast(k.extend(x, i32), f32)
    if to == f32:
        return narrow.widen(k, x)
    if isinstance(source, Float32Type):
        return k.cast(k.cast(x, i32), to)
    assert isinstance(source, IntegerType)
    assert isinstance(to, IntegerType)
    return k.extend(x, to) if source.width.data < to.width.data else k.cast(x, to)


def _rescale(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    """Of a product shifted by more than 32 bits only the upper half counts."""
    assert isinstance(op, nn.RescaleOp)
    shift, zero_point = (get_int(op.properties, name) for name in ("shift", "zero_point"))
    lanes = k.lanes(xs[0])
    x, multiplier = xs
    known = k.known(multiplier)
    if shift <= 32 and known is not None and known << (33 - shift) < 1 << 31:
        # The same quotient, whose upper word is what counts.
        multiplier, shift = k.constant(known << (33 - shift), i32, lanes), 33
    if shift > 32:
        rest = shift - 32
        half = 1 << (rest - 1)
        along = abs(zero_point) << rest < 1 << 29  # the rounding constant takes it along
        rounding = k.constant(half + ((zero_point << rest) if along else 0), i32, lanes)
        scaled = k.shift_right_signed(
            k.multiply_high(x, multiplier, rounding), k.constant(rest, i32, lanes)
        )
        if along:
            return scaled
    else:
        product = k.mul(k.extend(x, i64), k.extend(multiplier, i64))
        rounded = k.add(product, k.constant(1 << (shift - 1), i64, lanes))
        wide = k.shift_right_signed(rounded, k.constant(shift, i64, lanes))
        low, high = (k.constant(limit, i64, lanes) for limit in (-(2**30), 2**30 - 1))
        scaled = k.cast(k.max(k.min(wide, high), low), i32)
    return k.add(scaled, k.constant(zero_point, i32, lanes)) if zero_point else scaled


def _narrow(k: KernelBuilder, op: Operation, xs: Sequence[Value]) -> Value:
    assert isinstance(op, nn.NarrowOp)
    return narrow.narrow(k, xs[0], op.to)


RULES: Mapping[type[Operation], Rule] = MappingProxyType(
    {
        nn.AddOp: lambda k, _, xs: k.add(*xs),
        nn.SubOp: lambda k, _, xs: k.sub(*xs),
        nn.MulOp: lambda k, _, xs: k.mul(*xs),
        nn.DivOp: lambda k, _, xs: k.div(*xs),
        nn.MaxOp: lambda k, _, xs: k.max(*xs),
        nn.MinOp: lambda k, _, xs: k.min(*xs),
        nn.NegOp: _neg,
        nn.AbsOp: _abs,
        nn.ExpOp: lambda k, _, xs: vector_math.exp(k, *xs),
        nn.LogOp: lambda k, _, xs: k.log(*xs),
        nn.SqrtOp: lambda k, _, xs: k.sqrt(*xs),
        nn.RsqrtOp: _rsqrt,
        nn.ErfOp: lambda k, _, xs: vector_math.erf(k, *xs),
        nn.ReluOp: _relu,
        nn.Relu6Op: lambda k, _, xs: _clip(k, xs[0], 0.0, 6.0),
        nn.LeakyReluOp: _leaky_relu,
        nn.SigmoidOp: _sigmoid,
        nn.TanhOp: lambda k, _, xs: vector_math.tanh(k, *xs),
        nn.HardSigmoidOp: _hard_sigmoid,
        nn.HardSwishOp: _hard_swish,
        nn.SiluOp: _silu,
        nn.SoftplusOp: _softplus,
        nn.GeluOp: _gelu,
        nn.CompareOp: _compare,
        nn.AndOp: lambda k, _, xs: k.bit_and(*xs),
        nn.SelectOp: lambda k, _, xs: k.select(*xs),
        nn.CastOp: _cast,
        nn.RescaleOp: _rescale,
        nn.RoundOp: lambda k, _, xs: k.round(*xs),
        nn.NarrowOp: _narrow,
    }
)
"""Every operation of `nn` that is elementwise."""
