"""Gradient rules of convolutions and matrix products.

Where only a leading box of the weight is updated, its gradient is computed from the leading
channels of the activations alone (sparse update, "On-Device Training Under 256KB Memory",
section 3.2), so that only they are kept.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.passes.gradients.rule import Cotangents, Rule, leading, wanted_box


def _conv2d(b: Builder, op: nn.Conv2dOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    dx = b.conv2d_dx(g, op.w, op.window, shape_of(op.x)[1:3]) if needed[0] else None
    return [dx, filter_cotangent(b, op.x, op.w, op.window, g) if needed[1] else None]


def filter_cotangent(
    b: Builder, x: SSAValue, w: SSAValue, window: nn.Window, g: SSAValue
) -> SSAValue:
    """The cotangent of the updated box of the filter `w`, of which only the shape counts."""
    filters = shape_of(w)
    outputs, _, _, inputs = wanted_box(w)
    if window.groups == 1:
        x, dy = leading(b, x, 3, inputs), leading(b, g, 3, outputs)
        return b.conv2d_dw(x, dy, window, filters[1:3])
    per_group = filters[0] // window.groups
    if filters[3] == 1 and outputs % per_group == 0:
        groups = outputs // per_group
        x, dy = leading(b, x, 3, groups), leading(b, g, 3, outputs)
        return b.conv2d_dw(x, dy, replace(window, groups=groups), filters[1:3])
    return b.conv2d_dw(x, g, window, filters[1:3])


def _conv2d_dx(b: Builder, op: nn.Conv2dDxOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    """The operation is the transpose of the convolution, so its cotangents are those of one."""
    window = op.window
    ddy = _convolve(b, g, op.w, window) if needed[0] else None
    dw = b.conv2d_dw(g, op.dy, window, shape_of(op.w)[1:3]) if needed[1] else None
    return [ddy, dw]


def _conv2d_dw(b: Builder, op: nn.Conv2dDwOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    window = op.window
    dx = b.conv2d_dx(op.dy, g, window, shape_of(op.x)[1:3]) if needed[0] else None
    return [dx, _convolve(b, op.x, g, window) if needed[1] else None]


def _convolve(b: Builder, x: SSAValue, w: SSAValue, window: nn.Window) -> SSAValue:
    return b.conv2d(x, w, window.strides, window.padding, window.dilation, window.groups)


def _matmul(b: Builder, op: nn.MatmulOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    ta, tb = bool(op.transpose_a.value.data), bool(op.transpose_b.value.data)
    da = db = None
    if needed[0] and ta:
        da = b.matmul(op.b, g, transpose_a=tb, transpose_b=True)
    elif needed[0]:
        da = b.matmul(g, op.b, transpose_b=not tb)
    if needed[1]:
        box = wanted_box(op.b)[-2:]
        columns, rows = box if tb else reversed(box)
        last = len(shape_of(g)) - 1
        a, dy = leading(b, op.a, last - 1 if ta else last, rows), leading(b, g, last, columns)
        db = (
            b.matmul(dy, a, transpose_a=True, transpose_b=ta)
            if tb
            else b.matmul(a, dy, transpose_a=not ta)
        )
    return [da, db]


RULES: Mapping[type[Operation], Rule] = {
    nn.Conv2dOp: _conv2d,
    nn.Conv2dDxOp: _conv2d_dx,
    nn.Conv2dDwOp: _conv2d_dw,
    nn.MatmulOp: _matmul,
}
