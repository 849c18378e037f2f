"""What quantised and integer operations compute. Every result but f32 ones is exact."""

from typing import Any

import numpy as np
from xdsl.dialects.builtin import i32
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.quantized_type import QuantizedType, quantized
from niwaki.ir.dialects.tensor_op import get_int, get_ints, shape_of, type_of
from niwaki.ir.quantization import (
    convolution_rescaling,
    from_codes,
    mean_rescaling,
    rescale,
    sum_rescaling,
)
from niwaki.ir.semantics.composite import random_bits
from niwaki.ir.semantics.contraction import convolve, filter_cotangent, input_cotangent

Array = np.ndarray[Any, np.dtype[Any]]


def _element(value: Any) -> QuantizedType:
    return quantized(type_of(value).element_type)


def _clamped(wide: Array, element: QuantizedType) -> PythonValues:
    """Codes, and where they were not clamped."""
    low, high = element.limits
    return np.clip(wide, low, high).astype(np.int8), (wide >= low) & (wide <= high)


def _integer_conv2d(x: Array, zero_point: int, w: Array, window: nn.Window) -> Array:
    """Exact in float64, whose matrix products are fast: sums stay far below 2^53."""
    differences = x.astype(np.float64) - zero_point
    return convolve(differences, w.astype(np.float64), window).astype(np.int32)


def _wrapped(sums: Array) -> Array:
    """Whole numbers as i32, modulo 2^32 as machines add."""
    return sums.astype(np.int64).astype(np.int32)


@register_impls
class QuantizedFunctions(InterpreterFunctions):
    """The definitions, from the docstrings of the operations."""

    @impl(nn.QuantizeOp)
    def quantize(
        self, interpreter: Interpreter, op: nn.QuantizeOp, args: PythonValues
    ) -> PythonValues:
        element = _element(op.y)
        inverse = np.float32(1) / element.broadcast_scales(args[0].ndim)
        wide = np.rint(args[0] * inverse) + np.float32(element.zero_point)
        return _clamped(wide, element)

    @impl(nn.DequantizeOp)
    def dequantize(
        self, interpreter: Interpreter, op: nn.DequantizeOp, args: PythonValues
    ) -> PythonValues:
        return (from_codes(args[0], _element(op.x)),)

    @impl(nn.CodesOp)
    def codes(self, interpreter: Interpreter, op: nn.CodesOp, args: PythonValues) -> PythonValues:
        return (args[0],)

    @impl(nn.FromCodesOp)
    def from_codes(
        self, interpreter: Interpreter, op: nn.FromCodesOp, args: PythonValues
    ) -> PythonValues:
        return (args[0],)

    @impl(nn.ScalesOp)
    def scales(self, interpreter: Interpreter, op: nn.ScalesOp, args: PythonValues) -> PythonValues:
        return (_element(op.x).scales.reshape(shape_of(op.y)),)

    @impl(nn.QuantizedConv2dOp)
    def quantized_conv2d(
        self, interpreter: Interpreter, op: nn.QuantizedConv2dOp, args: PythonValues
    ) -> PythonValues:
        x, w, bias = args
        source, filters, result = (_element(v) for v in (op.x, op.w, op.y))
        sums = _integer_conv2d(x, source.zero_point, w, op.window) + bias
        if result.storage == i32:
            return sums, np.ones(sums.shape, np.bool_)
        factor = convolution_rescaling(source, filters, result)
        wide = rescale(sums, factor.multipliers, factor.shift, result.zero_point)
        return _clamped(wide, result)

    @impl(nn.QuantizedAddOp)
    def quantized_add(
        self, interpreter: Interpreter, op: nn.QuantizedAddOp, args: PythonValues
    ) -> PythonValues:
        a, b, result = (_element(v) for v in (op.a, op.b, op.y))
        factor = sum_rescaling(a, b, result)
        terms = [
            (codes.astype(np.int32) - element.zero_point) * multiplier
            for codes, element, multiplier in zip(args, (a, b), factor.multipliers, strict=True)
        ]
        one = np.array(1, np.int32)
        return _clamped(rescale(terms[0] + terms[1], one, factor.shift, result.zero_point), result)

    @impl(nn.QuantizedMeanOp)
    def quantized_mean(
        self, interpreter: Interpreter, op: nn.QuantizedMeanOp, args: PythonValues
    ) -> PythonValues:
        axes = get_ints(op.properties, "axes")
        count = int(np.prod([shape_of(op.x)[a] for a in axes]))
        total = args[0].astype(np.int32).sum(axis=axes, keepdims=True, dtype=np.int32)
        factor = mean_rescaling(count)
        return (rescale(total, factor.multipliers, factor.shift, 0).astype(np.int8),)

    @impl(nn.IntegerConv2dOp)
    def integer_conv2d(
        self, interpreter: Interpreter, op: nn.IntegerConv2dOp, args: PythonValues
    ) -> PythonValues:
        zero_point = get_int(op.properties, "zero_point")
        return (_integer_conv2d(args[0], zero_point, args[1], op.window),)

    @impl(nn.IntegerConv2dDxOp)
    def integer_conv2d_dx(
        self, interpreter: Interpreter, op: nn.IntegerConv2dDxOp, args: PythonValues
    ) -> PythonValues:
        dy, w = (a.astype(np.float64) for a in args)
        return (_wrapped(input_cotangent(dy, w, op.window, shape_of(op.dx))),)

    @impl(nn.IntegerConv2dDwOp)
    def integer_conv2d_dw(
        self, interpreter: Interpreter, op: nn.IntegerConv2dDwOp, args: PythonValues
    ) -> PythonValues:
        x, dy = (a.astype(np.float64) for a in args)
        differences = x - get_int(op.properties, "zero_point")
        return (_wrapped(filter_cotangent(differences, dy, op.window, shape_of(op.dw))),)

    @impl(nn.RescaleOp)
    def rescale(
        self, interpreter: Interpreter, op: nn.RescaleOp, args: PythonValues
    ) -> PythonValues:
        shift, zero_point = (get_int(op.properties, name) for name in ("shift", "zero_point"))
        return (rescale(args[0], args[1], shift, zero_point),)

    @impl(nn.RoundOp)
    def round(self, interpreter: Interpreter, op: nn.RoundOp, args: PythonValues) -> PythonValues:
        return (np.rint(args[0]),)

    @impl(nn.RandomUniformOp)
    def random_uniform(
        self, interpreter: Interpreter, op: nn.RandomUniformOp, args: PythonValues
    ) -> PythonValues:
        shape = shape_of(op.y)
        seed = get_int(op.properties, "seed")
        bits = random_bits(int(np.prod(shape)), int(args[1]), seed) >> np.uint32(8)
        return ((bits.astype(np.float32) * np.float32(2.0**-24)).reshape(shape),)
