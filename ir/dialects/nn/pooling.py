"""Pooling over windows of NHWC activations. Global pooling is `nn.reduce_mean` over [1, 2]."""

from abc import ABC
from collections.abc import Mapping

from xdsl.dialects.builtin import BoolAttr, DenseArrayBase, IntegerAttr, i8, i64
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from niwaki.ir.dialects.nn.contraction import Window
from niwaki.ir.dialects.tensor_op import (
    Attributes,
    Tensor,
    TensorOp,
    Tensors,
    get_ints,
    ints,
    require,
    tensor,
)


def _window(attributes: Mapping[str, Attribute]) -> Window:
    kernel = get_ints(attributes, "kernel_size")
    require(len(kernel) == 2 and min(kernel) > 0, "'kernel_size' must be two positive integers")
    window = Window.of({**attributes, "dilation": ints([1, 1]), "groups": IntegerAttr(1, i64)})
    for axis in (0, 1):
        require(
            max(window.padding[axis], window.padding[axis + 2]) < kernel[axis],
            "'padding' must be smaller than 'kernel_size'",
        )
    return window


class Pooling(TensorOp, ABC):
    """Windows of `kernel_size`, moved by `strides`; padding never takes part in a maximum."""

    traits = traits_def(Pure())
    kernel_size = prop_def(DenseArrayBase)
    strides = prop_def(DenseArrayBase)
    padding = prop_def(DenseArrayBase)

    @property
    def window(self) -> Window:
        """The checked attributes (dilation and groups are 1)."""
        return _window(self.properties)


def _pooled(x: Tensor, attributes: Mapping[str, Attribute]) -> tuple[int, ...]:
    shape = x.get_shape()
    require(len(shape) == 4, "the input must have rank 4 (NHWC)")
    size = _window(attributes).output_size(shape[1:3], get_ints(attributes, "kernel_size"))
    return (shape[0], *size, shape[3])


def _unpooled(dy: Tensor, attributes: Mapping[str, Attribute]) -> Tensor:
    shape, size = dy.get_shape(), get_ints(attributes, "input_size")
    require(len(shape) == 4, "dy must have rank 4 (NHWC)")
    require(len(size) == 2, "'input_size' must be [H, W]")
    x = tensor([shape[0], *size, shape[3]], dy.element_type)
    require(_pooled(x, attributes) == shape, "'input_size' does not fit dy")
    return x


@irdl_op_definition
class MaxPool2dOp(Pooling):
    """Maximum of each window, and where it was: the index i * kw + j of the first maximum.

    The index (i8) is all that the gradient needs.
    """

    name = "nn.max_pool2d"
    x = operand_def()
    y = result_def()
    index = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        shape = _pooled(operands[0], attributes)
        kernel = get_ints(attributes, "kernel_size")
        require(kernel[0] * kernel[1] <= 128, "a max-pool window has at most 128 elements")
        return [tensor(shape, operands[0].element_type), tensor(shape, i8)]


@irdl_op_definition
class MaxPool2dGradOp(Pooling):
    """The cotangent of a max-pool's input; `input_size` is [H, W] of that input."""

    name = "nn.max_pool2d_grad"
    dy = operand_def()
    index = operand_def()
    dx = result_def()
    input_size = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        dy, index = operands
        require(dy.get_shape() == index.get_shape(), "dy and index must have one shape")
        return [_unpooled(dy, attributes)]


@irdl_op_definition
class AvgPool2dOp(Pooling):
    """Mean of each window; `count_include_pad` divides by the whole window at the border too."""

    name = "nn.avg_pool2d"
    x = operand_def()
    y = result_def()
    count_include_pad = prop_def(BoolAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        return [tensor(_pooled(operands[0], attributes), operands[0].element_type)]


@irdl_op_definition
class AvgPool2dGradOp(Pooling):
    """The cotangent of an average-pool's input; `input_size` is [H, W] of that input."""

    name = "nn.avg_pool2d_grad"
    dy = operand_def()
    dx = result_def()
    input_size = prop_def(DenseArrayBase)
    count_include_pad = prop_def(BoolAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        return [_unpooled(operands[0], attributes)]


OPS = [MaxPool2dOp, MaxPool2dGradOp, AvgPool2dOp, AvgPool2dGradOp]
