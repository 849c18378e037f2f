"""Convolutions and matrix products, with the two products of each backward pass.

Activations are NHWC, filters OHWI (I is Cin / groups). `padding` is [top, left, bottom, right].
A filter's cotangent and a matrix product read operands of bf16 and i8 as f32.
"""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import BoolAttr, DenseArrayBase, IntegerAttr
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from niwaki.ir.dialects.tensor_op import (
    Attributes,
    TensorOp,
    Tensors,
    common_element,
    get_int,
    get_ints,
    require,
    tensor,
    widened_element,
)


@dataclass(frozen=True)
class Window:
    """Strides, padding [top, left, bottom, right], dilation and groups of a convolution."""

    strides: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int

    @classmethod
    def of(cls, attributes: Mapping[str, Attribute]) -> "Window":
        """Reads and checks the attributes; VerifyException if they make no sense."""
        strides = get_ints(attributes, "strides")
        padding = get_ints(attributes, "padding")
        dilation = get_ints(attributes, "dilation")
        groups = get_int(attributes, "groups")
        require(len(strides) == 2 and min(strides) > 0, "'strides' must be two positive integers")
        require(len(padding) == 4 and min(padding) >= 0, "'padding' must be four integers >= 0")
        require(
            len(dilation) == 2 and min(dilation) > 0, "'dilation' must be two positive integers"
        )
        require(groups > 0, "'groups' must be positive")
        return cls(
            (strides[0], strides[1]),
            (padding[0], padding[1], padding[2], padding[3]),
            (dilation[0], dilation[1]),
            groups,
        )

    def output_size(self, size: Sequence[int], kernel: Sequence[int]) -> tuple[int, int]:
        """[height, width] of the output for an input of `size` and a filter of `kernel`."""
        result: list[int] = []
        for axis in (0, 1):
            span = self.dilation[axis] * (kernel[axis] - 1) + 1
            room = size[axis] + self.padding[axis] + self.padding[axis + 2] - span
            require(room >= 0, f"a window of {span} does not fit into {size[axis]} padded")
            result.append(room // self.strides[axis] + 1)
        return result[0], result[1]


class Convolution(TensorOp, ABC):
    """A convolution or one of its two backward products."""

    traits = traits_def(Pure())
    strides = prop_def(DenseArrayBase)
    padding = prop_def(DenseArrayBase)
    dilation = prop_def(DenseArrayBase)
    groups = prop_def(IntegerAttr)

    @property
    def window(self) -> Window:
        """The checked attributes."""
        return Window.of(self.properties)


def _check_channels(x: Sequence[int], w: Sequence[int], groups: int) -> None:
    require(len(x) == 4, "the input must have rank 4 (NHWC)")
    require(len(w) == 4, "the filter must have rank 4 (OHWI)")
    require(x[3] == w[3] * groups, f"input has {x[3]} channels, the filter expects {w[3] * groups}")
    require(w[0] % groups == 0, f"{w[0]} output channels do not divide into {groups} groups")


@irdl_op_definition
class Conv2dOp(Convolution):
    """y[n,h,w,o] = sum x[n, h*s-p+i*d, w*s-p+j*d, c] * w[o,i,j,c] over i, j, c of o's group."""

    name = "nn.conv2d"
    x = operand_def()
    w = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        window = Window.of(attributes)
        x, w = (t.get_shape() for t in operands)
        _check_channels(x, w, window.groups)
        height, width = window.output_size(x[1:3], w[1:3])
        return [tensor([x[0], height, width, w[0]], common_element(operands))]


@irdl_op_definition
class Conv2dDxOp(Convolution):
    """The cotangent of a convolution's input; `input_size` is [H, W] of that input."""

    name = "nn.conv2d_dx"
    dy = operand_def()
    w = operand_def()
    dx = result_def()
    input_size = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        window = Window.of(attributes)
        size = get_ints(attributes, "input_size")
        dy, w = (t.get_shape() for t in operands)
        require(len(size) == 2, "'input_size' must be [H, W]")
        require(len(dy) == 4 and len(w) == 4, "dy must have rank 4 (NHWC), the filter too (OHWI)")
        x = (dy[0], size[0], size[1], w[3] * window.groups)
        _check_channels(x, w, window.groups)
        require(dy[3] == w[0], f"dy has {dy[3]} channels, the filter {w[0]} outputs")
        require(window.output_size(size, w[1:3]) == tuple(dy[1:3]), "'input_size' does not fit dy")
        return [tensor(x, common_element(operands))]


@irdl_op_definition
class Conv2dDwOp(Convolution):
    """The cotangent of a convolution's filter; `kernel_size` is [kh, kw].

    `x` may hold the leading channels of the input only (sparse update of input channels, groups
    1), or `x` and `dy` the leading channels of a depthwise convolution.
    """

    name = "nn.conv2d_dw"
    x = operand_def()
    dy = operand_def()
    dw = result_def()
    kernel_size = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        window = Window.of(attributes)
        kernel = get_ints(attributes, "kernel_size")
        x, dy = (t.get_shape() for t in operands)
        require(len(kernel) == 2, "'kernel_size' must be [height, width]")
        require(len(x) == 4 and len(dy) == 4, "x and dy must have rank 4 (NHWC)")
        require(x[3] % window.groups == 0, f"{x[3]} channels, {window.groups} groups")
        w = (dy[3], kernel[0], kernel[1], x[3] // window.groups)
        _check_channels(x, w, window.groups)
        require(
            x[0] == dy[0] and window.output_size(x[1:3], kernel) == tuple(dy[1:3]),
            "'kernel_size' does not fit x and dy",
        )
        return [tensor(w, widened_element(operands))]


@irdl_op_definition
class MatmulOp(TensorOp):
    """a @ b of two matrices, either one transposed. A dense layer has `transpose_b`.

    Of two stacks of matrices (equal leading dimensions), the product of each pair.
    """

    name = "nn.matmul"
    traits = traits_def(Pure())
    a = operand_def()
    b = operand_def()
    y = result_def()
    transpose_a = prop_def(BoolAttr)
    transpose_b = prop_def(BoolAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        a, b = (t.get_shape() for t in operands)
        require(
            len(a) == len(b) >= 2 and a[:-2] == b[:-2],
            "both operands must be matrices, or stacks of as many matrices",
        )
        m, k = _matrix(a, attributes["transpose_a"])
        k2, n = _matrix(b, attributes["transpose_b"])
        require(k == k2, f"inner sizes differ: {k} and {k2}")
        return [tensor([*a[:-2], m, n], widened_element(operands))]


def _matrix(shape: Sequence[int], transpose: Attribute) -> tuple[int, int]:
    """Rows and columns of each matrix of a stack."""
    rows, columns = shape[-2:]
    return (columns, rows) if transpose == BoolAttr.from_bool(True) else (rows, columns)


OPS = [Conv2dOp, Conv2dDxOp, Conv2dDwOp, MatmulOp]
