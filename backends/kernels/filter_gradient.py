"""The cotangent of a convolution's filter: for each tap, an outer product summed over positions."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.blocks import Block, split
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import RegisterTile
from niwaki.backends.kernels.gather import (
    FilterCotangent,
    Gather,
    GatherShape,
    forward_gather,
)
from niwaki.backends.kernels.operands import Contraction, References
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import (
    Accumulators,
    Panel,
    accumulate,
    each_panel,
    each_tile,
    outer_step,
    panels,
    tile_rows,
    unroll_of,
    zeros,
)
from niwaki.backends.targets import Target
from niwaki.ir.dialects.tensor_op import shape_of

_MOST_ROWS = 16
"""Of a tile."""


@dataclass(frozen=True)
class FilterGradientShape(GatherShape):
    """The gathered input and the cotangent at its positions."""

    rows: Gather
    columns: Gather

    @property
    def flops(self) -> int:
        """A multiply-add counted as two, those with padding too."""
        taps = self.rows.count * self.columns.count
        return 2 * self.positions * self.out_channels * self.depth * taps

    @property
    def flat(self) -> bool:
        """Whether output position p reads input position p and nothing else."""
        return (
            self.rows.count == self.columns.count == 1
            and self.rows.inside
            and self.columns.inside
            and self.in_size == self.out_size
        )


def shape_of_filter_gradient(anchor: FilterCotangent) -> FilterGradientShape:
    window, x, dy = anchor.window, shape_of(anchor.x), shape_of(anchor.dy)
    kernel = shape_of(anchor.dw)[1:3]
    gathers = [
        forward_gather(
            dy[a + 1], x[a + 1], kernel[a], window.strides[a], window.padding[a],
            window.dilation[a],
        )
        for a in (0, 1)
    ]  # fmt: skip
    return FilterGradientShape(
        x[0], (x[1], x[2]), x[3], (dy[1], dy[2]), dy[3], window.groups, gathers[0], gathers[1]
    )


def _vectorize_outputs(shape: FilterGradientShape, target: Target) -> bool:
    """Whether vectors run over output channels: few input channels would fill them badly.

    Then the finished tile lies across the filter's layout and is stored element by element.
    """
    over_inputs = shape.width * len(split(shape.depth, target.lanes))
    over_outputs = shape.depth * len(split(shape.width, target.lanes))
    stores = 4 * shape.width * shape.depth
    return over_outputs * shape.positions + stores < over_inputs * shape.positions


def tile_of(
    shape: FilterGradientShape, target: Target, most_rows: int = _MOST_ROWS
) -> RegisterTile:
    """The largest tile."""
    rows, columns = shape.width, shape.depth
    if _vectorize_outputs(shape, target):
        rows, columns = columns, rows
    blocks = max(len(panel.blocks) for panel in panels(columns, target))
    return RegisterTile(tile_rows(rows, blocks, target, most_rows), blocks)


def alternatives(shape: FilterGradientShape, contraction: Contraction) -> list[Alternative]:
    """Of the filter's cotangent of an ordinary or grouped convolution."""
    return [Alternative("tiles", partial(_spec, shape, contraction))]


def _spec(shape: FilterGradientShape, contraction: Contraction) -> KernelSpec:
    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, 0)
        target = contraction.target
        swap = _vectorize_outputs(shape, target)
        # The code of scalar tiles would be little but copies of the epilogue.
        low = target.lanes == 1 and shape.positions < len(Group.of(contraction.op).ops)
        _Kernel(k, refs, shape, target, swap, 1 if low else _MOST_ROWS).run()
        return k.finish()

    return contraction.spec(0, shape.flops, build)


@dataclass(frozen=True)
class _Kernel:
    k: KernelBuilder
    refs: References
    shape: FilterGradientShape
    target: Target
    swap: bool
    """Vectors over output channels, rows of the tile over input channels."""
    most_rows: int
    """Of a tile."""

    def run(self) -> None:
        k, shape = self.k, self.shape
        _loop(k, shape.groups, lambda group: self._group(group))

    def _group(self, group: Index) -> None:
        k, shape = self.k, self.shape
        _loop(
            k,
            shape.rows.count,
            lambda i: _loop(k, shape.columns.count, lambda j: self._tap(group, i, j)),
        )

    def _tap(self, group: Index, i: Index, j: Index) -> None:
        k, shape = self.k, self.shape
        rows, columns = (shape.depth, shape.width) if self.swap else (shape.width, shape.depth)
        ranges = panels(columns, self.target)
        height = tile_of(shape, self.target, self.most_rows).rows

        def tile(row: Index, count: int) -> None:
            each_panel(
                k,
                ranges,
                lambda column, panel: self._tile(group, i, j, row, count, column, panel),
            )

        each_tile(k, rows, height, tile)

    def _tile(
        self, group: Index, i: Index, j: Index, row: Index, count: int, column: Index, panel: Panel
    ) -> None:
        k, shape = self.k, self.shape
        first_input, first_output = k.imul(group, shape.depth), k.imul(group, shape.width)
        input_channel = k.iadd(first_input, row if self.swap else column)
        output_channel = k.iadd(first_output, column if self.swap else row)
        sums = self._sum(i, j, input_channel, output_channel, count, panel)
        for r, values in enumerate(sums):
            for block, value in zip(panel.blocks, values, strict=True):
                place = k.iadd(column, block.start)
                if not self.swap:
                    indices = [k.iadd(k.iadd(first_output, row), r), i, j, place]
                    self.refs.pointwise.emit(k, indices, block.lanes, value)
                    continue
                for lane in range(block.lanes):
                    output = k.iadd(k.iadd(first_output, place), lane)
                    indices = [output, i, j, k.iadd(row, r)]
                    self.refs.pointwise.emit(k, indices, 1, k.extract(value, lane))

    def _sum(
        self,
        i: Index,
        j: Index,
        input_channel: Index,
        output_channel: Index,
        count: int,
        panel: Panel,
    ) -> Accumulators:
        """The tile, summed over all positions whose tap (i, j) lies inside."""
        k, shape = self.k, self.shape
        x, dy = self.refs.anchor
        start = zeros(k, count, panel.blocks, x.element)

        def step(source: Index, goal: Index) -> Callable[[Index, Accumulators], Accumulators]:
            scalars, vectors = (x, dy) if self.swap else (dy, x)
            edge, corner = (source, goal) if self.swap else (goal, source)

            def a(row: int, _: Index) -> Value:
                return scalars.load(k, k.iadd(edge, row))

            def b(block: Block, _: Index) -> Value:
                return vectors.load(k, k.iadd(corner, block.start), block.lanes)

            return outer_step(k, a, b, panel.blocks)

        def at(y: Index, x_: Index, image: Index, tile: Accumulators) -> Accumulators:
            height, width = shape.in_size
            source_y = k.affine([(y, shape.rows.in_step), (i, shape.rows.offset_step)])
            source_x = k.affine([(x_, shape.columns.in_step), (j, shape.columns.offset_step)])
            source = k.affine(
                [
                    (image, height * width * shape.in_channels),
                    (source_y, width * shape.in_channels),
                    (source_x, shape.in_channels),
                    (input_channel, 1),
                ],
                (shape.rows.offset * width + shape.columns.offset) * shape.in_channels,
            )
            goal = k.affine(
                [
                    (image, prod(shape.out_size) * shape.out_channels),
                    (y, shape.out_size[1] * shape.out_channels),
                    (x_, shape.out_channels),
                    (output_channel, 1),
                ]
            )
            return step(source, goal)(0, tile)

        unroll = unroll_of(count, len(panel.blocks))
        if shape.flat:
            return accumulate(k, 0, shape.positions, start, lambda p, t: at(0, p, 0, t), unroll)
        ranges = [
            (gather.first_position(k, tap), gather.end_position(k, tap))
            for gather, tap in ((shape.rows, i), (shape.columns, j))
        ]

        def line(image: Index, y: Index, tile: Accumulators) -> Accumulators:
            return accumulate(k, *ranges[1], tile, lambda x_, t: at(y, x_, image, t), unroll)

        def picture(image: Index, tile: Accumulators) -> Accumulators:
            return accumulate(k, *ranges[0], tile, lambda y, t: line(image, y, t))

        return accumulate(k, 0, shape.batch, start, picture)


def _loop(k: KernelBuilder, count: int, body: Callable[[Index], None]) -> None:
    """A loop, or the body alone where there is one iteration."""
    if count == 1:
        body(0)
    else:
        k.each(0, count, 1, body)
