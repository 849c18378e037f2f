"""Local simplifications of operations that move elements or reduce.

A rule returns the value that replaces the operation's result, or None. It inserts new operations
through the builder, which carries the location of the old one.
"""

from collections.abc import Sequence

from xdsl.ir import OpResult

from niwaki.ir.builder import Builder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_ints, ints, shape_of, type_of


def simplify_reshape(op: nn.ReshapeOp, b: Builder) -> Value | None:
    """No change of shape; reshape of a reshape."""
    if op.x.type == op.y.type:
        return op.x
    if isinstance(op.x, OpResult) and isinstance(op.x.op, nn.ReshapeOp):
        return b.reshape(op.x.op.x, shape_of(op.y))
    return None


def simplify_broadcast(op: nn.BroadcastOp, b: Builder) -> Value | None:
    """No change of shape; broadcast of a broadcast or of a constant."""
    if op.x.type == op.y.type:
        return op.x
    if not isinstance(op.x, OpResult):
        return None
    if isinstance(op.x.op, nn.BroadcastOp):
        return b.broadcast(op.x.op.x, shape_of(op.y))
    if isinstance(op.x.op, nn.ConstantOp):
        return b.one(nn.ConstantOp.make(value=op.x.op.value, shape=shape_of(op.y)))
    return None


def simplify_transpose(op: nn.TransposeOp, b: Builder) -> Value | None:
    """Transpose of a transpose; only dimensions of size 1 move."""
    permutation = get_ints(op.properties, "permutation")
    if isinstance(op.x, OpResult) and isinstance(op.x.op, nn.TransposeOp):
        inner = get_ints(op.x.op.properties, "permutation")
        return b.transpose(op.x.op.x, [inner[p] for p in permutation])
    shape = shape_of(op.x)
    moved = [p for p in permutation if shape[p] != 1]
    return b.reshape(op.x, shape_of(op.y)) if moved == sorted(moved) else None


def simplify_pad(op: nn.PadOp, b: Builder) -> Value | None:
    """No padding; pad of a pad with the same value."""
    if op.x.type == op.y.type:
        return op.x
    if not (isinstance(op.x, OpResult) and isinstance(op.x.op, nn.PadOp)):
        return None
    inner = op.x.op
    gaps = (*get_ints(op.properties, "interior"), *get_ints(inner.properties, "interior"))
    if any(gaps) or op.value != inner.value:
        return None
    return b.pad(
        inner.x, _sum_of(op, inner, "low"), _sum_of(op, inner, "high"), value=op.value.value.data
    )


def _sum_of(op: nn.PadOp, inner: nn.PadOp, name: str) -> list[int]:
    pairs = zip(get_ints(op.properties, name), get_ints(inner.properties, name), strict=True)
    return [a + b for a, b in pairs]


def simplify_slice(op: nn.SliceOp, b: Builder) -> Value | None:
    """The whole; slice of a slice."""
    if op.x.type == op.y.type:
        return op.x
    if not (isinstance(op.x, OpResult) and isinstance(op.x.op, nn.SliceOp)):
        return None
    inner = op.x.op
    starts, steps = (get_ints(op.properties, k) for k in ("starts", "steps"))
    inner_starts, inner_steps = (get_ints(inner.properties, k) for k in ("starts", "steps"))
    return b.slice(
        inner.x,
        [i + s * step for i, s, step in zip(inner_starts, starts, inner_steps, strict=True)],
        shape_of(op.y),
        [s * step for s, step in zip(steps, inner_steps, strict=True)],
    )


def simplify_concat(op: nn.ConcatOp, b: Builder) -> Value | None:
    """Of one operand."""
    return op.xs[0] if len(op.xs) == 1 else None


def simplify_reduction(op: nn.Reduction, b: Builder) -> Value | None:
    """Axes of size 1 drop out; a sum of sums (a maximum of maxima) is one."""
    axes = get_ints(op.properties, "axes")
    shape = shape_of(op.x)
    real = [a for a in axes if shape[a] != 1]
    if not real:
        return op.x
    if len(real) < len(axes):
        return _reduction(op, op.x, real, b)
    inner = op.x.op if isinstance(op.x, OpResult) else None
    if not isinstance(op, nn.ReduceMeanOp) and isinstance(inner, type(op)):
        both = sorted({*axes, *get_ints(inner.properties, "axes")})
        return _reduction(op, inner.x, both, b)
    return None


def _reduction(op: nn.Reduction, x: Value, axes: Sequence[int], b: Builder) -> Value:
    return b.one(type(op).make(x, axes=axes))


def fold_pad_into_conv2d(op: nn.Conv2dOp, b: Builder) -> Value | None:
    """A pad of height and width with 0 becomes the convolution's own padding."""
    if not (isinstance(op.x, OpResult) and isinstance(op.x.op, nn.PadOp)):
        return None
    pad = op.x.op
    low, high, interior = (get_ints(pad.properties, k) for k in ("low", "high", "interior"))
    outside = (low[0], low[3], high[0], high[3])
    if any(interior) or any(outside) or pad.value.value.data != 0:
        return None
    extra = (low[1], low[2], high[1], high[2])
    padding = [p + e for p, e in zip(op.window.padding, extra, strict=True)]
    properties = {**op.properties, "padding": ints(padding)}
    return b.one(
        nn.Conv2dOp.create(
            operands=[pad.x, op.w], properties=properties, result_types=[type_of(op.y)]
        )
    )
