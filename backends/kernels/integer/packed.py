"""Integer convolutions on cores with packed halves (ARM's DSP extension): two products at a time.

A tile's rows of A are widened into scratch as 16-bit differences from the zero point. Each four
codes of a row are the words (0, 2) and (1, 3), the order in which a word of filter codes widens;
those of the tile's rows are neighbours, so that one pointer walks through all of them. One
instruction then multiplies two pairs and adds both products to a sum.
"""

from collections.abc import Callable, Sequence

from xdsl.dialects.builtin import MemRefType, i8, i32

from niwaki.backends.kernels.blocks import each_block, split
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.convolution import (
    ConvolutionShape,
    Kernel,
    Phase,
    Plan,
    shape_of_gathering,
    spec_of,
)
from niwaki.backends.kernels.operands import Contraction
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, accumulate, each_tile
from niwaki.ir.dialects import nn

_ROWS = 4
"""Positions of a tile: they share the widening of the filter's codes."""
_SPELLED_OUT = 4
"""Words copied without a loop."""
_MOST_WORDS = 2048
"""Of scratch for a tile of several rows."""


def select(anchor: nn.IntegerConv2dOp, contraction: Contraction) -> KernelSpec:
    """The kernel of an ordinary or grouped convolution of codes."""
    shape = shape_of_gathering(anchor)
    height = min(shape.positions, _ROWS)
    while height > 1 and _words(shape, height) > _MOST_WORDS:
        height //= 2
    plan = Plan(True, height, 0, _words(shape, height), biased=True)
    return spec_of(contraction, shape, plan, PackedKernel)


def _fours(shape: ConvolutionShape) -> int:
    """Groups of four codes of one gathered row."""
    return -(-shape.length // 4)


def _is_direct(shape: ConvolutionShape) -> bool:
    """Whether rows are widened where they are; otherwise their codes are gathered first."""
    return shape.in_place and shape.length % 4 == 0


def _words(shape: ConvolutionShape, rows: int) -> int:
    """Words of scratch: the widened rows, then their gathered codes."""
    return rows * _fours(shape) * (2 if _is_direct(shape) else 3)


class PackedKernel(Kernel):
    """The construction of one kernel."""

    def run(self) -> None:
        (phase,) = self.shape.phases
        if self.shape.length % 4:
            self._pad_rows()
        self.groups(phase)

    def phase(self, phase: Phase, group: Index) -> None:
        k, shape = self.k, self.shape
        first = k.imul(group, shape.width)

        def tile(row: Index, rows: int) -> None:
            if _is_direct(shape):
                source = self.refs.anchor[0].ref
                starts = [k.imul(k.iadd(row, r), shape.length) for r in range(rows)]
            else:
                source = self.codes()
                starts = [self._row_of_codes(r) for r in range(rows)]
                k.each(
                    0,
                    rows,
                    1,
                    lambda r: self.gather(
                        phase, group, self.position(phase, k.iadd(row, r)), self._row_of_codes(r)
                    ),
                )
            self._widen(source, starts)
            self._columns(row, rows, first)

        each_tile(k, shape.positions, self.plan.height, tile)

    # --- gathering

    def codes(self) -> Value:
        """The scratch as bytes: what C compilers let any other type alias."""
        return self.k.view(self.scratch.ref, MemRefType(i8, [4 * self.plan.gathered]))

    def _row_of_codes(self, row: Index) -> Index:
        """Where the codes of a gathered row start, in bytes."""
        fours = _fours(self.shape)
        return self.k.iadd(self.k.imul(row, 4 * fours), 8 * self.plan.height * fours)

    def _pad_rows(self) -> None:
        """The last group of four: what the row does not fill becomes zeros."""
        k, last = self.k, 4 * (_fours(self.shape) - 1)
        codes, zero = self.codes(), self.zero_codes()
        for row in range(self.plan.height):
            k.store_word(zero, codes, k.iadd(self._row_of_codes(row), last))

    def gather(
        self, phase: Phase, group: Index, position: tuple[Index, Index, Index], goal: Index
    ) -> None:
        """Whole lines of taps where they are neighbours in memory and all inside."""
        k, shape, rows, columns = self.k, self.shape, phase.rows, phase.columns
        image, row, column = position
        (height, width), channels = shape.in_size, shape.in_channels
        if shape.groups > 1 or columns.offset_step > 1 or columns.count == 1:
            super().gather(phase, group, position, goal)
            return
        y = k.iadd(k.imul(row, rows.in_step), rows.offset)
        x = k.iadd(k.imul(column, columns.in_step), columns.offset)
        count = columns.count * channels

        def line(i: Value) -> None:
            source_y = k.iadd(y, k.imul(i, rows.offset_step))
            pixel = k.affine([(image, height * width), (source_y, width), (x, 1)])
            source, target = k.imul(pixel, channels), k.iadd(goal, k.imul(i, count))
            if rows.inside:
                self._copy(source, target, count)
                return
            k.choose(
                _within(k, source_y, height),
                lambda: self._copy(source, target, count),
                lambda: self._clear(target, count),
            )

        def lines() -> None:
            k.each(0, rows.count, 1, line)

        if columns.inside:
            lines()
            return
        inside = _within(k, x, width - columns.count + 1)
        k.choose(
            inside, lines, lambda: super(PackedKernel, self).gather(phase, group, position, goal)
        )

    def copy(self, source: Index, target: Index) -> None:
        self._copy(source, target, self.shape.depth)

    def clear(self, target: Index) -> None:
        self._clear(target, self.shape.depth)

    def _copy(self, source: Index, target: Index, count: int) -> None:
        k, x, codes = self.k, self.refs.anchor[0].ref, self.codes()

        def block(start: Index, lanes: int) -> None:
            if lanes == 4:
                word = k.load_word(x, k.iadd(source, start))
                k.store_word(word, codes, k.iadd(target, start))
                return
            for i in range(lanes):
                place = k.iadd(start, i)
                k.store(k.load(x, [k.iadd(source, place)]), codes, [k.iadd(target, place)])

        _each_word(k, count, block)

    def _clear(self, target: Index, count: int) -> None:
        k, codes = self.k, self.codes()
        word, byte = self.zero_codes(), k.constant(self._zero_point, i8)

        def block(start: Index, lanes: int) -> None:
            if lanes == 4:
                k.store_word(word, codes, k.iadd(target, start))
                return
            for i in range(lanes):
                k.store(byte, codes, [k.iadd(target, k.iadd(start, i))])

        _each_word(k, count, block)

    @property
    def _zero_point(self) -> int:
        zero_point = self.refs.anchor[0].zero_point
        assert zero_point is not None
        return zero_point

    def zero_codes(self) -> Value:
        """Four codes of the number zero."""
        return _word_constant(self.k, (self._zero_point & 0xFF) * 0x01010101)

    def _widen(self, source: Value, starts: list[Index]) -> None:
        k, scratch, rows = self.k, self.scratch, len(starts)
        offset = packed_constant(k, -self._zero_point)

        def four(i: Index) -> None:
            target = k.imul(i, 2 * rows)
            for r, start in enumerate(starts):
                codes = k.load_word(source, k.iadd(start, k.imul(i, 4)))
                for odd in (False, True):
                    pair = k.extend_pair(codes, offset, odd)
                    k.store(pair, scratch.ref, [k.iadd(target, rows * int(odd) + r)])

        k.each(0, _fours(self.shape), 1, four)

    # --- multiplying

    def _columns(self, row: Index, rows: int, first: Index) -> None:
        """The output channels of a group, from `first` on, at `rows` positions."""
        k, width, masks = self.k, self.shape.width, self.refs.pointwise.mask_refs

        def column(number: Value) -> None:
            channel = k.iadd(number, first)
            for r, (value,) in enumerate(self._products(rows, channel)):
                self.results.put(k.iadd(row, r), channel, 1, value)

        def byte(start: Value) -> None:
            channel = k.iadd(start, first)
            words = k.loop(
                0,
                8,
                1,
                lambda number, words: self._column(row, rows, k.iadd(channel, number), words),
                [k.constant(0, i32)] * len(masks),
            )
            for ref, word in zip(masks, words, strict=True):
                for r in range(rows):
                    bits = k.cast(k.shift_right(word, k.constant(8 * r, i32)), i8)
                    k.store(bits, ref, [*self.results.indices(k.iadd(row, r)), k.idiv(channel, 8)])

        if masks and width % 8 == 0:
            k.each(0, width, 8, byte)
        else:
            k.each(0, width, 1, column)

    def _column(
        self, row: Index, rows: int, channel: Index, words: Sequence[Value]
    ) -> Sequence[Value]:
        """One output channel at `rows` positions.

        The bits of each mask enter a byte of its word for each position, the others move down.
        """
        k = self.k
        below = _word_constant(k, 0x7F7F7F7F)
        words = [k.bit_and(k.shift_right(word, k.constant(1, i32)), below) for word in words]
        for r, (value,) in enumerate(self._products(rows, channel)):
            indices = [*self.results.indices(k.iadd(row, r)), channel]
            bits = self.refs.pointwise.emit_but_masks(k, indices, value)
            top = _word_constant(k, 0x80 << 8 * r)
            words = [
                k.select(bit, k.bit_or(word, top), word)
                for bit, word in zip(bits, words, strict=True)
            ]
        return words

    def _products(self, rows: int, channel: Index) -> Accumulators:
        """Of one output channel at `rows` positions."""
        k, length = self.k, self.shape.length
        filter_ = k.imul(channel, length)

        def step(i: Index, tile: Accumulators) -> Accumulators:
            return self._add(tile, i, self._filter_pairs(filter_, i))

        bias = self.refs.load_bias(k, channel)
        tile: Accumulators = [[bias]] * rows
        if rows == 4:
            x, w = self.scratch.ref, self.refs.anchor[1].ref
            tile = [[sum_] for sum_ in k.dots(x, w, filter_, length // 4, [bias] * rows)]
        else:
            tile = accumulate(k, 0, length // 4, tile, step)
        if length % 4:
            tile = self._add(tile, length // 4, self._last_filter_pairs(filter_))
        return tile

    def _filter_pairs(self, filter_: Index, i: Index) -> list[Value]:
        k, zero = self.k, self.k.constant(0, i32)
        codes = k.load_word(self.refs.anchor[1].ref, k.iadd(k.imul(i, 4), filter_))
        return [k.extend_pair(codes, zero, False), k.extend_pair(codes, zero, True)]

    def _last_filter_pairs(self, filter_: Index) -> list[Value]:
        """Of fewer than four codes; a word would read beyond the end of the filters.

        Halves that meet the zeros behind a row may be anything.
        """
        k, length = self.k, self.shape.length
        codes = [
            self.refs.anchor[1].load(k, k.iadd(filter_, i)) for i in range(length // 4 * 4, length)
        ]
        if len(codes) == 3:
            return [k.pack_halves(codes[0], codes[2]), codes[1]]
        return codes

    def _add(self, tile: Accumulators, i: Index, filter_: list[Value]) -> Accumulators:
        """Adds the products of the group of four codes i."""
        k, scratch, rows = self.k, self.scratch, len(tile)
        first = k.imul(i, 2 * rows)
        result: Accumulators = []
        for r, (total,) in enumerate(tile):
            for odd, pair in enumerate(filter_):
                x = k.load(scratch.ref, [k.iadd(first, rows * odd + r)])
                total = k.dual_multiply(x, pair, total)
            result.append([total])
        return result


def _each_word(k: KernelBuilder, size: int, body: Callable[[Index, int], None]) -> None:
    """body(start, bytes) for words of a run of `size` bytes, then for the rest; few spelled out."""
    if size > 4 * _SPELLED_OUT:
        each_block(k, size, 4, body)
        return
    for block in split(size, 4):
        body(block.start, block.lanes)


def _within(k: KernelBuilder, place: Index, size: int) -> Value:
    """Whether 0 <= place < size."""
    return k.bit_and(k.icompare(place, 0, "sge"), k.icompare(place, size, "slt"))


def _word_constant(k: KernelBuilder, word: int) -> Value:
    return k.constant(word - (word >> 31 << 32), i32)


def packed_constant(k: KernelBuilder, value: int) -> Value:
    """`value` in both halves of a word."""
    half = value & 0xFFFF
    return _word_constant(k, half << 16 | half)
