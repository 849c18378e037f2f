"""Dense 3x3 convolution of stride 1, and the cotangent of its input, by fewer multiplications.

Tiles of outputs are computed at the points of `Filtering`: there, each of the planes is a matrix
product of tiles x input channels with input channels x output channels. Blocks of output channels
pass one after another, so that their transformed filter stays in cache, and within them strips of
tiles; all of the transforms are plain vectors of channels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, Value
from niwaki.backends.kernels.choice import RegisterTile, product_cycles, register_tile
from niwaki.backends.kernels.convolution import (
    Construction,
    Plan,
    shape_of_gathering,
    spec_of,
)
from niwaki.backends.kernels.gather import Gathering
from niwaki.backends.kernels.operands import Contraction, Operand
from niwaki.backends.kernels.panel_packing import Pack, RowLoop, pack_rows, pack_transposed
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


@dataclass(frozen=True)
class Layout:
    """Where the scratch of a cut lies (elements), and its products."""

    cut: Cut

    @property
    def cycles(self) -> float:
        """Estimated, of one call."""
        cut, tiles = self.cut, self.cut.grid.count
        vectors = -(-cut.block // cut.target.lanes)
        terms = cut.filtering.planes * cut.shape.depth * cut.strips * cut.blocks
        products = terms * product_cycles(tiles, vectors, self.tile(tiles, cut.block))
        return products + cut.transform_cycles

    def tile(self, tiles: int, columns: int) -> RegisterTile:
        """Of registers."""
        return register_tile(tiles, columns, self.cut.target, lambda _: True)

    def panels(self, columns: int) -> Sequence[Panel]:
        """Of a block of output channels."""
        blocks = self.tile(self.cut.grid.count, columns).blocks
        return padded_panels(columns, self.cut.target, blocks)

    @cached_property
    def _strides(self) -> tuple[int, int, int]:
        """From plane to plane of the filter, inputs and products."""
        depth, tiles, target = self.cut.shape.depth, self.cut.grid.count, self.cut.target
        columns = -(-self.cut.block // target.lanes) * target.lanes
        sizes = columns * depth, tiles * depth, tiles * self.cut.block
        filters, inputs, products = (plane_stride(size, target) for size in sizes)
        return filters, inputs, products

    def planes(self, scratch: Operand) -> tuple[Planes, Planes, Planes]:
        """The filter in panels, transformed inputs [tile][channel] and products [tile][channel]."""
        filters, inputs, products = self._strides
        return (
            Planes(scratch, 0, filters),
            Planes(scratch, self.cut.filtering.planes * filters, inputs),
            Planes(scratch, self.copy, products),
        )

    @property
    def copy(self) -> int:
        """Where the strip is copied to: where its products will be."""
        filters, inputs, _ = self._strides
        return self.cut.filtering.planes * (filters + inputs)

    @property
    def scratch(self) -> int:
        """All elements."""
        products = self.cut.filtering.planes * self._strides[2]
        return self.copy + max(products, self.cut.grid.strip.elements)


def alternatives(
    anchor: Gathering, contraction: Contraction, others: list[Alternative]
) -> list[Alternative]:
    """Of a convolution or of its input's cotangent, among those that multiply tap by tap."""
    shape, target = shape_of_gathering(anchor), contraction.target
    phase, *more = shape.phases
    if more or not is_dense(phase.rows, phase.columns, shape, target):
        return others
    found = cuts(shape, phase, target, lambda size: (Filtering(size, 3), size))

    def spec(layout: Layout) -> KernelSpec:
        kernel = partial(WinogradKernel, layout=layout)
        return spec_of(contraction, shape, Plan(False, 0, 0, layout.scratch), kernel)

    return among(others, map(Layout, found), shape, other_cycles(shape, target, True), spec)


@dataclass(frozen=True)
class WinogradKernel(Construction):
    """As one matrix product for each point of the transforms."""

    layout: Layout

    def run(self) -> None:
        """Block by block of output channels, in each strip by strip of tiles."""
        k, cut = self.k, self.layout.cut
        grid = cut.grid
        if cut.single:
            self._transform_inputs(grid, 0, 0)

        def block(first: Index, count: int) -> None:
            self._transform_filter(first, count)
            if cut.single:
                self._multiply(grid, count)
                self._transform_outputs(grid, 0, 0, first, count)
                return

            def one(strip: Strip, image: Index, row: Index) -> None:
                part = replace(grid, strip=strip)
                self._transform_inputs(part, image, row)
                self._multiply(part, count)
                self._transform_outputs(part, image, row, first, count)

            each_strip(k, grid.strip, self.shape.batch, one)

        each_tile(k, self.shape.width, cut.block, block)

    def _transform_filter(self, first: Index, count: int) -> None:
        """The filter of `count` output channels: taps are packed as planes, then transformed."""
        k, layout, depth = self.k, self.layout, self.shape.depth
        planes, _, _ = layout.planes(self.scratch)
        filtering, ranges = layout.cut.filtering, layout.panels(count)

        def pack_tap(tap: Value) -> None:
            pack, start = self._pack(tap, first), planes.of(k, tap)

            def panel_of(column: Index, panel: Panel) -> None:
                pack(column, panel, k.iadd(k.imul(column, depth), start))

            each_panel(k, ranges, panel_of)

        k.each(0, prod(self.shape.kernel), 1, pack_tap)

        def vector(place: Index, lanes: int) -> None:
            weights = planes.load(k, place, lanes, filtering.taps)
            planes.store(k, place, filtering.of_filter(k, weights))

        columns = ranges[-1].start + ranges[-1].width * ranges[-1].repeat
        each_block(k, columns * depth, self.target.lanes, vector)

    def _pack(self, tap: Index, first: Index) -> Pack:
        """Packs one tap of the filter; the cotangent of the input counts from the last one."""
        k, shape, w = self.k, self.shape, self.refs.anchor[1]
        taps = prod(shape.kernel)
        if shape.forward:
            start = k.affine([(first, taps * shape.depth), (tap, shape.depth)])
            return pack_transposed(k, w, start, taps * shape.depth, shape.depth, self.scratch)
        start = k.iadd(k.imul(k.isub(taps - 1, tap), shape.width), first)
        loops = [RowLoop(shape.depth, taps * shape.width)]
        return pack_rows(k, w, start, loops, self.scratch)

    def _transform_inputs(self, grid: TileGrid, image: Index, row: Index) -> None:
        k, layout, depth = self.k, self.layout, self.shape.depth
        filtering, (_, planes, _) = layout.cut.filtering, layout.planes(self.scratch)
        source = read_strip(
            k, grid.strip, self.refs.anchor[0], self.scratch, layout.copy, (image, row),
            self.target,
        )  # fmt: skip

        def channels(body: Callable[[Channels], None]) -> None:
            def block(c: Index, lanes: int) -> None:
                body(Channels(c, lanes, c, depth))

            each_block(k, depth, self.target.lanes, block)

        transform_tiles(
            k, grid, filtering.points, source, channels,
            lambda pixels: filtering.of_inputs(k, pixels), planes,
        )  # fmt: skip

    def _multiply(self, grid: TileGrid, count: int) -> None:
        k, layout, scratch = self.k, self.layout, self.scratch
        depth, tiles = self.shape.depth, grid.count
        filters, inputs, products = layout.planes(scratch)
        height, ranges = layout.tile(tiles, count).rows, layout.panels(count)

        def product(plane: Value) -> None:
            a = Matrix(scratch, inputs.of(k, plane), depth)
            b = PackedColumns(scratch, filters.of(k, plane), depth)
            goal = products.of(k, plane)

            def put(row: Index, column: Index, lanes: int, value: Value) -> None:
                place = k.affine([(row, count), (column, 1), (goal, 1)])
                k.store(value, scratch.ref, [place])

            sums = [Sum(depth, 1, 1)]
            multiply_panels(k, a, b, height, 0, tiles, ranges, sums, put)

        k.each(0, layout.cut.filtering.planes, 1, product)

    def _transform_outputs(
        self, grid: TileGrid, image: Index, row: Index, first: Index, count: int
    ) -> None:
        k, layout, shape = self.k, self.layout, self.shape
        filtering, (_, _, products) = layout.cut.filtering, layout.planes(self.scratch)
        whole, rest = divmod(shape.out_size[1], grid.side)

        def tile(at: list[Index], columns: int) -> None:
            source = k.imul(grid.number(k, at), count)
            line = k.affine([(at[1], grid.side), (row, 1)])
            place = k.affine([(k.iadd(image, at[0]), shape.out_size[0]), (line, 1)])
            place = k.affine([(place, shape.out_size[1]), (at[2], grid.side)])

            def block(channel: Index, lanes: int) -> None:
                values = products.load(k, k.iadd(source, channel), lanes, filtering.points)
                for i, outputs in enumerate(filtering.to_outputs(k, values)):

                    def put(i: int = i, outputs: Sequence[Value] = outputs) -> None:
                        for j, value in enumerate(outputs[:columns]):
                            position = k.iadd(place, i * shape.out_size[1] + j)
                            self.results.put(position, k.iadd(first, channel), lanes, value)

                    if i == 0 or shape.out_size[0] % grid.side == 0:
                        put()
                    else:
                        inside = k.icompare(k.iadd(line, i), shape.out_size[0], "slt")
                        k.choose(inside, put, lambda: None)

            each_block(k, count, self.target.lanes, block)

        def tile_row(at: list[Index]) -> None:
            if whole:
                k.nest([whole], lambda x: tile([*at, *x], grid.side))
            if rest:
                tile([*at, whole], rest)

        k.nest(grid.sizes[:2], tile_row)
