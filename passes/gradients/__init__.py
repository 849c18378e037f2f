"""The gradient of every operation of `nn`: a rule, or an entry in `NOT_DIFFERENTIABLE`."""

from collections.abc import Mapping

from xdsl.ir import Operation

from niwaki.ir.dialects import nn
from niwaki.passes.gradients import (
    composite,
    contraction,
    elementwise,
    pooling,
    quantized,
    shape,
)
from niwaki.passes.gradients.rule import Rule

RULES: Mapping[type[Operation], Rule] = {
    **elementwise.RULES,
    **contraction.RULES,
    **pooling.RULES,
    **shape.RULES,
    **composite.RULES,
    **quantized.RULES,
}
"""How the cotangent of an operation's first result reaches its operands."""

NOT_DIFFERENTIABLE: Mapping[type[Operation], str] = {
    nn.ConstantOp: "it has no operand",
    nn.CompareOp: "its result is a mask",
    nn.AndOp: "its result is a mask",
    nn.RandomMaskOp: "its result is a mask",
    nn.CastOp: "its operand is an integer",
    nn.OneHotOp: "its operand is an integer",
    nn.CountCorrectOp: "its result is an integer",
    nn.CodesOp: "its result is an integer",
    nn.FromCodesOp: "its operand is an integer",
    nn.ScalesOp: "its result is a constant",
    nn.IntegerConv2dOp: "its operands are integers",
    nn.IntegerConv2dDxOp: "only backward passes contain it",
    nn.IntegerConv2dDwOp: "only backward passes contain it",
    nn.RescaleOp: "its operands are integers",
    nn.RoundOp: "its slope is 0 almost everywhere",
    nn.RandomUniformOp: "its result does not depend on an operand",
    nn.MaxPool2dGradOp: "only backward passes contain it",
    nn.NarrowOp: "it is made after gradients are taken",
    nn.AddRowsOp: "it is made after gradients are taken",
    nn.FusedOp: "it is made after gradients are taken",
    nn.YieldOp: "it is made after gradients are taken",
}
"""Operations without a rule, and why."""

UNSUPPORTED = (
    nn.MaxPool2dGradOp, nn.NarrowOp, nn.AddRowsOp, nn.FusedOp, nn.CodesOp, nn.RoundOp,
)  # fmt: skip
"""Those among them whose gradient is not zero: an updated parameter must not pass through."""
