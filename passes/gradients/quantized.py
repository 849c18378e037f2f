"""Gradient rules of quantised operations: those of the real numbers that codes stand for.

The straight-through estimator (Bengio et al. 2013): rounding counts as the identity, and what was
clamped passes nothing. Cotangents are f32 and with respect to real numbers, so an update by them
is quantization-aware scaling ("On-Device Training Under 256KB Memory", section 3.1) once it is
divided by the scale of the codes: see `expand-updates`.
"""

from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import f32, i32
from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.quantized_type import quantized
from niwaki.ir.dialects.tensor_op import get_ints, shape_of, type_of
from niwaki.passes.gradients.contraction import filter_cotangent
from niwaki.passes.gradients.rule import Cotangents, Rule, sum_to


def _passed(b: Builder, inside: SSAValue, g: SSAValue) -> SSAValue:
    return b.select(inside, g, b.number(0.0, g))


def _quantize(b: Builder, op: nn.QuantizeOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [_passed(b, op.inside, g)]


def _dequantize(b: Builder, op: nn.DequantizeOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [g]


def _conv2d(
    b: Builder, op: nn.QuantizedConv2dOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    """Scales are taken out of the products: those work on codes."""
    if quantized(type_of(op.y).element_type).storage != i32:
        g = _passed(b, op.inside, g)
    dx = dw = None
    if needed[0]:
        scaled = b.mul(g, b.scales(op.w))
        codes = b.cast(b.codes(op.w))
        dx = b.conv2d_dx(scaled, codes, op.window, shape_of(op.x)[1:3])
    if needed[1]:
        zero_point = quantized(type_of(op.x).element_type).zero_point
        codes = b.cast(b.codes(op.x), f32)
        differences = b.sub(codes, b.number(zero_point, codes))
        dw = b.mul(filter_cotangent(b, differences, op.w, op.window, g), b.scales(op.x))
    return [dx, dw, sum_to(b, g, shape_of(op.bias)) if needed[2] else None]


def _add(b: Builder, op: nn.QuantizedAddOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    passed = _passed(b, op.inside, g)
    return [passed if n else None for n in needed]


def _mean(b: Builder, op: nn.QuantizedMeanOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    shape = shape_of(op.x)
    count = 1
    for axis in get_ints(op.properties, "axes"):
        count *= shape[axis]
    return [b.broadcast(b.scale(g, 1.0 / count), shape)]


RULES: Mapping[type[Operation], Rule] = {
    nn.QuantizeOp: _quantize,
    nn.DequantizeOp: _dequantize,
    nn.QuantizedConv2dOp: _conv2d,
    nn.QuantizedAddOp: _add,
    nn.QuantizedMeanOp: _mean,
}
