"""What all gradient rules share: their signature, and small helpers."""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from xdsl.ir import OpResult, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import shape_of

Cotangents: TypeAlias = Sequence[SSAValue | None]

Rule: TypeAlias = Callable[[Builder, Any, SSAValue, Sequence[bool]], Cotangents]
"""rule(builder, op, cotangent of the first result, needed) -> cotangent of each operand.

`needed` tells for each operand whether its cotangent is wanted; None is returned for the others.
Only the first result of an operation is differentiable.
"""


def sum_to(b: Builder, x: SSAValue, shape: Sequence[int]) -> SSAValue:
    """Undoes broadcasting: sums `x` over the dimensions along which `shape` was repeated."""
    whole = shape_of(x)
    padded = (1,) * (len(whole) - len(shape)) + tuple(shape)
    axes = [i for i, (w, p) in enumerate(zip(whole, padded, strict=True)) if w != p]
    return b.reshape(b.reduce_sum(x, axes) if axes else x, shape)


def leading(b: Builder, x: SSAValue, axis: int, size: int) -> SSAValue:
    """The first `size` elements of `x` along `axis`."""
    sizes = list(shape_of(x))
    sizes[axis] = size
    return b.slice(x, [0] * len(sizes), sizes)


def wanted_box(value: SSAValue) -> tuple[int, ...]:
    """The sizes of the leading box whose cotangent is wanted: smaller for sparse updates."""
    if isinstance(value, OpResult) and isinstance(value.op, train.ParameterOp):
        return value.op.update_box or shape_of(value)
    return shape_of(value)
