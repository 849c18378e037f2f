"""Evaluates the integer arithmetic that exporters write to compute shapes."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import MAX_RANK, Array, checked_axes, checked_axis
from niwaki.frontends.onnx_operands import FLOAT, Operands
from niwaki.ir.dialects.tensor_op import broadcast_shapes, require

Integers: TypeAlias = NDArray[np.int64]

MAX_ELEMENTS = 4096
"""Shapes are short; larger integer arrays are data."""


def _gather(a: Operands, xs: Sequence[Array]) -> Array:
    axis = checked_axis(a.integer("axis", 0), xs[0].ndim)
    size = xs[0].shape[axis]
    require(bool(np.all((xs[1] >= -size) & (xs[1] < size))), "an index leaves the input")
    return np.take(xs[0], xs[1].astype(np.int64), axis)


def _concat(a: Operands, xs: Sequence[Array]) -> Array:
    require(all(x.ndim == 1 for x in xs), "only lists of integers concatenate")
    return np.concatenate(list(xs))


def _unsqueeze(a: Operands, xs: Sequence[Array]) -> Array:
    axes = a.integers_at("axes", 1) or []
    require(len(axes) <= MAX_RANK, "too many axes")
    return np.expand_dims(xs[0], checked_axes(axes, xs[0].ndim + len(axes)))


def _squeeze(a: Operands, xs: Sequence[Array]) -> Array:
    require(xs[0].size == 1, "only one element")
    return xs[0].reshape(())


def _slice(a: Operands, xs: Sequence[Array]) -> Array:
    starts, ends = a.integers_at("starts", 1) or [], a.integers_at("ends", 2) or []
    steps = a.input_integers(4) if a.has(4) else [1]
    require(xs[0].ndim == len(starts) == len(ends) == len(steps) == 1, "only lists of integers")
    require(steps[0] != 0, "a step of 0")
    return xs[0][starts[0] : ends[0] : steps[0]]


def _arithmetic(
    function: Callable[[Integers, Integers], Array],
) -> Callable[[Operands, Sequence[Array]], Array]:
    def fold(a: Operands, xs: Sequence[Array]) -> Array:
        require(len(xs) == 2, "two operands")
        broadcast_shapes(xs[0].shape, xs[1].shape)
        return function(xs[0].astype(np.int64), xs[1].astype(np.int64))

    return fold


def _divide(x: Integers, y: Integers) -> Array:
    require(bool(np.all(y != 0)), "division by zero")
    return np.sign(x) * np.sign(y) * (np.abs(x) // np.abs(y))


FOLDS: Mapping[str, Callable[[Operands, Sequence[Array]], Array]] = {
    "Add": _arithmetic(np.add),
    "Cast": lambda a, xs: xs[0].astype(np.float32) if a.integer("to", FLOAT) == FLOAT else xs[0],
    "Concat": _concat,
    "Div": _arithmetic(_divide),
    "Gather": _gather,
    "Mul": _arithmetic(np.multiply),
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _arithmetic(np.subtract),
    "Unsqueeze": _unsqueeze,
}
"""By operator name; the operands are the arrays of all inputs."""


def fold(op: str, a: Operands, xs: Sequence[Array]) -> Array:
    """The value of an operation on constant integers."""
    if sum(x.size for x in xs) > MAX_ELEMENTS:
        raise Unsupported(f"integer data; at most {MAX_ELEMENTS} elements are evaluated")
    with np.errstate(over="ignore"):
        return np.asarray(FOLDS[op](a, xs))
