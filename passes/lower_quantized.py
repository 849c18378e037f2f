"""`lower-quantized`: quantised tensors become plain integers, and their operations exact ones.

What depends on scales becomes numbers: multipliers and shifts of `nn.rescale` (constants of the
weight store), zero points, factors. Behind this pass there is no quantised type.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32, i8, i32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.quantized_type import QuantizedType, quantized
from niwaki.ir.dialects.tensor_op import get_ints, shape_of, tensor, type_of
from niwaki.ir.quantization import (
    Rescaling,
    convolution_rescaling,
    mean_rescaling,
    sum_rescaling,
)
from niwaki.ir.weights import WeightStore, content_hash
from niwaki.passes.functions import functions

Values: TypeAlias = Sequence[SSAValue]

_SCALE_TOLERANCE = 2.0**-14
"""Relative; learning does not see it."""


@dataclass(frozen=True)
class LowerQuantizedPass(ModulePass):
    """Replaces every quantised operation and type."""

    name = "lower-quantized"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            _lower(function, _Constants(weights_of(ctx)))


def _lower(function: FuncOp, constants: "_Constants") -> None:
    block = function.body.block
    for op in block.ops:
        lowering = LOWERINGS.get(type(op))
        if lowering is not None:
            Rewriter.replace_op(op, [], lowering(Builder.before(op), constants, op))
    for op in block.ops:
        if isinstance(op, nn.CodesOp | nn.FromCodesOp):
            Rewriter.replace_op(op, [], [op.x])
    for value in (*block.args, *(r for op in block.ops for r in op.results)):
        declared = type_of(value)
        if isinstance(declared.element_type, QuantizedType):
            plain = tensor(declared.get_shape(), declared.element_type.storage)
            Rewriter.replace_value_with_new_type(value, plain)
    function.update_function_type()


class _Constants:
    """Arrays that come out of types, as fixed parameters; equal ones are one."""

    def __init__(self, store: WeightStore) -> None:
        self.store = store
        self._multiples: dict[str, tuple[NDArray[np.int32], np.float32]] = {}
        """Hash of scales -> the multipliers of a convolution and what they count in."""

    def value(self, b: Builder, array: NDArray[np.generic]) -> SSAValue:
        """`array` (f32 or i32); a scalar where all its elements are equal."""
        first = array.flat[0]
        if np.all(array == first):
            element = f32 if array.dtype == np.float32 else i32
            return b.constant(first.item(), (), element)
        stored = np.array(array, order="C")
        name = f"quantized.{content_hash(stored)}"
        return b.parameter(self.store, name, stored, fixed=True)

    def relate(self, scales: NDArray[np.float32], multipliers: NDArray[np.int32]) -> None:
        """Notes that `scales` need no array where `multipliers` are stored, if they hardly differ.

        The backward pass then works with the factors that the forward pass really uses.
        """
        if scales.shape != multipliers.shape or not np.all(multipliers > 0):
            return
        largest = np.argmax(multipliers)
        unit = np.float32(scales[largest] / np.float64(multipliers[largest]))
        multiples = multipliers.astype(np.float32) * unit
        if np.all(np.abs(multiples - scales) <= _SCALE_TOLERANCE * scales):
            self._multiples[content_hash(scales)] = multipliers, unit

    def scales(self, b: Builder, scales: NDArray[np.float32]) -> SSAValue:
        """Scales by channel, f32."""
        if (related := self._multiples.get(content_hash(scales))) is None:
            return self.value(b, scales)
        multipliers, unit = related
        return b.scale(b.cast(self.value(b, multipliers)), float(unit))


def _element(value: SSAValue) -> QuantizedType:
    return quantized(type_of(value).element_type)


def _differences(b: Builder, x: SSAValue) -> SSAValue:
    """Codes - zero point, i32."""
    codes = b.cast(b.codes(x), i32)
    return b.sub(codes, b.number(_element(x).zero_point, codes))


def _clamped(b: Builder, wide: SSAValue, element: QuantizedType) -> Values:
    """Codes of `element` and where they were not clamped, from unbounded i32 or f32 codes."""
    low, high = (b.number(limit, wide) for limit in element.limits)
    inside = b.logical_and(b.compare(wide, low, "ge"), b.compare(wide, high, "le"))
    codes = b.cast(b.max(b.min(wide, high), low), i8)
    return [b.from_codes(codes, element), inside]


def _rescaled(
    b: Builder, constants: _Constants, sums: SSAValue, factor: Rescaling, zero_point: int
) -> SSAValue:
    multipliers = constants.value(b, factor.multipliers)
    return b.rescale(sums, multipliers, factor.shift, zero_point)


def _conv2d(b: Builder, constants: _Constants, op: nn.QuantizedConv2dOp) -> Values:
    x, w, result = (_element(v) for v in (op.x, op.w, op.y))
    products = b.one(
        nn.IntegerConv2dOp.make(
            b.codes(op.x),
            b.codes(op.w),
            strides=op.strides,
            padding=op.padding,
            dilation=op.dilation,
            groups=op.groups,
            zero_point=x.zero_point,
        )
    )
    sums = b.add(products, b.codes(op.bias))
    if result.storage == i32:
        return [b.from_codes(sums, result), b.compare(sums, sums, "eq")]
    factor = convolution_rescaling(x, w, result)
    for element in (w, _element(op.bias)):
        constants.relate(element.scales, factor.multipliers)
    return _clamped(b, _rescaled(b, constants, sums, factor, result.zero_point), result)


def _add(b: Builder, constants: _Constants, op: nn.QuantizedAddOp) -> Values:
    result = _element(op.y)
    factor = sum_rescaling(_element(op.a), _element(op.b), result)
    terms = [
        b.mul(_differences(b, x), b.constant(int(multiplier), (), i32))
        for x, multiplier in zip((op.a, op.b), factor.multipliers, strict=True)
    ]
    total = b.add(terms[0], terms[1])
    wide = b.rescale(total, b.constant(1, (), i32), factor.shift, result.zero_point)
    return _clamped(b, wide, result)


def _mean(b: Builder, constants: _Constants, op: nn.QuantizedMeanOp) -> Values:
    axes = get_ints(op.properties, "axes")
    total = b.reduce_sum(b.cast(b.codes(op.x), i32), axes)
    factor = mean_rescaling(prod(shape_of(op.x)[a] for a in axes))
    return [b.from_codes(b.cast(_rescaled(b, constants, total, factor, 0), i8), _element(op.x))]


def _quantize(b: Builder, constants: _Constants, op: nn.QuantizeOp) -> Values:
    result = _element(op.y)
    inverse = np.float32(1) / result.broadcast_scales(len(shape_of(op.x)))
    rounded = b.round(b.mul(op.x, constants.value(b, inverse)))
    return _clamped(b, b.add(rounded, b.number(result.zero_point, rounded)), result)


def _dequantize(b: Builder, constants: _Constants, op: nn.DequantizeOp) -> Values:
    differences = b.cast(_differences(b, op.x), f32)
    scales = _element(op.x).broadcast_scales(len(shape_of(op.x)))
    return [b.mul(differences, constants.value(b, scales))]


def _scales(b: Builder, constants: _Constants, op: nn.ScalesOp) -> Values:
    scales = constants.scales(b, _element(op.x).scales)
    return [b.broadcast(scales, shape_of(op.y))]


LOWERINGS: Mapping[type[Operation], Callable[[Builder, _Constants, Any], Values]] = {
    nn.QuantizeOp: _quantize,
    nn.DequantizeOp: _dequantize,
    nn.ScalesOp: _scales,
    nn.QuantizedConv2dOp: _conv2d,
    nn.QuantizedAddOp: _add,
    nn.QuantizedMeanOp: _mean,
}
"""(builder, constants, operation) -> what replaces its results."""
