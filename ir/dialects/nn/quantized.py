"""Operations on quantised tensors, and the integer operations that they become.

Arithmetic: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", with one exact rounding (`nn.rescale`). A quantised operation
computes its result exactly as integers of a wide type, rescales them to codes, and clamps; its
second result, `inside`, tells where nothing was clamped: there the gradient passes (the
straight-through estimator). Gradients are floating-point, with respect to the real numbers that
codes stand for.
"""

from math import prod

from xdsl.dialects.builtin import DenseArrayBase, IntegerAttr, f32, i8, i16, i32
from xdsl.ir import Attribute
from xdsl.irdl import irdl_op_definition, operand_def, prop_def, result_def, traits_def
from xdsl.traits import Pure

from niwaki.ir.dialects.nn.contraction import (
    Conv2dDwOp,
    Conv2dDxOp,
    Conv2dOp,
    Convolution,
    Window,
)
from niwaki.ir.dialects.nn.elementwise import Elementwise, Unary
from niwaki.ir.dialects.quantized_type import QuantizedType, check_fits, quantized
from niwaki.ir.dialects.tensor_op import (
    Attributes,
    Tensor,
    TensorOp,
    Tensors,
    broadcast_shapes,
    get_int,
    get_ints,
    i1,
    require,
    tensor,
)


def _per_tensor(t: Tensor, what: str) -> QuantizedType:
    element = quantized(t.element_type)
    require(element.storage == i8, f"{what} must have i8 codes, got {t}")
    require(element.axis is None, f"{what} must have one scale for all elements, got {t}")
    return element


def _result(attributes: Attributes, shape: tuple[int, ...]) -> Tensor:
    element = quantized(attributes["to"])
    check_fits(element, shape)
    return tensor(shape, element)


@irdl_op_definition
class QuantizeOp(TensorOp):
    """Codes of type `to`: x / scale, rounded to even, + zero point, clamped."""

    name = "nn.quantize"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    inside = result_def()
    to = prop_def(Attribute)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(operands[0].element_type == f32, f"the operand must be f32, got {operands[0]}")
        shape = operands[0].get_shape()
        return [_result(attributes, shape), tensor(shape, i1)]


@irdl_op_definition
class DequantizeOp(TensorOp):
    """The real numbers, f32: scale * (code - zero point)."""

    name = "nn.dequantize"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        check_fits(quantized(operands[0].element_type), operands[0].get_shape())
        return [tensor(operands[0].get_shape(), f32)]


@irdl_op_definition
class CodesOp(TensorOp):
    """The codes of a quantised tensor as plain integers (MLIR's `quant.scast`)."""

    name = "nn.codes"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        (x,) = operands
        return [tensor(x.get_shape(), quantized(x.element_type).storage)]


@irdl_op_definition
class FromCodesOp(TensorOp):
    """Plain integers as codes of the quantised type `to`: the inverse of `nn.codes`."""

    name = "nn.from_codes"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    to = prop_def(Attribute)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        result = _result(attributes, operands[0].get_shape())
        storage = quantized(attributes["to"]).storage
        require(operands[0].element_type == storage, f"codes of {result} must be {storage}")
        return [result]


@irdl_op_definition
class ScalesOp(TensorOp):
    """The scales of a quantised tensor, f32: a scalar, or one per channel."""

    name = "nn.scales"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        element = quantized(operands[0].element_type)
        return [tensor([] if element.axis is None else [len(element.scale)], f32)]


@irdl_op_definition
class QuantizedConv2dOp(TensorOp):
    """A convolution with bias of quantised tensors, rescaled to codes of type `to`.

    Scales: one for x, one per output channel for w, their products for the bias. With `to` the
    bias's type (i32) the sums are the result: nothing is rescaled or clamped.
    """

    name = "nn.quantized_conv2d"
    traits = traits_def(Pure())
    x = operand_def()
    w = operand_def()
    bias = operand_def()
    y = result_def()
    inside = result_def()
    strides = prop_def(DenseArrayBase)
    padding = prop_def(DenseArrayBase)
    dilation = prop_def(DenseArrayBase)
    groups = prop_def(IntegerAttr)
    to = prop_def(Attribute)

    @property
    def window(self) -> Window:
        """The checked attributes."""
        return Window.of(self.properties)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        x, w, bias = operands
        _per_tensor(x, "the input")
        filters, offsets = quantized(w.element_type), quantized(bias.element_type)
        require(filters.storage == i8, f"the filter must have i8 codes, got {w}")
        require(filters.axis in (None, 0), "the filter's scales are those of output channels")
        require(filters.zero_point == 0, "the filter's zero point must be 0")
        require(offsets.storage == i32 and offsets.zero_point == 0, f"the bias is {bias}, not i32")
        check_fits(filters, w.get_shape())
        check_fits(offsets, bias.get_shape())
        plain = [tensor(t.get_shape(), f32) for t in (x, w)]
        (y,) = Conv2dOp.infer(plain, attributes)
        require(bias.get_shape() == y.get_shape()[3:], f"the bias {bias} does not fit {y}")
        result = _result(attributes, y.get_shape())
        code = quantized(result.element_type)
        require(code.storage == i32 or code.axis is None, "codes of activations have one scale")
        return [result, tensor(y.get_shape(), i1)]


@irdl_op_definition
class QuantizedAddOp(TensorOp):
    """a + b of two quantised tensors, as codes of type `to`."""

    name = "nn.quantized_add"
    traits = traits_def(Pure())
    a = operand_def()
    b = operand_def()
    y = result_def()
    inside = result_def()
    to = prop_def(Attribute)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        for operand, name in zip(operands, "ab", strict=True):
            _per_tensor(operand, name)
        a, b = (t.get_shape() for t in operands)
        require(a == b, f"the shapes {list(a)} and {list(b)} differ")
        result = _result(attributes, a)
        _per_tensor(result, "the result")
        return [result, tensor(a, i1)]


@irdl_op_definition
class QuantizedMeanOp(TensorOp):
    """The mean along `axes`, which stay with size 1; codes of the operand's type."""

    name = "nn.quantized_mean"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    axes = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        (x,) = operands
        _per_tensor(x, "the operand")
        shape, axes = x.get_shape(), get_ints(attributes, "axes")
        require(bool(axes) and all(0 <= a < len(shape) for a in axes), f"no axes {axes} in {x}")
        kept = [1 if i in axes else size for i, size in enumerate(shape)]
        return [tensor(kept, x.element_type)]


# --- integers


@irdl_op_definition
class IntegerConv2dOp(Convolution):
    """The convolution of x - `zero_point` (both i8) with w, in i32; padding counts as 0.

    ONNX's ConvInteger with zero points of the input only.
    """

    name = "nn.integer_conv2d"
    x = operand_def()
    w = operand_def()
    y = result_def()
    zero_point = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(all(t.element_type == i8 for t in operands), "operands must be i8")
        require(-128 <= get_int(attributes, "zero_point") <= 127, "'zero_point' must be an i8")
        (y,) = Conv2dOp.infer(operands, attributes)
        return [tensor(y.get_shape(), i32)]


@irdl_op_definition
class IntegerConv2dDxOp(Convolution):
    """The cotangent of a convolution's input, in i32, from one of i16 and a filter of i8."""

    name = "nn.integer_conv2d_dx"
    dy = operand_def()
    w = operand_def()
    dx = result_def()
    input_size = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        _check_elements(operands, (i16, i8))
        plain = [tensor(t.get_shape(), f32) for t in operands]
        (dx,) = Conv2dDxOp.infer(plain, attributes)
        return [tensor(dx.get_shape(), i32)]


@irdl_op_definition
class IntegerConv2dDwOp(Convolution):
    """The cotangent of a convolution's filter, in i32, from x - `zero_point` (i8) and dy (i16).

    Padding counts as 0. Leading channels as in `nn.conv2d_dw`.
    """

    name = "nn.integer_conv2d_dw"
    x = operand_def()
    dy = operand_def()
    dw = result_def()
    kernel_size = prop_def(DenseArrayBase)
    zero_point = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        _check_elements(operands, (i8, i16))
        require(-128 <= get_int(attributes, "zero_point") <= 127, "'zero_point' must be an i8")
        plain = [tensor(t.get_shape(), f32) for t in operands]
        (dw,) = Conv2dDwOp.infer(plain, attributes)
        return [tensor(dw.get_shape(), i32)]


def _check_elements(operands: Tensors, expected: tuple[Attribute, ...]) -> None:
    actual = tuple(t.element_type for t in operands)
    names = [" and ".join(map(str, kinds)) for kinds in (expected, actual)]
    require(actual == expected, f"operands must be of {names[0]}, not {names[1]}")


@irdl_op_definition
class RescaleOp(Elementwise):
    """x * multiplier / 2^shift, rounded half up, + zero point; i32, exact products (TOSA).

    floor((x * multiplier + 2^(shift - 1)) / 2^shift), saturated to 31 bits before the zero point
    is added; multipliers are >= 0 and broadcast.
    """

    name = "nn.rescale"
    x = operand_def()
    multiplier = operand_def()
    y = result_def()
    shift = prop_def(IntegerAttr)
    zero_point = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(all(t.element_type == i32 for t in operands), "operands must be i32")
        require(1 <= get_int(attributes, "shift") <= 62, "'shift' must be in [1, 62]")
        require(-128 <= get_int(attributes, "zero_point") <= 127, "'zero_point' must be an i8")
        return [tensor(broadcast_shapes(*(t.get_shape() for t in operands)), i32)]


@irdl_op_definition
class RoundOp(Unary):
    """The nearest integer, ties to even, as a float. Not differentiable."""

    name = "nn.round"


@irdl_op_definition
class RandomUniformOp(Elementwise):
    """Numbers in [0, 1) of the shape of `like`: the upper 24 bits of the hash of `nn.random_mask`.

    Element i is (hash(i, counter, seed) >> 8) / 2^24. Not differentiable.
    """

    name = "nn.random_uniform"
    like = operand_def()
    counter = operand_def()
    y = result_def()
    seed = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        counter = operands[1]
        one = prod(counter.get_shape()) == 1
        require(one and counter.element_type == i32, "the counter must be one i32")
        return [tensor(operands[0].get_shape(), f32)]


OPS = [
    QuantizeOp, DequantizeOp, CodesOp, FromCodesOp, ScalesOp, QuantizedConv2dOp, QuantizedAddOp,
    QuantizedMeanOp, IntegerConv2dOp, IntegerConv2dDxOp, IntegerConv2dDwOp, RescaleOp, RoundOp,
    RandomUniformOp,
]  # fmt: skip
