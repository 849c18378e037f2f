"""Convolutions and dense products of dequantised tensors as `nn.quantized_conv2d`."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import i8, i32
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import require, shape_of, tensor, to_attribute, type_of
from niwaki.ir.quantization import convolution_rescaling, from_codes
from niwaki.ir.weights import WeightStore
from niwaki.passes.layers import parameter_of

_LARGEST_BIAS = 2**30
_LARGEST_SUM = 2**31 - 1
_LARGEST_TERM = 255 * 128
"""Of a difference from a zero point and a weight."""


@dataclass(frozen=True)
class Product:
    """A convolution or a product of two matrices, and the bias behind it."""

    op: nn.Conv2dOp | nn.MatmulOp
    bias: SSAValue | None
    result: OpResult
    """That of the bias's addition, if there is one."""

    @property
    def output_axis(self) -> int:
        """The dimension of the weight that counts output channels."""
        return 1 if isinstance(self.op, nn.MatmulOp) and not self.op.transpose_b.value.data else 0


def product_of(op: object) -> Product | None:
    """`op` with its bias, if `op` is a product that may become a quantised convolution."""
    if isinstance(op, nn.MatmulOp):
        if op.transpose_a.value.data or {len(shape_of(o)) for o in op.operands} != {2}:
            return None
    elif not isinstance(op, nn.Conv2dOp):
        return None
    addition = only_user(op.y)
    if isinstance(addition, nn.AddOp) and addition.a is op.y and len(shape_of(addition.b)) == 1:
        return Product(op, addition.b, addition.y)
    return Product(op, None, op.y)


def only_user(value: SSAValue) -> Operation | None:
    """The operation that alone reads `value`, once."""
    use = value.first_use
    return use.operation if use is not None and value.has_one_use() else None


def codes_of(value: SSAValue) -> SSAValue | None:
    """What `value` was dequantised from."""
    return value.owner.x if isinstance(value.owner, nn.DequantizeOp) else None


def element_of(codes: SSAValue) -> QuantizedType:
    """The element type of a quantised tensor."""
    element = type_of(codes).element_type
    assert isinstance(element, QuantizedType)
    return element


def activation_codes(value: SSAValue) -> SSAValue | None:
    """The codes of `value`, if it was dequantised from i8 codes of one scale."""
    codes = codes_of(value)
    if codes is None:
        return None
    element = element_of(codes)
    return codes if element.axis is None and element.storage == i8 else None


@dataclass(frozen=True)
class Parameters:
    """The parameters of a function whose content may become codes."""

    store: WeightStore
    reads: Mapping[str, int]
    """How often each parameter is read."""

    def sole(self, value: SSAValue) -> train.ParameterOp | None:
        """The parameter that `value` is or stands for, if it is known and nothing else reads it."""
        codes = codes_of(value)
        parameter = parameter_of(value if codes is None else codes)
        if parameter is None or parameter.key not in self.store or self.reads[parameter.key] > 1:
            return None
        alone = all(only_user(v) is not None for v in (value, parameter.value))
        return parameter if alone else None

    def restore(
        self,
        b: Builder,
        parameter: train.ParameterOp,
        codes: NDArray[np.generic],
        to: QuantizedType,
    ) -> SSAValue:
        """Reads `codes` of `to` in place of `parameter`, under its name.

        The order of the user's dimensions is kept as long as their number is.
        """
        properties = dict(parameter.properties)
        properties["sha256"] = to_attribute(self.store.replace(parameter.key, codes))
        if codes.ndim != len(shape_of(parameter.value)):
            properties.pop("source_permutation", None)
        kind = tensor(codes.shape, to)
        return b.one(train.ParameterOp.create(properties=properties, result_types=[kind]))


def quantized_product(
    b: Builder, parameters: Parameters, product: Product, to: QuantizedType | None
) -> SSAValue | None:
    """`product` of codes by codes, as codes of `to` or (None) as the real numbers of its sums.

    None, and nothing changes, where integers do not express it.
    """
    x = activation_codes(product.op.operands[0])
    weight = parameters.sole(product.op.operands[1])
    bias = None if product.bias is None else parameters.sole(product.bias)
    if x is None or weight is None or (product.bias is not None and bias is None):
        return None
    if not isinstance(type_of(weight.value).element_type, QuantizedType):
        return None
    try:
        return _Quantized(b, parameters, product, x, weight, bias).build(to)
    except VerifyException:
        return None


@dataclass(frozen=True)
class _Quantized:
    """A product whose operands are all codes; the bias may be f32 yet."""

    b: Builder
    parameters: Parameters
    product: Product
    x: SSAValue
    weight: train.ParameterOp
    bias: train.ParameterOp | None

    def build(self, to: QuantizedType | None) -> SSAValue:
        """Checks first, with VerifyException, and changes the store last."""
        filters = self._filters()
        axis = filters.axis
        scales = filters.scales * element_of(self.x).scales
        sums = QuantizedType.of(i32, scales, axis=axis)
        offsets = self._offsets(sums)
        if to is not None:
            convolution_rescaling(element_of(self.x), filters, to)
        fan_in = prod(shape_of(self.weight.value)) // self._channels
        largest = int(np.abs(offsets.astype(np.int64)).max())
        require(fan_in * _LARGEST_TERM + largest <= _LARGEST_SUM, "sums may overflow")

        w, bias = self._weight_value(filters), self._bias_value(offsets, sums)
        result = QuantizedType.of(i32, scales, axis=None if axis is None else 3)
        y = self._convolution(w, bias, result if to is None else to)
        real = self.b.dequantize(y) if to is None else y
        return self.b.reshape(real, shape_of(self.product.result))

    @property
    def _channels(self) -> int:
        return shape_of(self.product.result)[-1]

    def _filters(self) -> QuantizedType:
        """The element type of the filter, output channels first."""
        element, axis = element_of(self.weight.value), self.product.output_axis
        require(element.storage == i8 and element.zero_point == 0, "weights are symmetric i8 codes")
        require(element.axis in (None, axis), "scales are those of output channels")
        return QuantizedType.of(i8, element.scales, axis=None if element.axis is None else 0)

    def _offsets(self, sums: QuantizedType) -> NDArray[np.int32]:
        """The bias in the scales of the sums."""
        if self.bias is None:
            return np.zeros(self._channels, np.int32)
        stored = self.parameters.store[self.bias.key]
        element = type_of(self.bias.value).element_type
        if element == sums:
            return stored.astype(np.int32)
        real = from_codes(stored, element) if isinstance(element, QuantizedType) else stored
        exact = np.rint(real.astype(np.float64) / sums.scales)
        require(bool(np.all(np.abs(exact) <= _LARGEST_BIAS)), "a bias leaves 31 bits")
        return exact.astype(np.int32)

    def _weight_value(self, filters: QuantizedType) -> SSAValue:
        if isinstance(self.product.op, nn.Conv2dOp):
            return self.weight.value
        codes = self.parameters.store[self.weight.key]
        rows = codes.T if self.product.output_axis else codes
        images = rows.reshape(self._channels, 1, 1, -1)
        return self.parameters.restore(self.b, self.weight, images, filters)

    def _bias_value(self, offsets: NDArray[np.int32], sums: QuantizedType) -> SSAValue:
        if self.bias is not None:
            return self.parameters.restore(self.b, self.bias, offsets, sums)
        name = f"{self.weight.key}.no_bias"
        return self.b.parameter(self.parameters.store, name, offsets, fixed=True, element=sums)

    def _convolution(self, w: SSAValue, bias: SSAValue, to: QuantizedType) -> SSAValue:
        op = self.product.op
        if isinstance(op, nn.MatmulOp):
            rows, depth = shape_of(op.a)
            images = self.b.reshape(self.x, [rows, 1, 1, depth])
            return self.b.quantized_conv2d(images, w, bias, to)
        window = op.window
        return self.b.quantized_conv2d(
            self.x, w, bias, to, window.strides, window.padding, window.dilation, window.groups
        )
