"""The cotangent of a depthwise filter on vector machines: every tap's sum in one pass over memory.

Neighbouring positions are added to sums [tap][channel] in scratch, a block of channels at a time
whose taps are all in registers, so input and cotangent are read once, in order. Bands of images or
of rows have sums of their own, which threads can share.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from niwaki.backends.kernels.bands import Bands
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import band_count
from niwaki.backends.kernels.column_tiles import column_tiles
from niwaki.backends.kernels.gather import Gather
from niwaki.backends.kernels.operands import Contraction, Operand, References
from niwaki.backends.kernels.prefetches import SpreadPrefetches
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import each_tile
from niwaki.backends.targets import Target

_TILE = 8
"""Neighbouring positions of a row that share the loads of the input, and those of the sums."""
_STREAMED_TILE = 2
"""Where all channels of more of them would not stay in the first cache."""
_ROWS = 2
"""Neighbouring rows that do."""
_OTHER_REGISTERS = 6
"""Besides the sums."""


def select(
    contraction: Contraction,
    x: Sequence[int],
    dy: Sequence[int],
    rows: Gather,
    columns: Gather,
    flops: int,
) -> KernelSpec:
    """`x` and `dy`: shapes, NHWC."""
    sums = x[3] * rows.count * columns.count
    count = band_count(dy[0] * dy[1] * dy[2], sums, contraction.target)

    def emit(k: KernelBuilder, refs: References, scratch: Operand) -> None:
        _Kernel(
            k, refs, scratch, x, dy, rows, columns, contraction.target, count, contraction.streams
        ).run()

    return contraction.spec_in_scratch(sums * count, flops, emit)


@dataclass(frozen=True)
class _Kernel:
    k: KernelBuilder
    refs: References
    sums: Operand
    x: Sequence[int]
    dy: Sequence[int]
    rows: Gather
    columns: Gather
    target: Target
    bands: int
    """Sums of each tap and channel that are added up at the end."""
    streams: bool
    """Whether each row of positions brings into the cache what the next one takes from memory."""

    @property
    def channels(self) -> int:
        return self.x[3]

    def run(self) -> None:
        k = self.k
        sums = self.rows.count * self.columns.count * self.channels
        bands = Bands(self.sums, 0, sums, self.bands, self.target.lanes)
        bands.clear(k)
        for first, end, taps in self._segments():
            bands.share(k, self.x[0], end - first, partial(self._rows, taps, first))
        bands.add_up(k)
        k.each(0, self.channels, 1, self._emit)

    def _segments(self) -> list[tuple[int, int, range]]:
        """Neighbouring rows [first, end) that have the same taps inside, for some of these taps."""
        budget = self.target.vector_registers - _OTHER_REGISTERS
        together = max(1, budget // self.columns.count)
        return [
            (first, end, range(i, min(i + together, end_tap)))
            for first, end, tap, end_tap in self.rows.segments()
            for i in range(tap, end_tap, together)
        ]

    def _rows(
        self, taps: range, segment: int, image: Index, first: Index, count: int, sums: Index
    ) -> None:
        """Adds `count` rows of positions of a segment."""
        k = self.k
        most = _STREAMED_TILE if self.streams else _TILE

        def rows(row: Index, height: int) -> None:
            place = k.affine([(row, 1), (first, 1)], segment)
            for tiles in column_tiles([self.columns], most):
                each_tile(
                    k,
                    tiles.end - tiles.first,
                    tiles.count,
                    lambda column, _, tiles=tiles: self._tile(
                        image, (place, height), k.iadd(column, tiles.first), tiles.taps[0], taps,
                        sums,
                    ),
                )  # fmt: skip

        each_tile(k, count, min(_ROWS, count), rows)

    def _tile(
        self,
        image: Index,
        rows: tuple[Index, int],
        column: Index,
        inside: Sequence[range],
        taps: range,
        sums: Index,
    ) -> None:
        """Adds some neighbouring positions of some rows, every channel.

        `rows`: the first one and how many; `inside`: the columns of the filter, by position.
        """
        k, columns = self.k, self.columns.count
        first, height = rows

        def block(channel: Index, lanes: int) -> None:
            places = [
                k.iadd(k.iadd(sums, channel), (i * columns + j) * self.channels)
                for i in taps
                for j in range(columns)
            ]
            ahead = self._ahead(image, rows, column, channel, lanes, len(inside))
            tile = [self.sums.load(k, place, lanes) for place in places]
            for r in range(height):
                row = k.iadd(first, r)
                tile = self._line(image, row, column, channel, lanes, inside, taps, tile, ahead)
            for place, value in zip(places, tile, strict=True):
                k.store(value, self.sums.ref, [place])

        each_block(k, self.channels, self.target.lanes, block)

    def _line(
        self,
        image: Index,
        row: Index,
        column: Index,
        channel: Index,
        lanes: int,
        inside: Sequence[range],
        taps: range,
        tile: Sequence[Value],
        ahead: SpreadPrefetches,
    ) -> list[Value]:
        """Adds neighbouring positions of one row."""
        k, columns = self.k, self.columns
        y = k.affine([(row, self.rows.in_step)], self.rows.offset)
        line = k.affine([(image, self.x[1] * self.x[2]), (y, self.x[2])], columns.offset)
        source = k.iadd(k.imul(column, columns.in_step), line)
        goal = k.affine([(image, self.dy[1] * self.dy[2]), (row, self.dy[2]), (column, 1)])
        result = list(tile)
        loaded: dict[tuple[int, int], Value] = {}

        def value(i: int, offset: int) -> Value:
            if (i, offset) not in loaded:
                pixel = k.iadd(source, i * self.rows.offset_step * self.x[2] + offset)
                start = k.iadd(k.imul(pixel, self.channels), channel)
                loaded[i, offset] = self.refs.anchor[0].load(k, start, lanes)
            return loaded[i, offset]

        for t, within in enumerate(inside):
            ahead.some()
            place = k.iadd(k.imul(k.iadd(goal, t), self.channels), channel)
            cotangent = self.refs.anchor[1].load(k, place, lanes)
            for number, i in enumerate(taps):
                for j in within:
                    offset = t * columns.in_step + j * columns.offset_step
                    place = number * columns.count + j
                    result[place] = k.fma(value(i, offset), cotangent, result[place])
        return result

    def _ahead(
        self,
        image: Index,
        rows: tuple[Index, int],
        column: Index,
        channel: Index,
        lanes: int,
        count: int,
    ) -> SpreadPrefetches:
        """What the tile of the next rows takes from memory, for each position of this one."""
        if not self.streams:
            return SpreadPrefetches([], 1)
        k, (x, dy) = self.k, self.refs.anchor
        row, height = rows

        def run(
            operand: Operand, size: Sequence[int], y: Index, column: Index, count: int
        ) -> list[Callable[[], None]]:
            pixel = k.affine([(image, size[1] * size[2]), (y, size[2]), (column, 1)])
            start = k.iadd(k.imul(pixel, self.channels), k.imul(channel, count))
            return [
                partial(k.prefetch, operand.ref, [k.iadd(start, t * lanes)]) for t in range(count)
            ]

        steps = self.rows.in_step, self.columns.in_step
        behind = self.rows.offset + (self.rows.count - 1) * self.rows.offset_step + 1
        last = k.affine([(row, steps[0])], behind + (height - 1) * steps[0])
        prefetches = [
            *(run(dy, self.dy, k.iadd(row, height + r), column, count) for r in range(height)),
            *(
                run(x, self.x, k.iadd(last, r), k.imul(column, steps[1]), count * steps[1])
                for r in range(height * steps[0])
            ),
        ]
        return SpreadPrefetches([p for line in prefetches for p in line], height * count)

    def _emit(self, channel: Value) -> None:
        """The finished taps of one channel."""
        for i in range(self.rows.count):
            for j in range(self.columns.count):
                tap = i * self.columns.count + j
                value = self.sums.load(self.k, self.k.iadd(channel, tap * self.channels))
                self.refs.pointwise.emit(self.k, [channel, i, j, 0], 1, value)
