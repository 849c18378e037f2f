"""Integer convolutions on cores with packed halves (ARM's DSP extension): two products at a time.

Rows of A are gathered into scratch as 16-bit differences from the zero point, each four of them as
the words (0, 2) and (1, 3): the order in which a word of filter codes widens. One instruction then
multiplies two pairs and adds both products.
"""

from collections.abc import Callable

from xdsl.dialects.builtin import MemRefType, i8, i16, i32

from niwaki.backends.kernels.builder import Index, Value
from niwaki.backends.kernels.convolution import (
    ConvolutionShape,
    Kernel,
    Phase,
    Plan,
    shape_of_gathering,
    spec_of,
)
from niwaki.backends.kernels.operands import Contraction
from niwaki.backends.kernels.packed_depthwise import packed_constant
from niwaki.backends.kernels.product import Put
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, accumulate, each_tile
from niwaki.ir.dialects import nn

_ROWS = 2
"""Positions of a tile."""
_COLUMNS = 2
"""Output channels of a tile."""
_UNROLL = 1
"""Groups of four products per iteration: more do not fit the registers."""


def select(anchor: nn.IntegerConv2dOp, contraction: Contraction) -> KernelSpec:
    """The kernel of an ordinary or grouped convolution of codes."""
    shape = shape_of_gathering(anchor)
    height = min(shape.positions, _ROWS)
    return spec_of(contraction, shape, Plan(True, height, 0, height * _words(shape)), PackedKernel)


def _words(shape: ConvolutionShape) -> int:
    """Words of scratch for one gathered row."""
    return 2 * -(-shape.length // 4)


class PackedKernel(Kernel):
    """The construction of one kernel; positions of the scratch count halves."""

    def run(self) -> None:
        (phase,) = self.shape.phases
        self.groups(phase)

    def phase(self, phase: Phase, group: Index) -> None:
        k, shape = self.k, self.shape
        count = shape.batch * phase.rows.positions * phase.columns.positions
        channel = k.imul(group, shape.width)

        def tile(row: Index, rows: int) -> None:
            positions = [self.position(phase, k.iadd(row, r)) for r in range(rows)]
            places = [self.place(phase, position) for position in positions]
            for r, position in enumerate(positions):
                self.gather(phase, group, position, 2 * r * _words(shape))

            def put(offset: Index, column: Index, lanes: int, value: Value) -> None:
                assert isinstance(offset, int)
                self.put(places[offset], k.iadd(column, channel), lanes, value)

            each_tile(
                k,
                shape.width,
                min(shape.width, _COLUMNS),
                lambda column, width: self._dots(rows, column, width, channel, put),
            )

        each_tile(k, count, self.plan.height, tile)

    # --- gathering

    def each_tap(self, count: int, body: Callable[[Index], None]) -> None:
        """Spelled out where taps do not start at a group of four: then each half has its place."""
        if self.shape.depth % 4 == 0:
            super().each_tap(count, body)
            return
        for tap in range(count):
            body(tap)

    def copy(self, source: Index, target: Index) -> None:
        k, depth = self.k, self.shape.depth
        x = self.refs.anchor[0]
        if depth % 4:
            for i in range(depth):
                self._store_half(k.cast(x.load(k, k.iadd(source, i)), i16), target, i)
            return
        offset = packed_constant(k, -self._zero_point)

        def four(i: Index) -> None:
            codes = k.load_word(x.ref, k.iadd(source, i))
            for odd in (False, True):
                pair = k.extend_pair(codes, offset, odd)
                self._store_word(pair, k.iadd(k.idiv(k.iadd(target, i), 2), int(odd)))

        k.each(0, depth, 4, four)

    def clear(self, target: Index) -> None:
        k, depth = self.k, self.shape.depth
        if depth % 4:
            for i in range(depth):
                self._store_half(k.constant(0, i16), target, i)
            return
        zero = k.constant(0, i32)
        k.each(0, depth // 2, 1, lambda i: self._store_word(zero, k.iadd(k.idiv(target, 2), i)))

    @property
    def _zero_point(self) -> int:
        zero_point = self.refs.anchor[0].zero_point
        assert zero_point is not None
        return zero_point

    def _store_word(self, word: Value, place: Index) -> None:
        assert self.refs.scratch is not None
        self.k.store(word, self.refs.scratch.ref, [place])

    def _store_half(self, half: Value, target: Index, offset: int) -> None:
        k, scratch = self.k, self.refs.scratch
        assert isinstance(target, int)
        assert scratch is not None
        element = target + offset
        place = element // 4 * 4 + element % 2 * 2 + element % 4 // 2
        halves = k.view(scratch.ref, MemRefType(i16, [2 * self.plan.gathered]))
        k.store(half, halves, [place])

    # --- multiplying

    def _dots(self, rows: int, column: Index, width: int, channel: Index, put: Put) -> None:
        """A tile of outputs: `rows` gathered rows by `width` output channels."""
        k, shape = self.k, self.shape
        length, words = shape.length, _words(shape)
        filters = [k.imul(k.iadd(k.iadd(column, c), channel), length) for c in range(width)]

        def step(i: Index, tile: Accumulators) -> Accumulators:
            pairs = [self._row_pairs(r * words, k.imul(i, 2)) for r in range(rows)]
            return self._add(tile, pairs, [self._filter_pairs(f, i) for f in filters])

        start = [[k.constant(0, i32) for _ in filters] for _ in range(rows)]
        tile = accumulate(k, 0, length // 4, start, step, _UNROLL)
        if length % 4:
            pairs = [self._row_pairs(r * words, words - 2) for r in range(rows)]
            rest = [self._last_filter_pairs(f, length % 4) for f in filters]
            tile = self._add(tile, pairs, rest)
        for r, sums in enumerate(tile):
            for c, value in enumerate(sums):
                put(r, k.iadd(column, c), 1, value)

    def _row_pairs(self, row: int, word: Index) -> tuple[Value, Value]:
        return self._load_pair(self.k.iadd(word, row)), self._load_pair(self.k.iadd(word, row + 1))

    def _load_pair(self, word: Index) -> Value:
        """What was stored half by half is read as bytes: C knows no other type for both."""
        k, scratch = self.k, self.refs.scratch
        assert scratch is not None
        if self.shape.depth % 4 == 0:
            return k.load(scratch.ref, [word])
        view = k.view(scratch.ref, MemRefType(i8, [4 * self.plan.gathered]))
        return k.load_word(view, k.imul(word, 4))

    def _filter_pairs(self, filter_: Index, i: Index) -> tuple[Value, Value]:
        k, zero = self.k, self.k.constant(0, i32)
        codes = k.load_word(self.refs.anchor[1].ref, k.iadd(k.imul(i, 4), filter_))
        return k.extend_pair(codes, zero, False), k.extend_pair(codes, zero, True)

    def _last_filter_pairs(self, filter_: Index, count: int) -> tuple[Value, Value]:
        """Of fewer than four codes; a word would read beyond the end of the filters."""
        k, start = self.k, self.shape.length - count
        codes = [self.refs.anchor[1].load(k, k.iadd(filter_, start + i)) for i in range(count)]
        low = k.bit_and(codes[0], k.constant(0xFFFF, i32))
        first = low
        if count == 3:
            first = k.bit_or(low, k.shift_left(codes[2], k.constant(16, i32)))
        second = k.bit_and(codes[1], k.constant(0xFFFF, i32)) if count > 1 else k.constant(0, i32)
        return first, second

    def _add(
        self,
        tile: Accumulators,
        rows: list[tuple[Value, Value]],
        filters: list[tuple[Value, Value]],
    ) -> Accumulators:
        k = self.k
        return [
            [
                k.dual_multiply(a[1], b[1], k.dual_multiply(a[0], b[0], total))
                for b, total in zip(filters, sums, strict=True)
            ]
            for a, sums in zip(rows, tile, strict=True)
        ]
