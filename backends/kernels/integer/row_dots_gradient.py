"""Cotangents of 1x1 convolutions of codes on cores that sum up products of vectors (Helium).

Both are sums over i of left[row, i] * right[i, column] of halves. What is not contiguous along i is
copied so to scratch; dot products of a row of one with four rows of the other are then the lanes
of a vector.
"""

from xdsl.dialects.builtin import MemRefType, i16
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.convolution import Kernel, Plan, shape_of_gathering, spec_of
from niwaki.backends.kernels.filter_gradient import shape_of_filter_gradient
from niwaki.backends.kernels.integer.row_dots import lanes_of
from niwaki.backends.kernels.operands import Contraction, References
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.ir.dialects import nn

_MOST_BYTES = 16384
"""Of scratch."""
_BLOCK = 4
"""Rows or columns that are copied to scratch at once: the lanes of a vector."""


def select_input_cotangent(
    anchor: nn.IntegerConv2dDxOp, contraction: Contraction
) -> KernelSpec | None:
    """The kernel of the input's cotangent; None where this form does not fit the shape.

    Rows are positions of the output's cotangent, columns those of the filter.
    """
    shape, lanes = shape_of_gathering(anchor), lanes_of(Group.of(contraction.op))
    words = lanes * -(-shape.in_channels // 2)
    if not shape.in_place or shape.out_channels % lanes or 4 * words > _MOST_BYTES:
        return None
    return spec_of(contraction, shape, Plan(False, 1, 0, words), _InputCotangent)


def select_filter_cotangent(
    anchor: nn.IntegerConv2dDwOp, contraction: Contraction
) -> KernelSpec | None:
    """The kernel of the filter's cotangent; None where this form does not fit the shape.

    Rows are channels of the output's cotangent, columns those of the input; sums over positions.
    """
    shape, lanes = shape_of_filter_gradient(anchor), lanes_of(Group.of(contraction.op))
    inputs, outputs, positions = shape.in_channels, shape.out_channels, shape.positions
    # Of a block of outputs, all inputs, and a row of zero points.
    size = 2 * (_BLOCK + inputs + 1) * -(-positions // 2) * 2
    fits = inputs % lanes == 0 and outputs % _BLOCK == 0 and size <= _MOST_BYTES
    if not shape.flat or shape.groups != 1 or not fits:
        return None

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, size)
        _filter_cotangent(k, refs, inputs, outputs, positions, lanes)
        return k.finish()

    return contraction.spec(size, 2 * positions * outputs * inputs, build)


class _InputCotangent(Kernel):
    """The construction of the kernel of an input's cotangent."""

    def run(self) -> None:
        k, shape = self.k, self.shape
        cotangent, filters = self.refs.anchor
        length, columns = shape.in_channels, shape.out_channels
        lanes = lanes_of(self.refs.pointwise)
        panel = k.view(self.scratch.ref, MemRefType(i16, [2 * self.plan.gathered]))

        def block(column: Value) -> None:
            for first in range(0, lanes, _BLOCK):
                start = k.iadd(column, first)
                _turn(k, filters.ref, start, columns, length, panel, first * length, length)

            def position(row: Value) -> None:
                start = k.imul(row, length)
                sums = k.row_dots((cotangent.ref, start, 0), (panel, 0, length), length, lanes)
                self.results.put(row, column, lanes, sums)

            k.each(0, shape.positions, 1, position)

        k.each(0, columns, lanes, block)


def _filter_cotangent(
    k: KernelBuilder, refs: References, inputs: int, outputs: int, positions: int, lanes: int
) -> None:
    codes, cotangent = refs.anchor
    assert refs.scratch is not None
    assert isinstance(refs.scratch.ref.type, MemRefType)
    words = refs.scratch.ref.type.get_shape()[0]
    rows = k.view(refs.scratch.ref, MemRefType(i16, [2 * words]))
    stride = -(-positions // 2) * 2
    first_column = _BLOCK * stride
    zeros = first_column + inputs * stride
    zero_point = k.constant(codes.zero_point or 0, i16)
    k.each(0, positions, 1, lambda i: k.store(zero_point, rows, [k.iadd(i, zeros)]))

    def turn_inputs(channel: Value) -> None:
        goal = k.iadd(k.imul(channel, stride), first_column)
        _turn(k, codes.ref, channel, inputs, positions, rows, goal, stride)

    k.each(0, inputs, _BLOCK, turn_inputs)

    def block(output: Value) -> None:
        _turn(k, cotangent.ref, output, outputs, positions, rows, 0, stride)

        def row(number: Value) -> None:
            start = k.imul(number, stride)
            shift = k.row_dots((rows, start, 0), (rows, zeros, 0), positions, lanes)

            def column(channel: Value) -> None:
                place = k.iadd(k.imul(channel, stride), first_column)
                sums = k.row_dots((rows, start, 0), (rows, place, stride), positions, lanes)
                indices = [k.iadd(output, number), 0, 0, channel]
                refs.pointwise.emit(k, indices, lanes, k.sub(sums, shift))

            k.each(0, inputs, lanes, column)

        k.each(0, _BLOCK, 1, row)

    k.each(0, outputs, _BLOCK, block)


def _turn(
    k: KernelBuilder,
    matrix: Value,
    column: Index,
    width: int,
    length: int,
    goal: Value,
    start: Index,
    stride: int,
) -> None:
    """Four columns of a row-major matrix as rows of halves in `goal`, `stride` elements apart."""

    def row(i: Value) -> None:
        value = k.extend(k.load(matrix, [k.iadd(k.imul(i, width), column)], _BLOCK), i16)
        k.store_apart(value, goal, k.iadd(i, start), stride)

    k.each(0, length, 1, row)
