"""Depthwise convolution, forward and both cotangents: vectors over channels, no product form."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod

from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels import depthwise_gradient
from niwaki.backends.kernels.blocks import Block, each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.column_tiles import ColumnTiles, column_tiles
from niwaki.backends.kernels.gather import (
    FORWARD,
    FilterCotangent,
    Gather,
    Gathering,
    backward_gathers,
    forward_gather,
)
from niwaki.backends.kernels.operands import Contraction, Operand, References
from niwaki.backends.kernels.panel_packing import RowLoop, pack_square_by_square
from niwaki.backends.kernels.prefetches import SpreadPrefetches
from niwaki.backends.kernels.product import Matrix, transpose
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, Panel, accumulate, each_tile, zeros
from niwaki.backends.kernels.weight_panels import PackedWeight, WeightPanels
from niwaki.backends.targets import Target
from niwaki.ir.dialects.tensor_op import shape_of

_TILE = 4
"""Neighbouring outputs of a row that share the filter's and the input's loads."""
_STREAMED_TILE = 2
"""Where all channels of more of them, and of what they read, would not stay in the first cache."""


def select_gather(anchor: Gathering, contraction: Contraction) -> KernelSpec:
    """The kernel of a depthwise convolution, or of its input's cotangent."""
    window, w = anchor.window, shape_of(anchor.w)
    source = shape_of(anchor.operands[0])
    goal = shape_of(anchor.results[0])
    channels, kernel, target = w[0], (w[1], w[2]), contraction.target
    axes = [
        (goal[a + 1], source[a + 1], kernel[a], window.strides[a], window.padding[a],
         window.dilation[a])
        for a in (0, 1)
    ]  # fmt: skip
    gathers = [
        [forward_gather(*axis)] if isinstance(anchor, FORWARD) else backward_gathers(*axis)
        for axis in axes
    ]
    phases = [_Phase(rows, columns) for rows in gathers[0] for columns in gathers[1]]
    if len(phases) == 1 and contraction.streams:
        phases = phases[0].halves
    workspace = 4 * channels * kernel[0] * kernel[1]
    outputs = goal if isinstance(anchor, FORWARD) else source
    flops = 2 * outputs[0] * outputs[1] * outputs[2] * channels * kernel[0] * kernel[1]

    def build(contraction: Contraction, name: str, workspace: int) -> FuncOp:
        k, refs = contraction.begin(name, workspace)
        filters = refs.anchor[1]
        if workspace:
            assert refs.scratch is not None
            _pack(k, filters, refs.scratch, channels, kernel[0] * kernel[1], target.lanes)
            filters = refs.scratch
        size = (source[1], source[2])
        lines = _Lines(
            k, refs, filters, phases, size, channels, kernel[1], target, contraction.streams
        )
        k.each(0, source[0], 1, lines.image)
        return k.finish()

    def select(contraction: Contraction, workspace: int) -> KernelSpec:
        return contraction.spec(workspace, flops, lambda name: build(contraction, name, workspace))

    spec = select(contraction, workspace)
    if target.lanes == 1:
        return spec
    taps = kernel[0] * kernel[1]
    panel = Panel(0, channels, 1, (), channels)
    packing = PackedWeight(w, (WeightPanels((RowLoop(taps, 1),), taps, (panel,)),))
    return contraction.with_prepacked(spec, packing, lambda packed: select(packed, 0))


def _pack(
    k: KernelBuilder, w: Operand, scratch: Operand, channels: int, taps: int, lanes: int
) -> None:
    """[channel][tap] to [tap][channel], so that a vector of channels is contiguous."""
    if lanes == 1:
        transpose(k, Matrix(w, 0, taps), channels, taps, scratch, 0)
        return

    def block(channel: Index, width: int) -> None:
        first = k.imul(channel, taps)
        pack_square_by_square(k, w, first, taps, taps, (width, width), scratch, channel, channels)

    each_block(k, channels, lanes, block)


@dataclass(frozen=True)
class _Phase:
    """One grid of output positions with its taps."""

    rows: Gather
    columns: Gather

    @property
    def halves(self) -> "list[_Phase]":
        """The even rows and the odd ones."""
        rows = self.rows
        if rows.positions < 2:
            return [self]
        even = replace(
            rows,
            positions=-(-rows.positions // 2),
            out_step=2 * rows.out_step,
            in_step=2 * rows.in_step,
        )
        odd = replace(
            even,
            positions=rows.positions // 2,
            out_start=rows.out_start + rows.out_step,
            offset=rows.offset + rows.in_step,
        )
        return [replace(self, rows=half) for half in (even, odd)]


@dataclass(frozen=True)
class _Lines:
    """Neighbouring rows of outputs: one of each phase, which read the same input."""

    k: KernelBuilder
    refs: References
    filters: Operand
    """[tap][channel]."""
    phases: Sequence[_Phase]
    in_size: tuple[int, int]
    channels: int
    kernel_width: int
    target: Target
    streams: bool
    """Whether each line brings into the cache what the next one takes from memory."""

    def image(self, image: Index) -> None:
        """All positions of an image."""
        k = self.k
        shared = min(phase.rows.positions for phase in self.phases)
        alone = [replace(self, phases=[phase], streams=False) for phase in self.phases]

        def line(row: Index) -> None:
            for lines in [self] if self.target.lanes > 1 else alone:
                lines.line(image, row)

        k.each(0, shared, 1, line)
        for phase, lines in zip(self.phases, alone, strict=True):
            if phase.rows.positions > shared:
                k.each(shared, phase.rows.positions, 1, partial(lines.line, image))

    def line(self, image: Index, row: Index) -> None:
        """One row of each phase."""
        k = self.k
        taps = [(phase.rows.first_tap(k, row), phase.rows.end_tap(k, row)) for phase in self.phases]
        for tiles in self._tiles():
            each_tile(
                k,
                tiles.end - tiles.first,
                tiles.count,
                lambda column, count, tiles=tiles: self._tile(
                    image, row, k.iadd(column, tiles.first), count, taps, tiles.taps
                ),
            )

    def _tiles(self) -> list[ColumnTiles]:
        if self.target.lanes == 1:
            (phase,) = self.phases
            return [
                ColumnTiles(first, end, min(_TILE, end - first), ((range(j, j_end),) * _TILE,))
                for first, end, j, j_end in phase.columns.segments()
            ]
        most = _TILE if self.target.vector_registers < 32 else 2 * _TILE
        columns = [phase.columns for phase in self.phases]
        return column_tiles(columns, _STREAMED_TILE if self.streams else most)

    def _tile(
        self,
        image: Index,
        row: Index,
        column: Index,
        count: int,
        rows: Sequence[tuple[Index, Index]],
        taps: Sequence[Sequence[range]],
    ) -> None:
        """`count` neighbouring outputs of each phase, every channel."""
        k = self.k
        outputs: list[list[tuple[Index, Index]]] = [
            [
                (
                    phase.rows.output(k, row),
                    phase.columns.output(k, k.iadd(column, t)),
                )
                for t in range(min(count, len(inside)))
            ]
            for phase, inside in zip(self.phases, taps, strict=True)
        ]

        def block(channel: Index, lanes: int) -> None:
            ahead = self._ahead(image, row, column, channel, lanes, count)
            for phase, places, span, inside in zip(self.phases, outputs, rows, taps, strict=True):
                if not places:
                    continue
                start = zeros(k, len(places), [Block(0, lanes)], self.refs.anchor[0].element)
                sums = accumulate(
                    k,
                    *span,
                    start,
                    lambda i, tile, phase=phase, inside=inside: self._row(
                        phase, image, row, column, channel, lanes, i, inside, tile
                    ),
                )
                for place, (value,) in zip(places, sums, strict=True):
                    ahead.some()
                    self.refs.pointwise.emit(k, [image, *place, channel], lanes, value)

        each_block(k, self.channels, self.target.lanes, block)

    def _ahead(
        self, image: Index, row: Index, column: Index, channel: Index, lanes: int, count: int
    ) -> SpreadPrefetches:
        """What the tile of the next line takes from memory: of every row, as one run."""
        if not self.streams:
            return SpreadPrefetches([], 1)
        k, (first, *_) = self.k, self.phases

        def run(count: int) -> list[Index]:
            return [k.iadd(k.imul(channel, count), t * lanes) for t in range(count)]

        x = k.imul(column, first.columns.out_step)
        below = {p.rows.out_start: p.rows.output(k, k.iadd(row, 1)) for p in self.phases}
        prefetches = [
            partial(self.refs.pointwise.prefetch, k, [image, y, x, place])
            for y in below.values()
            for place in run(count * first.columns.out_step)
        ]
        x, height = k.imul(column, first.columns.in_step), first.rows.in_step
        reach = max(p.rows.offset + (p.rows.count - 1) * p.rows.offset_step for p in self.phases)
        for number in range(1, height + 1):
            y = k.affine([(row, height)], reach + number)
            pixel = k.affine([(image, prod(self.in_size)), (y, self.in_size[1]), (x, 1)])
            start = k.imul(pixel, self.channels)
            prefetches += [
                partial(k.prefetch, self.refs.anchor[0].ref, [k.iadd(start, place)])
                for place in run(count * first.columns.in_step)
            ]
        return SpreadPrefetches(prefetches, count * len(self.phases))

    def _row(
        self,
        phase: _Phase,
        image: Index,
        row: Index,
        column: Index,
        channel: Index,
        lanes: int,
        i: Index,
        taps: Sequence[range],
        tile: Accumulators,
    ) -> Accumulators:
        """Adds the taps of filter row i."""
        k = self.k
        rows, columns, channels = phase.rows, phase.columns, self.channels
        y = k.affine([(row, rows.in_step), (i, rows.offset_step)], rows.offset)
        pixel = k.affine(
            [(image, self.in_size[0] * self.in_size[1]), (y, self.in_size[1]),
             (column, columns.in_step)],
            columns.offset,
        )  # fmt: skip
        source = k.iadd(k.imul(pixel, channels), channel)
        filter_row = k.affine([(i, rows.tap_step)], rows.tap_start)
        weights = k.iadd(k.imul(filter_row, self.kernel_width * channels), channel)
        loaded: dict[int, Value] = {}

        def value(offset: int) -> Value:
            if offset not in loaded:
                place = k.iadd(source, offset * channels)
                loaded[offset] = self.refs.anchor[0].load(k, place, lanes)
            return loaded[offset]

        for j in range(min(t.start for t in taps), max(t.stop for t in taps)):
            tap = columns.tap_start + j * columns.tap_step
            weight = self.filters.load(k, k.iadd(weights, tap * channels), lanes)
            tile = [
                [k.fma(value(t * columns.in_step + j * columns.offset_step), weight, total)]
                if j in inside
                else [total]
                for t, ((total,), inside) in enumerate(zip(tile, taps, strict=False))
            ]
        return tile


def select_filter_gradient(anchor: FilterCotangent, contraction: Contraction) -> KernelSpec:
    """The kernel of a depthwise convolution's filter cotangent."""
    window, x, dy = anchor.window, shape_of(anchor.x), shape_of(anchor.dy)
    kernel = shape_of(anchor.dw)[1:3]
    rows, columns = (
        forward_gather(
            dy[a + 1], x[a + 1], kernel[a], window.strides[a], window.padding[a],
            window.dilation[a],
        )
        for a in (0, 1)
    )  # fmt: skip
    flops = 2 * dy[0] * dy[1] * dy[2] * dy[3] * kernel[0] * kernel[1]
    if contraction.target.lanes > 1:
        return depthwise_gradient.select(contraction, x, dy, rows, columns, flops)

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, 0)

        def block(channel: Index, lanes: int) -> None:
            k.each(
                0,
                kernel[0],
                1,
                lambda i: _filter_row(k, refs, rows, columns, x, dy, channel, lanes, i),
            )

        each_block(k, x[3], contraction.target.lanes, block)
        return k.finish()

    return contraction.spec(0, flops, build)


def _filter_row(
    k: KernelBuilder,
    refs: References,
    rows: Gather,
    columns: Gather,
    x: Sequence[int],
    dy: Sequence[int],
    channel: Index,
    lanes: int,
    i: Index,
) -> None:
    """The taps of filter row i for `lanes` channels: one accumulator per tap."""
    channels = x[3]

    def at(taps: range, source: Index, goal: Index) -> Callable[..., Accumulators]:
        def step(column: Index, tile: Accumulators) -> Accumulators:
            place = k.iadd(goal, k.imul(column, channels))
            cotangent = refs.anchor[1].load(k, place, lanes)
            first = k.iadd(source, k.imul(column, columns.in_step * channels))
            result = [list(row) for row in tile]
            for j in taps:
                offset = (columns.offset + j * columns.offset_step) * channels
                value = refs.anchor[0].load(k, k.iadd(first, offset), lanes)
                result[j] = [k.fma(value, cotangent, tile[j][0])]
            return result

        return step

    def line(image: Index, row: Index, tile: Accumulators) -> Accumulators:
        y = k.affine([(row, rows.in_step), (i, rows.offset_step)], rows.offset)
        source = k.affine([(image, x[1] * x[2] * channels), (y, x[2] * channels), (channel, 1)])
        goal = k.affine([(image, dy[1] * dy[2] * channels), (row, dy[2] * channels), (channel, 1)])
        for first, end, j, j_end in columns.segments():
            tile = accumulate(k, first, end, tile, at(range(j, j_end), source, goal))
        return tile

    start = zeros(k, columns.count, [Block(0, lanes)], refs.anchor[0].element)
    span = rows.first_position(k, i), rows.end_position(k, i)
    sums = accumulate(
        k,
        0,
        x[0],
        start,
        lambda image, tile: accumulate(k, *span, tile, lambda r, t: line(image, r, t)),
    )
    for j, (value,) in enumerate(sums):
        for lane in range(lanes):
            indices = [k.iadd(channel, lane), i, j, 0]
            refs.pointwise.emit(k, indices, 1, k.extract(value, lane))
