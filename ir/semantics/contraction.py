"""What convolutions and matrix products compute: one batched matrix product per kernel tap."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import Operation

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.semantics.narrow import widen
from niwaki.ir.semantics.taps import cropped, padded, padded_zeros, taps

Array = np.ndarray[Any, np.dtype[Any]]


def _by_group(x: Array, groups: int) -> Array:
    """[N, H, W, C] to [groups, N * H * W, C / groups]."""
    return np.moveaxis(x.reshape(-1, groups, x.shape[3] // groups), 1, 0)


def _from_groups(x: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `_by_group`, to `shape`."""
    return np.moveaxis(x, 0, 1).reshape(shape)


def _filter_by_group(w: Array, groups: int) -> Array:
    """[O, I] to [groups, O / groups, I]."""
    return w.reshape(groups, w.shape[0] // groups, w.shape[1])


def _wide(op: Operation, args: PythonValues) -> list[Array]:
    """The operands as they enter the products."""
    kinds = [type_of(o).element_type for o in op.operands]
    return [widen(a, kind) for a, kind in zip(args, kinds, strict=True)]


def convolve(x: Array, w: Array, window: nn.Window) -> Array:
    """The convolution of an NHWC input with OHWI filters, in the dtype of `x`."""
    height, width = window.output_size(x.shape[1:3], w.shape[1:3])
    shape = (x.shape[0], height, width, w.shape[0])
    y = np.zeros(shape, x.dtype)
    for i, j, seen in taps(padded(x, window), window, w.shape[1:3], shape[1:3]):
        filters = _filter_by_group(w[:, i, j], window.groups)
        products = _by_group(seen, window.groups) @ filters.swapaxes(1, 2)
        y += _from_groups(products, shape)
    return y


def input_cotangent(dy: Array, w: Array, window: nn.Window, shape: Sequence[int]) -> Array:
    """The cotangent of a convolution's input of `shape`, in the dtype of `dy`."""
    dx = padded_zeros(shape, window, dy.dtype)
    cotangents = _by_group(dy, window.groups)
    for i, j, seen in taps(dx, window, w.shape[1:3], dy.shape[1:3]):
        products = cotangents @ _filter_by_group(w[:, i, j], window.groups)
        seen += _from_groups(products, seen.shape)
    return cropped(dx, window)


def filter_cotangent(x: Array, dy: Array, window: nn.Window, shape: Sequence[int]) -> Array:
    """The cotangent of a convolution's filter of `shape`, in the dtype of `x`."""
    dw = np.empty(shape, x.dtype)
    cotangents = _by_group(dy, window.groups).swapaxes(1, 2)
    for i, j, seen in taps(padded(x, window), window, shape[1:3], dy.shape[1:3]):
        products = cotangents @ _by_group(seen, window.groups)
        dw[:, i, j] = products.reshape(dw.shape[0], dw.shape[3])
    return dw


@register_impls
class ContractionFunctions(InterpreterFunctions):
    """Sums in the dtype of the operands, in f32 if they are narrow."""

    @impl(nn.Conv2dOp)
    def conv2d(self, interpreter: Interpreter, op: nn.Conv2dOp, args: PythonValues) -> PythonValues:
        return (convolve(args[0], args[1], op.window),)

    @impl(nn.Conv2dDxOp)
    def conv2d_dx(
        self, interpreter: Interpreter, op: nn.Conv2dDxOp, args: PythonValues
    ) -> PythonValues:
        return (input_cotangent(args[0], args[1], op.window, shape_of(op.dx)),)

    @impl(nn.Conv2dDwOp)
    def conv2d_dw(
        self, interpreter: Interpreter, op: nn.Conv2dDwOp, args: PythonValues
    ) -> PythonValues:
        x, dy = _wide(op, args)
        return (filter_cotangent(x, dy, op.window, shape_of(op.dw)),)

    @impl(nn.MatmulOp)
    def matmul(self, interpreter: Interpreter, op: nn.MatmulOp, args: PythonValues) -> PythonValues:
        a, b = _wide(op, args)
        a = a.swapaxes(-1, -2) if op.transpose_a.value.data else a
        b = b.swapaxes(-1, -2) if op.transpose_b.value.data else b
        return (a @ b,)
