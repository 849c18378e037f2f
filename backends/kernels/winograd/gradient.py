"""The cotangent of a dense 3x3 filter of stride 1, by fewer multiplications.

The filter's elements are the outputs of `Filtering`, and tiles of the output's cotangent its taps.
At each point, the sum over all tiles is one matrix product: output channels x tiles with tiles x
input channels. Blocks of output channels pass one after another, so that their sums stay in cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import RegisterTile, product_cycles, register_tile
from niwaki.backends.kernels.convolution import Phase
from niwaki.backends.kernels.filter_gradient import FilterGradientShape
from niwaki.backends.kernels.gather import forward_gather
from niwaki.backends.kernels.operands import Contraction, Operand, References
from niwaki.backends.kernels.product import Matrix, PackedColumns, Sum, multiply_panels
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.strips import Strip, each_strip, read_strip
from niwaki.backends.kernels.tiles import Panel, each_panel, each_tile, padded_panels
from niwaki.backends.kernels.winograd.cut import Cut, among, cuts, is_dense, other_cycles
from niwaki.backends.kernels.winograd.tiles import (
    Channels,
    Planes,
    TileGrid,
    plane_stride,
    transform_tiles,
)
from niwaki.backends.kernels.winograd.transforms import Filtering

_SUMMED = 2
"""Cycles of loading and storing a vector of sums."""


@dataclass(frozen=True)
class Layout:
    """Where the scratch of a cut lies (elements), and its products."""

    cut: Cut

    @property
    def cycles(self) -> float:
        """Estimated, of one call."""
        cut, depth = self.cut, self.cut.shape.depth
        vectors = -(-depth // cut.target.lanes)
        products = cut.tiles * product_cycles(cut.block, vectors, self.tile(cut.block))
        sums = _SUMMED * cut.strips * cut.block * vectors
        return cut.filtering.planes * cut.blocks * (products + sums) + cut.transform_cycles

    def cotangents(self, inputs: TileGrid) -> TileGrid:
        """The cotangents of the output that meet `inputs`."""
        shape, strip = self.cut.shape, inputs.strip
        rows, columns = (
            replace(forward_gather(size, size, 1, 1, 0, 1), positions=gather.positions)
            for size, gather in zip(
                shape.out_size, (strip.phase.rows, strip.phase.columns), strict=True
            )
        )
        read = replace(shape, in_size=shape.out_size, in_channels=shape.out_channels)
        return TileGrid(Strip(Phase(rows, columns), strip.images, strip.rows, read), inputs.side)

    def tile(self, outputs: int) -> RegisterTile:
        """Of registers."""
        return register_tile(outputs, self.cut.shape.depth, self.cut.target, lambda _: True)

    @cached_property
    def panels(self) -> Sequence[Panel]:
        """Of input channels."""
        cut = self.cut
        return padded_panels(cut.shape.depth, cut.target, self.tile(cut.block).blocks)

    @cached_property
    def _strides(self) -> tuple[int, int, int]:
        """From plane to plane of sums, inputs and cotangents."""
        block, depth, tiles = self.cut.block, self.cut.shape.depth, self.cut.grid.count
        last, target = self.panels[-1], self.cut.target
        columns = last.start + last.width * last.repeat
        sizes = block * depth, tiles * columns, tiles * block
        sums, inputs, cotangents = (plane_stride(size, target) for size in sizes)
        return sums, inputs, cotangents

    def planes(self, scratch: Operand) -> tuple[Planes, Planes, Planes]:
        """Sums [output][input], transformed inputs in panels, and cotangents [tile][output]."""
        count = self.cut.filtering.planes
        sums, inputs, cotangents = self._strides
        return (
            Planes(scratch, 0, sums),
            Planes(scratch, count * sums, inputs),
            Planes(scratch, count * (sums + inputs), cotangents),
        )

    @property
    def copies(self) -> tuple[int, int]:
        """Where strips of the inputs, then of the cotangents are copied to.

        Inputs are transformed before there are cotangents.
        """
        sums, inputs, cotangents = (self.cut.filtering.planes * s for s in self._strides)
        return sums + inputs, sums + inputs + cotangents

    @property
    def scratch(self) -> int:
        """All elements."""
        inputs, cotangents = self.copies
        return max(
            inputs + self.cut.grid.strip.elements,
            cotangents + self.cotangents(self.cut.grid).strip.elements,
        )


def alternatives(
    shape: FilterGradientShape, contraction: Contraction, others: list[Alternative]
) -> list[Alternative]:
    """Of a filter's cotangent, among those that multiply tap by tap."""
    target = contraction.target
    if not is_dense(shape.rows, shape.columns, shape, target):
        return others
    phase = Phase(shape.rows, shape.columns)
    found = cuts(shape, phase, target, lambda size: (Filtering(3, size), size))
    spec = partial(_spec, shape, contraction)
    return among(others, map(Layout, found), shape, other_cycles(shape, target, False), spec)


def _spec(shape: FilterGradientShape, contraction: Contraction, layout: Layout) -> KernelSpec:
    return contraction.spec_in_scratch(
        layout.scratch,
        shape.flops,
        lambda k, refs, scratch: _Kernel(k, refs, scratch, layout).run(),
    )


@dataclass(frozen=True)
class _Kernel:
    k: KernelBuilder
    refs: References
    scratch: Operand
    layout: Layout

    def run(self) -> None:
        """Block by block of output channels, the sum in each strip by strip of tiles."""
        k, layout, cut = self.k, self.layout, self.layout.cut
        inputs, shape = cut.grid, cut.shape
        if cut.single:
            self._transform_inputs(inputs, (0, 0))
            pixels = self._read(layout.cotangents(inputs), 1, (0, 0))

            def block(first: Index, count: int) -> None:
                self._transform_cotangents(layout.cotangents(inputs), pixels, first, count)
                self._multiply(inputs, count)
                self._emit(first, count)
        else:

            def block(first: Index, count: int) -> None:
                self._clear()

                def one(strip: Strip, image: Index, row: Index) -> None:
                    part = replace(inputs, strip=strip)
                    self._transform_inputs(part, (image, row))
                    cotangents = layout.cotangents(part)
                    pixels = self._read(cotangents, 1, (image, row))
                    self._transform_cotangents(cotangents, pixels, first, count)
                    self._multiply(part, count)

                each_strip(k, inputs.strip, shape.batch, one)
                self._emit(first, count)

        each_tile(k, shape.width, cut.block, block)

    def _read(self, grid: TileGrid, operand: int, at: tuple[Index, Index]) -> tuple[Operand, Index]:
        """A strip of an operand: its memory, and where the first pixel is."""
        source, copy = self.refs.anchor[operand], self.layout.copies[operand]
        return read_strip(
            self.k, grid.strip, source, self.scratch, copy, at, self.layout.cut.target
        )

    def _transform_inputs(self, grid: TileGrid, at: tuple[Index, Index]) -> None:
        k, layout = self.k, self.layout
        filtering = layout.cut.filtering
        _, planes, _ = layout.planes(self.scratch)

        def channels(body: Callable[[Channels], None]) -> None:
            def panel_of(column: Index, panel: Panel) -> None:
                start = k.imul(column, grid.count)
                for block in panel.blocks:
                    for part in panel.parts(block):
                        offset = block.start + part.start
                        first, place = k.iadd(column, offset), k.iadd(start, offset)
                        body(Channels(first, part.lanes, place, panel.width))

            each_panel(k, layout.panels, panel_of)

        transform_tiles(
            k, grid, filtering.points, self._read(grid, 0, at), channels,
            lambda pixels: filtering.of_inputs(k, pixels), planes,
        )  # fmt: skip

    def _transform_cotangents(
        self, grid: TileGrid, source: tuple[Operand, Index], first: Index, count: int
    ) -> None:
        k, layout = self.k, self.layout
        filtering = layout.cut.filtering
        _, _, planes = layout.planes(self.scratch)

        def channels(body: Callable[[Channels], None]) -> None:
            def block(c: Index, lanes: int) -> None:
                body(Channels(k.iadd(first, c), lanes, c, count))

            each_block(k, count, layout.cut.target.lanes, block)

        transform_tiles(
            k, grid, filtering.taps, source, channels,
            lambda pixels: filtering.of_filter(k, pixels), planes,
        )  # fmt: skip

    def _clear(self) -> None:
        sums, inputs, _ = self.layout.planes(self.scratch)
        lanes = self.layout.cut.target.lanes
        self.scratch.clear(self.k, sums.start, inputs.start - sums.start, lanes)

    def _multiply(self, grid: TileGrid, count: int) -> None:
        """Adds up the products of a strip."""
        k, layout, scratch = self.k, self.layout, self.scratch
        sums, inputs, cotangents = layout.planes(scratch)

        def product(plane: Value) -> None:
            a = Matrix(scratch, cotangents.of(k, plane), 1)
            b = PackedColumns(scratch, inputs.of(k, plane), grid.count)
            goal = sums.of(k, plane)

            def put(row: Index, column: Index, lanes: int, value: Value) -> None:
                place = k.affine([(row, layout.cut.shape.depth), (column, 1), (goal, 1)])
                if not layout.cut.single:
                    value = k.add(value, scratch.load(k, place, lanes))
                k.store(value, scratch.ref, [place])

            over_tiles = [Sum(grid.count, count, 1)]
            height = layout.tile(count).rows
            multiply_panels(k, a, b, height, 0, count, layout.panels, over_tiles, put)

        k.each(0, layout.cut.filtering.planes, 1, product)

    def _emit(self, first: Index, count: int) -> None:
        """Stores the finished channels through the epilogue."""
        k, layout = self.k, self.layout
        filtering, depth = layout.cut.filtering, layout.cut.shape.depth
        sums, _, _ = layout.planes(self.scratch)

        def output(at: list[Index]) -> None:
            def block(channel: Index, lanes: int) -> None:
                place = k.affine([(at[0], depth), (channel, 1)])
                values = sums.load(k, place, lanes, filtering.points)
                for i, row in enumerate(filtering.to_outputs(k, values)):
                    for j, value in enumerate(row):
                        indices = [k.iadd(first, at[0]), i, j, channel]
                        self.refs.pointwise.emit(k, indices, lanes, value)

            each_block(k, depth, layout.cut.target.lanes, block)

        k.nest([count], output)
