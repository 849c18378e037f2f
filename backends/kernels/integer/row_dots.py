"""Integer convolutions on cores that sum up products of vectors of codes (ARM's Helium).

A row of A is the codes of one output position, as they are in memory or gathered; its dot products
with four rows of the filter are the lanes of a vector, in which bias, rescaling and all else of
the epilogue happen. The zero point is taken from the bias: sum (x - z) w = sum x w - sum z w.
"""

from niwaki.backends.kernels.builder import Index, Value
from niwaki.backends.kernels.convolution import Phase, Plan, shape_of_gathering, spec_of
from niwaki.backends.kernels.integer.packed import PackedKernel
from niwaki.backends.kernels.operands import Contraction
from niwaki.backends.kernels.pointwise import Group, Pointwise
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import each_tile
from niwaki.ir.dialects import nn

_ROWS = 16
"""Gathered positions: they share the filter's loads."""
_REGISTER = 16
"""Codes: shorter filters are copied so far apart that each may be read as a register."""


def lanes_of(epilogue: Group | Pointwise) -> int:
    """Channels of a vector: where there are masks, whole bytes of bits."""
    return 8 if epilogue.has_masks else 4


def select(anchor: nn.IntegerConv2dOp, contraction: Contraction) -> KernelSpec | None:
    """The kernel of an ordinary convolution of codes; None where this form does not fit."""
    shape = shape_of_gathering(anchor)
    if shape.groups != 1 or shape.out_channels % lanes_of(Group.of(contraction.op)):
        return None
    height = shape.positions if shape.in_place else min(shape.positions, _ROWS)
    row = -(-shape.length // 4)
    words = shape.out_channels + row * (1 if shape.in_place else 1 + height)
    if shape.length < _REGISTER:
        words += shape.out_channels * _REGISTER // 4
    return spec_of(contraction, shape, Plan(True, height, 0, words, biased=True), RowDotsKernel)


class RowDotsKernel(PackedKernel):
    """The construction of one kernel.

    Scratch: the shifted bias, a row of zero points, rows of A, filters.
    """

    def run(self) -> None:
        (phase,) = self.shape.phases
        self._shift_bias()
        if self.shape.length < _REGISTER:
            self._spread_filters()
        self.groups(phase)

    def phase(self, phase: Phase, group: Index) -> None:
        k, shape = self.k, self.shape
        if shape.in_place:
            self._multiply(self.refs.anchor[0].ref, 0, shape.length, 0, shape.positions)
            return

        def tile(row: Index, rows: int) -> None:
            def one(r: Value) -> None:
                place = self.position(phase, k.iadd(row, r))
                self.gather(phase, group, place, self._row_of_codes(r))

            k.each(0, rows, 1, one)
            self._multiply(self.codes(), self._row_of_codes(0), self._row_bytes, row, rows)

        each_tile(k, shape.positions, self.plan.height, tile)

    @property
    def _row_bytes(self) -> int:
        return -(-self.shape.length // 4) * 4

    def _row_of_codes(self, row: Index) -> Index:
        first = 4 * self.shape.out_channels + self._row_bytes
        return self.k.iadd(self.k.imul(row, self._row_bytes), first)

    def _shift_bias(self) -> None:
        """The bias less the products of zero points with the filters, to scratch."""
        k, shape, w = self.k, self.shape, self.refs.anchor[1].ref
        scratch, codes, row = self.scratch.ref, self.codes(), 4 * shape.out_channels
        zero = self.zero_codes()
        k.each(0, self._row_bytes, 4, lambda i: k.store_word(zero, codes, k.iadd(i, row)))

        def block(channel: Value) -> None:
            first = k.imul(channel, shape.length)
            shift = k.row_dots((codes, row, 0), (w, first, shape.length), shape.length, 4)
            bias = self.refs.load_bias(k, channel, 4)
            k.store(k.sub(bias, shift), scratch, [channel])

        k.each(0, shape.out_channels, 4, block)

    @property
    def _first_filter(self) -> int:
        """Of those in scratch."""
        return 4 * self.plan.gathered - _REGISTER * self.shape.out_channels

    def _spread_filters(self) -> None:
        k, length, filters = self.k, self.shape.length, self.refs.anchor[1].ref
        codes = self.codes()

        def copy(channel: Value, i: Value) -> None:
            goal = k.affine([(channel, _REGISTER), (i, 1)], self._first_filter)
            k.store(k.load(filters, [k.iadd(k.imul(channel, length), i)]), codes, [goal])

        k.each(
            0,
            self.shape.out_channels,
            1,
            lambda channel: k.each(0, length, 1, lambda i: copy(channel, i)),
        )

    def _filters(self, channel: Index) -> tuple[Value, Index, int]:
        """Where those from `channel` on are, and how far apart."""
        k, length = self.k, self.shape.length
        if length < _REGISTER:
            return self.codes(), k.affine([(channel, _REGISTER)], self._first_filter), _REGISTER
        return self.refs.anchor[1].ref, k.imul(channel, length), length

    def _multiply(self, x: Value, start: Index, stride: int, first: Index, rows: int) -> None:
        """All channels at positions from `first` on; row n of `x` is at `start` + n `stride`."""
        k, length = self.k, self.shape.length
        scratch, lanes = self.scratch.ref, lanes_of(self.refs.pointwise)

        def block(channel: Value) -> None:
            filters = self._filters(channel)
            bias = k.load(scratch, [channel], lanes)

            def position(row: Value) -> None:
                place = k.iadd(k.imul(row, stride), start)
                sums = k.row_dots((x, place, 0), filters, length, lanes)
                self.results.put(k.iadd(first, row), channel, lanes, k.add(sums, bias))

            k.each(0, rows, 1, position)

        k.each(0, self.shape.out_channels, lanes, block)
