"""Operations that `decompose` writes as simpler ones once their gradients are taken."""

from abc import ABC
from collections.abc import Sequence

from xdsl.dialects.builtin import BoolAttr, FloatAttr, IntegerAttr, i32
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from niwaki.ir.dialects.tensor_op import (
    Attributes,
    Tensor,
    TensorOp,
    Tensors,
    get_int,
    i1,
    require,
    tensor,
)


class RowOp(TensorOp, ABC):
    """Works along one dimension, `axis`."""

    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    axis = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        axis = get_int(attributes, "axis")
        require(0 <= axis < len(operands[0].get_shape()), f"no dimension {axis} in {operands[0]}")
        return [operands[0]]


@irdl_op_definition
class SoftmaxOp(RowOp):
    """exp(x - max) / sum(exp(x - max)) along `axis`."""

    name = "nn.softmax"


@irdl_op_definition
class LogSoftmaxOp(RowOp):
    """x - max - log(sum(exp(x - max))) along `axis`."""

    name = "nn.log_softmax"


def _channel_check(operands: Sequence[Tensor]) -> None:
    shape = operands[0].get_shape()
    require(len(shape) >= 2, "the input must have rank >= 2, channels last")
    for t in operands[1:]:
        require(t.get_shape() == (shape[-1],), f"expected {shape[-1]} values per channel, got {t}")


@irdl_op_definition
class BatchNormOp(TensorOp):
    """(x - mean) / sqrt(var + epsilon) * gamma + beta per channel (the last dimension).

    As imported. With `training`, a training step takes the statistics of the batch and moves the
    running ones by `momentum` (torch's convention: new = (1 - momentum) * old + momentum *
    batch); everywhere else, and without `training` (frozen), the running ones are used.
    """

    name = "nn.batch_norm"
    traits = traits_def(Pure())
    x = operand_def()
    gamma = operand_def()
    beta = operand_def()
    mean = operand_def()
    var = operand_def()
    y = result_def()
    epsilon = prop_def(FloatAttr)
    momentum = prop_def(FloatAttr)
    training = prop_def(BoolAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        _channel_check(operands)
        return [operands[0]]


@irdl_op_definition
class BatchNormTrainOp(TensorOp):
    """Batch norm by the statistics of this batch; also gives its mean and biased variance.

    Only y is differentiable (Ioffe & Szegedy 2015, section 3).
    """

    name = "nn.batch_norm_train"
    traits = traits_def(Pure())
    x = operand_def()
    gamma = operand_def()
    beta = operand_def()
    y = result_def()
    mean = result_def()
    var = result_def()
    epsilon = prop_def(FloatAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        _channel_check(operands)
        channels = tensor([operands[0].get_shape()[-1]], operands[0].element_type)
        return [operands[0], channels, channels]


def _check_row_values(x: Tensor, values: Tensor) -> None:
    require(
        len(x.get_shape()) > 0 and values == tensor(x.get_shape()[-1:], x.element_type),
        f"there must be one value for each element of a row of {x}, got {values}",
    )


@irdl_op_definition
class LayerNormOp(TensorOp):
    """(x - mean) / sqrt(var + epsilon) * gamma + beta along the last dimension (Ba et al. 2016)."""

    name = "nn.layer_norm"
    traits = traits_def(Pure())
    x = operand_def()
    gamma = operand_def()
    beta = operand_def()
    y = result_def()
    epsilon = prop_def(FloatAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        x, *scale = operands
        for t in scale:
            _check_row_values(x, t)
        return [x]


@irdl_op_definition
class RmsNormOp(TensorOp):
    """x / sqrt(mean(x^2) + epsilon) * gamma along the last dimension (Zhang & Sennrich 2019)."""

    name = "nn.rms_norm"
    traits = traits_def(Pure())
    x = operand_def()
    gamma = operand_def()
    y = result_def()
    epsilon = prop_def(FloatAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        x, gamma = operands
        _check_row_values(x, gamma)
        return [x]


@irdl_op_definition
class DropoutOp(TensorOp):
    """The identity outside training; `build-training` makes it a seeded random mask."""

    name = "nn.dropout"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    rate = prop_def(FloatAttr)
    seed = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        rate = attributes["rate"]
        require(
            isinstance(rate, FloatAttr) and 0.0 <= rate.value.data < 1.0,
            "'rate' must be in [0, 1)",
        )
        return [operands[0]]


@irdl_op_definition
class RandomMaskOp(TensorOp):
    """A mask of the shape of `like`: element i is 1 unless hash(i, counter, seed) < rate * 2^32.

    hash: lowbias32(lowbias32(seed ^ lowbias32(counter)) + i) on uint32, where lowbias32 is
    x ^= x >> 16; x *= 0x7feb352d; x ^= x >> 15; x *= 0x846ca68b; x ^= x >> 16 (Wellons 2018).
    `counter` is an i32 scalar, the step number; i counts elements in row-major order.
    Not differentiable.
    """

    name = "nn.random_mask"
    traits = traits_def(Pure())
    like = operand_def()
    counter = operand_def()
    mask = result_def()
    rate = prop_def(FloatAttr)
    seed = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(operands[1] == tensor([], i32), "the counter must be an i32 scalar")
        return [tensor(operands[0].get_shape(), i1)]


class Loss(TensorOp, ABC):
    """A scalar: the mean over the batch."""

    traits = traits_def(Pure())
    x = operand_def()
    target = operand_def()
    loss = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(operands[0] == operands[1], f"target {operands[1]} must be like {operands[0]}")
        return [tensor([], operands[0].element_type)]


@irdl_op_definition
class CrossEntropyOp(Loss):
    """-mean over rows of sum(target * log_softmax(x)); x is [N, C].

    `target` holds integer labels [N] (i32) or probabilities [N, C] (differentiable in x only).
    """

    name = "nn.cross_entropy"

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        x, target = operands
        require(len(x.get_shape()) == 2, f"logits must be [N, C], got {x}")
        require(
            target in (tensor(x.get_shape()[:1], i32), x),
            f"target must be {tensor(x.get_shape()[:1], i32)} or {x}, got {target}",
        )
        return [tensor([], x.element_type)]


@irdl_op_definition
class MseOp(Loss):
    """mean((x - target)^2) over all elements."""

    name = "nn.mse"


@irdl_op_definition
class BceWithLogitsOp(Loss):
    """mean(max(x, 0) - x * target + log(1 + exp(-|x|))) over all elements."""

    name = "nn.bce_with_logits"


OPS = [
    SoftmaxOp, LogSoftmaxOp, BatchNormOp, BatchNormTrainOp, LayerNormOp, RmsNormOp, DropoutOp,
    RandomMaskOp, CrossEntropyOp, MseOp, BceWithLogitsOp,
]  # fmt: skip
