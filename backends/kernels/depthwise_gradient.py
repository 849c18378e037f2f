"""The cotangent of a depthwise filter on vector machines: every tap's sum in one pass over memory.

Strips of neighbouring positions are added to sums [tap][channel] in scratch, a block of channels
at a time whose taps are all in registers, so input and cotangent are read once, in order. Bands of
images or of rows have sums of their own, which threads can share.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from niwaki.backends.kernels.bands import Bands
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import band_count
from niwaki.backends.kernels.gather import Gather
from niwaki.backends.kernels.operands import Contraction, Operand, References
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, accumulate, each_tile
from niwaki.backends.targets import Target

_POSITIONS = 64
"""Of a strip, at least: they share loading and storing the sums."""
_TILE = 4
"""Neighbouring positions that share the loads of the input."""
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
        _Kernel(k, refs, scratch, x, dy, rows, columns, contraction.target, count).run()

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
        """Adds `count` rows of positions of a segment strip by strip."""
        k = self.k
        each_tile(
            k,
            count,
            min(-(-_POSITIONS // self.dy[2]), count),
            lambda row, size: self._strip(
                image, k.affine([(row, 1), (first, 1)], segment), size, taps, sums
            ),
        )

    def _strip(self, image: Index, row: Index, count: int, taps: range, sums: Index) -> None:
        """Adds `count` rows of positions to the sums of the filter rows `taps`."""
        k, columns = self.k, self.columns.count

        def block(channel: Index, lanes: int) -> None:
            places = [
                k.iadd(k.iadd(sums, channel), (i * columns + j) * self.channels)
                for i in taps
                for j in range(columns)
            ]
            start = [[self.sums.load(k, place, lanes)] for place in places]
            tile = accumulate(
                k,
                0,
                count,
                start,
                lambda r, tile: self._line(image, k.iadd(row, r), channel, lanes, taps, tile),
            )
            for place, (value,) in zip(places, tile, strict=True):
                k.store(value, self.sums.ref, [place])

        each_block(k, self.channels, self.target.lanes, block)

    def _line(
        self, image: Index, row: Index, channel: Index, lanes: int, taps: range, tile: Accumulators
    ) -> Accumulators:
        """Adds one row of positions."""
        k = self.k
        y = k.affine([(row, self.rows.in_step)], self.rows.offset)
        source = k.affine([(image, self.x[1] * self.x[2]), (y, self.x[2])], self.columns.offset)
        goal = k.affine([(image, self.dy[1] * self.dy[2]), (row, self.dy[2])])

        def positions(first: Index, count: int, inside: range, tile: Accumulators) -> Accumulators:
            place = k.iadd(k.imul(first, self.columns.in_step), source)
            result = [list(sums) for sums in tile]
            loaded: dict[tuple[int, int], Value] = {}

            def value(i: int, column: int) -> Value:
                if (i, column) not in loaded:
                    pixel = k.iadd(place, i * self.rows.offset_step * self.x[2] + column)
                    start = k.iadd(k.imul(pixel, self.channels), channel)
                    loaded[i, column] = self.refs.anchor[0].load(k, start, lanes)
                return loaded[i, column]

            for t in range(count):
                pixel = k.imul(k.iadd(goal, k.iadd(first, t)), self.channels)
                cotangent = self.refs.anchor[1].load(k, k.iadd(pixel, channel), lanes)
                for number, i in enumerate(taps):
                    for j in inside:
                        column = t * self.columns.in_step + j * self.columns.offset_step
                        sums = result[number * self.columns.count + j]
                        sums[0] = k.fma(value(i, column), cotangent, sums[0])
            return result

        for first, end, j, j_end in self.columns.segments():
            inside, size = range(j, j_end), min(_TILE, end - first)
            whole = (end - first) // size

            def step(
                n: Index, tile: Accumulators, first: int = first, size: int = size,
                inside: range = inside,
            ) -> Accumulators:  # fmt: skip
                return positions(k.iadd(k.imul(n, size), first), size, inside, tile)

            tile = accumulate(k, 0, whole, tile, step)
            rest = end - first - whole * size
            if rest:
                tile = positions(first + whole * size, rest, inside, tile)
        return tile

    def _emit(self, channel: Value) -> None:
        """The finished taps of one channel."""
        for i in range(self.rows.count):
            for j in range(self.columns.count):
                tap = i * self.columns.count + j
                value = self.sums.load(self.k, self.k.iadd(channel, tap * self.channels))
                self.refs.pointwise.emit(self.k, [channel, i, j, 0], 1, value)
