"""What pooling computes: one pass over the output per kernel tap."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_ints, shape_of
from niwaki.ir.semantics.taps import cropped, padded, padded_zeros, taps

Array = np.ndarray[Any, np.dtype[Any]]


def _kernel(op: nn.Pooling) -> tuple[int, ...]:
    return get_ints(op.properties, "kernel_size")


def _counts(
    op: nn.AvgPool2dOp | nn.AvgPool2dGradOp,
    input_size: Sequence[int],
    output_size: Sequence[int],
    dtype: np.dtype[Any],
) -> Array:
    """What each window's sum is divided by: [1, output height, output width, 1]."""
    kernel = _kernel(op)
    if op.count_include_pad.value.data:
        return np.full((1, 1, 1, 1), kernel[0] * kernel[1], dtype)
    inside = padded(np.ones((1, *input_size, 1), dtype), op.window)
    counts = np.zeros((1, *output_size, 1), dtype)
    for _, _, seen in taps(inside, op.window, kernel, output_size):
        counts += seen
    return counts


@register_impls
class PoolingFunctions(InterpreterFunctions):
    """Padding takes part in no maximum, and in a mean only with `count_include_pad`."""

    @impl(nn.MaxPool2dOp)
    def max_pool2d(
        self, interpreter: Interpreter, op: nn.MaxPool2dOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        window, kernel, shape = op.window, _kernel(op), shape_of(op.y)
        y, index, found = np.zeros(shape, x.dtype), np.zeros(shape, np.int8), np.zeros(shape, bool)
        values = taps(padded(x, window), window, kernel, shape[1:3])
        insides = taps(padded(np.ones(x.shape, bool), window), window, kernel, shape[1:3])
        for (i, j, value), (_, _, inside) in zip(values, insides, strict=True):
            better = inside & (~found | (value > y))
            y = np.where(better, value, y)
            index = np.where(better, np.int8(i * kernel[1] + j), index)
            found |= inside
        return y, index

    @impl(nn.MaxPool2dGradOp)
    def max_pool2d_grad(
        self, interpreter: Interpreter, op: nn.MaxPool2dGradOp, args: PythonValues
    ) -> PythonValues:
        dy, index = args
        window, kernel = op.window, _kernel(op)
        dx = padded_zeros(shape_of(op.dx), window, dy.dtype)
        for i, j, seen in taps(dx, window, kernel, dy.shape[1:3]):
            seen += np.where(index == i * kernel[1] + j, dy, 0)
        return (cropped(dx, window),)

    @impl(nn.AvgPool2dOp)
    def avg_pool2d(
        self, interpreter: Interpreter, op: nn.AvgPool2dOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        window, shape = op.window, shape_of(op.y)
        y = np.zeros(shape, x.dtype)
        for _, _, seen in taps(padded(x, window), window, _kernel(op), shape[1:3]):
            y += seen
        return (y / _counts(op, x.shape[1:3], shape[1:3], x.dtype),)

    @impl(nn.AvgPool2dGradOp)
    def avg_pool2d_grad(
        self, interpreter: Interpreter, op: nn.AvgPool2dGradOp, args: PythonValues
    ) -> PythonValues:
        (dy,) = args
        window, shape = op.window, shape_of(op.dx)
        share = dy / _counts(op, shape[1:3], dy.shape[1:3], dy.dtype)
        dx = padded_zeros(shape, window, dy.dtype)
        for _, _, seen in taps(dx, window, _kernel(op), dy.shape[1:3]):
            seen += share
        return (cropped(dx, window),)
