"""Operations that can be computed a strip at a time, along the samples or along the rows.

A strip is a range of dimension 0 (samples of a batch, rows of a matrix) or, of NHWC tensors, a
range of dimension 1 (the rows of one image at a time).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from xdsl.dialects.builtin import BoolAttr
from xdsl.ir import Attribute, Operation

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, get_ints, ints, shape_of, tensor_bytes, type_of
from niwaki.passes.product_flops import product_flops
from niwaki.passes.strips.row_reaches import Reach, Rows, Same, Scaled, Window, Windows

SAMPLES, ROWS = 0, 1
"""The dimensions that can be cut."""


@dataclass(frozen=True)
class Cut:
    """An operand of which a strip needs a part."""

    reach: Reach | None
    """Which rows; None: all rows of the sample."""


Properties: TypeAlias = Callable[[Rows], Mapping[str, Attribute]]


def _unchanged(rows: Rows) -> Mapping[str, Attribute]:
    return {}


@dataclass(frozen=True, eq=False)
class RowOp:
    """An operation that can be computed a strip at a time."""

    op: Operation
    operands: tuple[Cut | None, ...]
    """Of each operand; None: it is used whole."""
    rows: int
    """Rows of the result, or of what is summed up."""
    sums: bool = False
    """Whether the strips' results add up to the whole, instead of lying one behind another."""
    properties: Properties = _unchanged
    """What changes for a strip."""

    @cached_property
    def bytes(self) -> tuple[int, ...]:
        """Of each whole result."""
        return tuple(tensor_bytes(type_of(r)) for r in self.op.results)

    @cached_property
    def samples(self) -> frozenset[int]:
        """Sizes of the first dimension of all that is cut."""
        cut = [o for o, p in zip(self.op.operands, self.operands, strict=True) if p is not None]
        results = () if self.sums else self.op.results
        return frozenset(shape_of(value)[0] for value in (*cut, *results))

    @cached_property
    def flops(self) -> int:
        """Multiply-adds of one row, counted as two; elementwise work is free."""
        return product_flops(self.op) // self.rows


def row_op(op: Operation, axis: int) -> RowOp | None:
    """How `op` is cut along `axis`; None if it cannot be."""
    rule = _RULES.get(type(op))
    # The elements of nn.random_uniform know their places in the whole.
    if rule is None and isinstance(op, nn.Elementwise) and not isinstance(op, nn.RandomUniformOp):
        rule = _elementwise
    found = None if rule is None else rule(op, axis)
    return None if found is None or found.rows == 1 else found


def _sized(name: str, op: Operation, axis: int) -> Properties:
    """A strip of a result whose shape is a property."""

    def properties(rows: Rows) -> Mapping[str, Attribute]:
        sizes = list(get_ints(op.properties, name))
        sizes[axis] = rows[1] - rows[0]
        if axis == ROWS:
            sizes[SAMPLES] = 1
        return {name: ints(sizes)}

    return properties


def _elementwise(op: Any, axis: int) -> RowOp | None:
    shape = shape_of(op.results[0])
    if not _can_cut(shape, axis):
        return None
    parts = tuple(_broadcast_part(shape_of(o), shape, axis) for o in op.operands)
    return RowOp(op, parts, shape[axis])


def _broadcast(op: nn.BroadcastOp, axis: int) -> RowOp | None:
    found = _elementwise(op, axis)
    return None if found is None else replace(found, properties=_sized("shape", op, axis))


def _can_cut(shape: Sequence[int], axis: int) -> bool:
    return len(shape) == 4 if axis == ROWS else len(shape) > 0


def _broadcast_part(operand: Sequence[int], result: Sequence[int], axis: int) -> Cut | None:
    if len(operand) < len(result):
        return None
    if axis == ROWS and operand[ROWS] == 1:
        return None if operand[SAMPLES] == 1 else Cut(None)
    return None if operand[axis] == 1 < result[axis] else Cut(Same())


def _conv2d(op: nn.Conv2dOp | nn.IntegerConv2dOp, axis: int) -> RowOp:
    if axis == SAMPLES:
        return RowOp(op, (Cut(Same()), None), shape_of(op.y)[0])
    reach = Window(*_span(op, shape_of(op.w)[1]), shape_of(op.x)[1])
    return RowOp(op, (Cut(reach), None), shape_of(op.y)[1], properties=_padded(op, reach))


def _conv2d_dx(op: nn.Conv2dDxOp | nn.IntegerConv2dDxOp, axis: int) -> RowOp:
    if axis == SAMPLES:
        return RowOp(op, (Cut(Same()), None), shape_of(op.dx)[0])
    reach = Windows(*_span(op, shape_of(op.w)[1]), shape_of(op.dy)[1])
    return RowOp(op, (Cut(reach), None), shape_of(op.dx)[1], properties=_unpadded(op, reach))


def _conv2d_dw(op: nn.Conv2dDwOp | nn.IntegerConv2dDwOp, axis: int) -> RowOp:
    samples, rows = shape_of(op.dy)[:2]
    if axis == SAMPLES:
        return RowOp(op, (Cut(Same()), Cut(Same())), samples, sums=True)
    reach = Window(*_span(op, get_ints(op.properties, "kernel_size")[0]), shape_of(op.x)[1])
    parts = (Cut(reach), Cut(Same()))
    return RowOp(op, parts, rows, sums=True, properties=_padded(op, reach))


def _span(op: nn.Convolution, kernel: int) -> tuple[int, int, int]:
    window = op.window
    return window.strides[0], window.padding[0], window.dilation[0] * (kernel - 1) + 1


def _padded(op: Operation, reach: Reach) -> Properties:
    def properties(rows: Rows) -> Mapping[str, Attribute]:
        _, left, _, right = get_ints(op.properties, "padding")
        top, bottom = reach.padding(rows)
        return {"padding": ints([top, left, bottom, right])}

    return properties


def _unpadded(op: Operation, reach: Reach) -> Properties:
    """For the cotangent of an input, whose size is a property."""
    padded = _padded(op, reach)

    def properties(rows: Rows) -> Mapping[str, Attribute]:
        _, width = get_ints(op.properties, "input_size")
        return {**padded(rows), "input_size": ints([rows[1] - rows[0], width])}

    return properties


def _pool(op: nn.MaxPool2dOp | nn.AvgPool2dOp, axis: int) -> RowOp:
    if axis == SAMPLES:
        return RowOp(op, (Cut(Same()),), shape_of(op.y)[0])
    reach = Window(*_pool_span(op), shape_of(op.x)[1])
    return RowOp(op, (Cut(reach),), shape_of(op.y)[1], properties=_padded(op, reach))


def _pool_grad(op: nn.MaxPool2dGradOp | nn.AvgPool2dGradOp, axis: int) -> RowOp | None:
    size = shape_of(op.dx)
    if axis == SAMPLES:
        return RowOp(op, (Cut(Same()),) * len(op.operands), size[0])
    stride, top, span = _pool_span(op)
    windows = shape_of(op.dy)[1]
    seen = stride <= span and size[1] + top <= (windows - 1) * stride + span
    # What a window counts at a border is not known in the middle.
    partial = isinstance(op, nn.AvgPool2dGradOp) and not op.count_include_pad.value.data
    if not seen or (partial and any(get_ints(op.properties, "padding"))):
        return None
    reach = Windows(stride, top, span, windows)
    unpadded = _unpadded(op, reach)

    def properties(rows: Rows) -> Mapping[str, Attribute]:
        whole = {"count_include_pad": BoolAttr.from_bool(True)} if partial else {}
        return {**unpadded(rows), **whole}

    return RowOp(op, (Cut(reach),) * len(op.operands), size[1], properties=properties)


def _pool_span(op: nn.Pooling) -> tuple[int, int, int]:
    window = op.window
    return window.strides[0], window.padding[0], get_ints(op.properties, "kernel_size")[0]


def _matmul(op: nn.MatmulOp, axis: int) -> RowOp | None:
    if axis == ROWS:
        return None
    transposed = bool(op.transpose_a.value.data), bool(op.transpose_b.value.data)
    if transposed == (True, False):
        return RowOp(op, (Cut(Same()), Cut(Same())), shape_of(op.a)[0], sums=True)
    return None if transposed[0] else RowOp(op, (Cut(Same()), None), shape_of(op.y)[0])


def _reduction(op: nn.Reduction, axis: int) -> RowOp | None:
    shape, axes = shape_of(op.x), get_ints(op.properties, "axes")
    if not _can_cut(shape, axis):
        return None
    if axis not in axes and not (axis == ROWS and SAMPLES in axes and shape[SAMPLES] > 1):
        return RowOp(op, (Cut(Same()),), shape[axis])
    if isinstance(op, nn.ReduceMaxOp) or axis not in axes:
        return None
    return RowOp(op, (Cut(Same()),), shape[axis], sums=True)


def _reshape(op: nn.ReshapeOp, axis: int) -> RowOp | None:
    before, after = shape_of(op.x), shape_of(op.y)
    if not before or not after:
        return None
    if axis == ROWS:
        part = Cut(Same()) if len(before) == len(after) == 4 and before[:2] == after[:2] else None
    else:
        multiple = max(before[0], after[0]) % min(before[0], after[0]) == 0
        part = Cut(Scaled(after[0], before[0])) if multiple else None
    if part is None:
        return None
    return RowOp(op, (part,), after[axis], properties=_sized("shape", op, axis))


def _slice(op: nn.SliceOp, axis: int) -> RowOp | None:
    """Of what is not cut, the channels above all."""
    shape = shape_of(op.x)
    if not _can_cut(shape, axis) or shape_of(op.y)[: axis + 1] != shape[: axis + 1]:
        return None
    return RowOp(op, (Cut(Same()),), shape[axis], properties=_sized("sizes", op, axis))


def _pad(op: nn.PadOp, axis: int) -> RowOp | None:
    shape = shape_of(op.x)
    if not _can_cut(shape, axis) or shape_of(op.y)[: axis + 1] != shape[: axis + 1]:
        return None
    return RowOp(op, (Cut(Same()),), shape[axis])


def _concat(op: nn.ConcatOp, axis: int) -> RowOp | None:
    shape = shape_of(op.y)
    if not _can_cut(shape, axis) or get_int(op.properties, "axis") <= axis:
        return None
    return RowOp(op, (Cut(Same()),) * len(op.operands), shape[axis])


_RULES: Mapping[type[Operation], Callable[[Any, int], RowOp | None]] = {
    nn.BroadcastOp: _broadcast,
    nn.Conv2dOp: _conv2d,
    nn.Conv2dDxOp: _conv2d_dx,
    nn.Conv2dDwOp: _conv2d_dw,
    nn.IntegerConv2dOp: _conv2d,
    nn.IntegerConv2dDxOp: _conv2d_dx,
    nn.IntegerConv2dDwOp: _conv2d_dw,
    nn.MaxPool2dOp: _pool,
    nn.AvgPool2dOp: _pool,
    nn.MaxPool2dGradOp: _pool_grad,
    nn.AvgPool2dGradOp: _pool_grad,
    nn.MatmulOp: _matmul,
    nn.ReduceSumOp: _reduction,
    nn.ReduceMeanOp: _reduction,
    nn.ReduceMaxOp: _reduction,
    nn.ReshapeOp: _reshape,
    nn.SliceOp: _slice,
    nn.PadOp: _pad,
    nn.ConcatOp: _concat,
}
"""Beside these, every elementwise operation."""
