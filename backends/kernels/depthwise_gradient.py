"""The cotangent of a depthwise filter on vector machines: every tap's sum in one pass over memory.

Strips of neighbouring positions are added to sums [tap][channel] in scratch, a block of channels
at a time whose taps are all in registers, so input and cotangent are read once, in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
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
    workspace = 4 * x[3] * rows.count * columns.count

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace)
        assert refs.scratch is not None
        _Kernel(k, refs, refs.scratch, x, dy, rows, columns, contraction.target).run()
        return k.finish()

    return contraction.spec(workspace, flops, build)


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

    @property
    def channels(self) -> int:
        return self.x[3]

    def run(self) -> None:
        k, taps = self.k, self.rows.count * self.columns.count

        def clear(start: Index, lanes: int) -> None:
            k.store(k.constant(0, self.sums.element, lanes), self.sums.ref, [start])

        each_block(k, taps * self.channels, self.target.lanes, clear)
        k.nest([self.x[0]], lambda place: self._image(*place))
        k.each(0, self.channels, 1, self._emit)

    def _image(self, image: Index) -> None:
        """All strips of an image; of neighbouring rows, those that have the same taps inside."""
        most = -(-_POSITIONS // self.dy[2])
        budget = self.target.vector_registers - _OTHER_REGISTERS
        together = max(1, budget // self.columns.count)
        for first, end, tap, end_tap in self.rows.segments():
            for i in range(tap, end_tap, together):
                taps = range(i, min(i + together, end_tap))
                each_tile(
                    self.k,
                    end - first,
                    min(most, end - first),
                    lambda row, count, first=first, taps=taps: self._strip(
                        image, self.k.iadd(row, first), count, taps
                    ),
                )

    def _strip(self, image: Index, row: Index, count: int, taps: range) -> None:
        """Adds `count` rows of positions to the sums of the filter rows `taps`."""
        k, columns = self.k, self.columns.count

        def block(channel: Index, lanes: int) -> None:
            places = [
                k.iadd(channel, (i * columns + j) * self.channels)
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
