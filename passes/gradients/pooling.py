"""Gradient rules of pooling."""

from collections.abc import Mapping, Sequence

from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import ints, shape_of
from niwaki.passes.gradients.rule import Cotangents, Rule


def _max_pool2d(b: Builder, op: nn.MaxPool2dOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    input_size = ints(shape_of(op.x)[1:3])
    return [b.one(nn.MaxPool2dGradOp.make(g, op.index, **op.properties, input_size=input_size))]


def _avg_pool2d(b: Builder, op: nn.AvgPool2dOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    input_size = ints(shape_of(op.x)[1:3])
    return [b.one(nn.AvgPool2dGradOp.make(g, **op.properties, input_size=input_size))]


def _avg_pool2d_grad(
    b: Builder, op: nn.AvgPool2dGradOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    properties = {k: v for k, v in op.properties.items() if k != "input_size"}
    return [b.one(nn.AvgPool2dOp.make(g, **properties))]


RULES: Mapping[type[Operation], Rule] = {
    nn.MaxPool2dOp: _max_pool2d,
    nn.AvgPool2dOp: _avg_pool2d,
    nn.AvgPool2dGradOp: _avg_pool2d_grad,
}
