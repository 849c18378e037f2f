"""What constants, reductions and moves of elements compute."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, get_ints, shape_of, type_of
from niwaki.ir.dtypes import dtype_of

Array = np.ndarray[Any, np.dtype[Any]]


def total(x: Array, axes: Sequence[int]) -> Array:
    """Sum over `axes`, which stay with size 1; floats accumulate in float64, rounded once."""
    accumulator = np.float64 if np.issubdtype(x.dtype, np.floating) else x.dtype
    return x.sum(tuple(axes), accumulator, keepdims=True).astype(x.dtype)


def mean(x: Array, axes: Sequence[int]) -> Array:
    """Mean over `axes`, which stay with size 1; accumulates in float64, rounded once."""
    return x.mean(tuple(axes), np.float64, keepdims=True).astype(x.dtype)


@register_impls
class ShapeFunctions(InterpreterFunctions):
    """Moves keep every element's dtype."""

    @impl(nn.ConstantOp)
    def constant(
        self, interpreter: Interpreter, op: nn.ConstantOp, args: PythonValues
    ) -> PythonValues:
        result = type_of(op.y)
        value = op.value.value.data
        return (np.full(result.get_shape(), value, dtype_of(result.element_type)),)

    @impl(nn.ReduceSumOp)
    def reduce_sum(
        self, interpreter: Interpreter, op: nn.ReduceSumOp, args: PythonValues
    ) -> PythonValues:
        return (total(args[0], get_ints(op.properties, "axes")),)

    @impl(nn.ReduceMeanOp)
    def reduce_mean(
        self, interpreter: Interpreter, op: nn.ReduceMeanOp, args: PythonValues
    ) -> PythonValues:
        return (mean(args[0], get_ints(op.properties, "axes")),)

    @impl(nn.ReduceMaxOp)
    def reduce_max(
        self, interpreter: Interpreter, op: nn.ReduceMaxOp, args: PythonValues
    ) -> PythonValues:
        return (args[0].max(get_ints(op.properties, "axes"), keepdims=True),)

    @impl(nn.ReshapeOp)
    def reshape(
        self, interpreter: Interpreter, op: nn.ReshapeOp, args: PythonValues
    ) -> PythonValues:
        return (args[0].reshape(shape_of(op.y)),)

    @impl(nn.BroadcastOp)
    def broadcast(
        self, interpreter: Interpreter, op: nn.BroadcastOp, args: PythonValues
    ) -> PythonValues:
        return (np.broadcast_to(args[0], shape_of(op.y)),)

    @impl(nn.TransposeOp)
    def transpose(
        self, interpreter: Interpreter, op: nn.TransposeOp, args: PythonValues
    ) -> PythonValues:
        return (args[0].transpose(get_ints(op.properties, "permutation")),)

    @impl(nn.PadOp)
    def pad(self, interpreter: Interpreter, op: nn.PadOp, args: PythonValues) -> PythonValues:
        (x,) = args
        low, interior = (get_ints(op.properties, k) for k in ("low", "interior"))
        result = np.full(shape_of(op.y), op.value.value.data, x.dtype)
        places = tuple(
            slice(start, start + size * (gap + 1) - gap, gap + 1)
            for start, size, gap in zip(low, x.shape, interior, strict=True)
        )
        result[places] = x
        return (result,)

    @impl(nn.SliceOp)
    def slice(self, interpreter: Interpreter, op: nn.SliceOp, args: PythonValues) -> PythonValues:
        starts, sizes, steps = (get_ints(op.properties, k) for k in ("starts", "sizes", "steps"))
        places = tuple(
            slice(start, start + (size - 1) * step + 1, step)
            for start, size, step in zip(starts, sizes, steps, strict=True)
        )
        return (args[0][places],)

    @impl(nn.ConcatOp)
    def concat(self, interpreter: Interpreter, op: nn.ConcatOp, args: PythonValues) -> PythonValues:
        return (np.concatenate(args, get_int(op.properties, "axis")),)

    @impl(nn.OneHotOp)
    def one_hot(
        self, interpreter: Interpreter, op: nn.OneHotOp, args: PythonValues
    ) -> PythonValues:
        classes = np.arange(get_int(op.properties, "depth"))
        return ((args[0] == classes).astype(dtype_of(type_of(op.y).element_type)),)

    @impl(nn.GatherOp)
    def gather(self, interpreter: Interpreter, op: nn.GatherOp, args: PythonValues) -> PythonValues:
        table, indices = args
        inside = (indices >= 0) & (indices < len(table))
        rows = table[np.where(inside, indices, 0)]
        return (np.where(inside[..., None], rows, table.dtype.type(0)),)

    @impl(nn.ScatterAddOp)
    def scatter_add(
        self, interpreter: Interpreter, op: nn.ScatterAddOp, args: PythonValues
    ) -> PythonValues:
        x, indices = args
        y = np.zeros(shape_of(op.y), x.dtype)
        inside = (indices >= 0) & (indices < len(y))
        np.add.at(y, indices[inside], x[inside])
        return (y,)

    @impl(nn.AddRowsOp)
    def add_rows(
        self, interpreter: Interpreter, op: nn.AddRowsOp, args: PythonValues
    ) -> PythonValues:
        table, x, indices = args
        y = table.copy()
        inside = (indices >= 0) & (indices < len(y))
        np.add.at(y, indices[inside], x[inside])
        return (y,)

    @impl(nn.CountCorrectOp)
    def count_correct(
        self, interpreter: Interpreter, op: nn.CountCorrectOp, args: PythonValues
    ) -> PythonValues:
        logits, labels = args
        return (np.sum(logits.argmax(1) == labels, dtype=np.int32),)
