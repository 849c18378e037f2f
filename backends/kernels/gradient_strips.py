"""The cotangent of a filter on vector machines, for more positions than stay in cache.

Blocks of output channels are summed up strip by strip of positions: a strip of the input (a copy
with zeros around it where taps leave the input) and of the output's cotangent stay in cache while
all tiles of the filter pass; their sums wait in scratch. Where all channels are one block, bands of
strips have sums of their own, which threads can share.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.bands import Bands
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.backends.kernels.choice import RegisterTile, band_count, divisor, register_tiles
from niwaki.backends.kernels.convolution import Phase
from niwaki.backends.kernels.filter_gradient import FilterGradientShape
from niwaki.backends.kernels.gather import Gather
from niwaki.backends.kernels.operands import Contraction, Operand, References
from niwaki.backends.kernels.panel_packing import pack_square_by_square
from niwaki.backends.kernels.product import Matrix, Origins
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.strips import Strip, read_strip
from niwaki.backends.kernels.tiles import (
    Accumulators,
    Panel,
    accumulate,
    each_panel,
    each_tile,
    outer_step,
    panels,
)
from niwaki.backends.targets import Target

_POSITIONS = 96
"""Of a strip, at least: they share loading and storing the sums."""


@dataclass(frozen=True)
class Run:
    """Neighbouring elements of the input that meet the same cotangents."""

    offset: int
    """In the strip."""
    place: int
    """Among the elements of one output channel's filter."""
    length: int


@dataclass(frozen=True)
class Plan:
    """How a filter's cotangent is summed up."""

    shape: FilterGradientShape
    target: Target
    other_tile: RegisterTile | None = None
    """Of registers, instead of the best one."""

    @cached_property
    def strip(self) -> Strip:
        """Rows of positions of one image."""
        rows, columns = self.shape.rows, self.shape.columns
        count = divisor(rows.positions, -(-_POSITIONS // columns.positions))
        return Strip(Phase(rows, columns), 1, count, self.shape)

    @cached_property
    def elements(self) -> int:
        """Of one output channel's filter."""
        return self.shape.rows.count * self.shape.columns.count * self.shape.depth

    @cached_property
    def runs(self) -> list[Run]:
        """A row of the filter where it is dense, else a tap."""
        shape, (_, width) = self.shape, self.strip.size
        rows, columns = shape.rows, shape.columns
        line = rows.offset_step * width * shape.in_channels
        length = columns.count * shape.depth
        if shape.groups == 1 and columns.offset_step == 1:
            return [Run(i * line, i * length, length) for i in range(rows.count)]
        tap = columns.offset_step * shape.in_channels
        return [
            Run(i * line + j * tap, i * length + j * shape.depth, shape.depth)
            for i in range(rows.count)
            for j in range(columns.count)
        ]

    @cached_property
    def swap(self) -> bool:
        """Whether vectors run over output channels, not over runs: by what they leave empty."""
        lanes, run = self.target.lanes, self.runs[0].length
        over_runs = self.shape.width * -(-run // lanes)
        return run * -(-self.shape.width // lanes) < over_runs

    @cached_property
    def outputs(self) -> int:
        """Output channels whose sums stay in cache."""
        most = self.target.cache_bytes // 16 // self.elements
        if most >= self.shape.width:
            return self.shape.width
        return max(self.target.lanes, most - most % self.target.lanes)

    @property
    def sums(self) -> int:
        """Elements of the sums in scratch."""
        return self.outputs * self.elements

    @cached_property
    def bands(self) -> int:
        """Of strips, with sums of their own."""
        if self.outputs < self.shape.out_channels:
            return 1
        return band_count(self.shape.positions, self.sums, self.target)

    @property
    def turned(self) -> int:
        """Where the sums of swapped tiles start; they are turned around to the front."""
        return self.sums if self.swap else 0

    @property
    def copied(self) -> int:
        """Where the copied strip starts, behind the sums of all bands."""
        return self.turned + self.bands * self.sums

    @property
    def scratch(self) -> int:
        """Elements."""
        return self.copied + self.strip.elements

    def tile(self, outputs: int) -> RegisterTile:
        """Of registers."""
        return self.other_tile or self.tiles(outputs)[0]

    def tiles(self, outputs: int) -> list[RegisterTile]:
        """Of registers, the best first."""
        run = self.runs[0].length
        rows, columns = (run, outputs) if self.swap else (outputs, run)
        return register_tiles(rows, columns, self.target, lambda _: True)


def _flattened(shape: FilterGradientShape) -> FilterGradientShape:
    """1x1 filters at every position: the batch as rows of convenient length."""
    if not shape.flat:
        return shape
    line = divisor(shape.positions, _POSITIONS)
    size = (shape.positions // line, line)
    rows, columns = (Gather(n, 0, 1, n, 1, 1, 0, 1, 0, 1) for n in size)
    return replace(shape, batch=1, in_size=size, out_size=size, rows=rows, columns=columns)


def alternatives(shape: FilterGradientShape, contraction: Contraction) -> list[Alternative]:
    """Of the filter's cotangent of an ordinary or grouped convolution: by register tile."""
    plan = Plan(_flattened(shape), contraction.target)
    others = {f"strips {t}": replace(plan, other_tile=t) for t in plan.tiles(plan.outputs)[1:]}
    return [
        Alternative(name, partial(_spec, shape, contraction, plan))
        for name, plan in {"strips": plan, **others}.items()
    ]


def prefetches(shape: FilterGradientShape, contraction: Contraction) -> bool:
    """Whether each strip brings the next one into the cache: where that lies behind it."""
    return contraction.streams and shape.flat and shape.groups == 1


def _spec(shape: FilterGradientShape, contraction: Contraction, plan: Plan) -> KernelSpec:
    streams = prefetches(shape, contraction)

    def emit(k: KernelBuilder, refs: References, scratch: Operand) -> None:
        _Kernel(k, refs, scratch, plan, streams).run()

    return contraction.spec_in_scratch(plan.scratch, shape.flops, emit)


@dataclass(frozen=True)
class _Kernel:
    k: KernelBuilder
    refs: References
    scratch: Operand
    plan: Plan
    streams: bool
    """Whether each strip brings the next one, which lies behind it, into the cache."""

    def run(self) -> None:
        k, shape = self.k, self.plan.shape

        def group(place: list[Index]) -> None:
            first = k.imul(place[0], shape.width)
            each_tile(
                k,
                shape.width,
                self.plan.outputs,
                lambda o, count: self._block(place[0], k.iadd(o, first), count),
            )

        k.nest([shape.groups], group)

    def _block(self, group: Index, output: Index, count: int) -> None:
        """`count` output channels, from the first position to the last, then stored."""
        k, plan, strip = self.k, self.plan, self.plan.strip
        sums = count * plan.elements
        bands = Bands(self.scratch, plan.turned, sums, plan.bands, plan.target.lanes)

        def strips(image: Index, first: Index, number: int, start: Index) -> None:
            def add(place: Sequence[Index]) -> None:
                row = k.imul(k.iadd(first, place[0]), strip.rows)
                self._strip(group, output, count, (image, row), start)

            k.nest([number], add)

        bands.clear(k)
        bands.share(k, plan.shape.batch, strip.phase.rows.positions // strip.rows, strips)
        bands.add_up(k)
        if plan.swap:
            self._turn(count)
        self._emit(output, count)

    def _strip(
        self, group: Index, output: Index, count: int, corner: tuple[Index, Index], sums: Index
    ) -> None:
        """Adds the terms of the strip that starts at `corner`: image, row."""
        image, row = corner
        k, plan, strip, shape = self.k, self.plan, self.plan.strip, self.plan.shape
        x, dy = self.refs.anchor
        place = (image, row)
        source, first = read_strip(k, strip, x, self.scratch, plan.copied, place, plan.target)
        first = k.iadd(first, k.imul(group, shape.depth))
        line = k.affine([(image, shape.out_size[0]), (row, 1)])
        cotangents = Matrix(
            dy, k.iadd(k.imul(line, shape.out_size[1] * shape.out_channels), output), 1
        )
        tile = plan.tile(count)
        for run in plan.runs:
            inputs = Matrix(source, k.iadd(first, run.offset), 1)
            if plan.swap:
                goal = k.iadd(sums, run.place * count)
                self._run(inputs, cotangents, run.length, count, tile, goal, count)
            else:
                goal = k.iadd(sums, run.place)
                self._run(cotangents, inputs, count, run.length, tile, goal, plan.elements)

    def _run(
        self,
        a: Matrix,
        b: Matrix,
        rows: int,
        columns: int,
        tile: RegisterTile,
        goal: Index,
        stride: int,
    ) -> None:
        """sums[goal + row * stride + column] += A[row] * B[column], over the strip's positions."""
        k = self.k

        def passing(column: Index, panel: Panel) -> None:
            def add(row: Index, count: int) -> None:
                places = [
                    [
                        k.affine([(k.iadd(row, r), stride), (column, 1), (goal, 1)], block.start)
                        for block in panel.blocks
                    ]
                    for r in range(count)
                ]
                start = [
                    [
                        self.scratch.load(k, p, b.lanes)
                        for p, b in zip(line, panel.blocks, strict=True)
                    ]
                    for line in places
                ]
                sums = self._sum(
                    a, b, a.origins(k, row, count), k.iadd(column, b.start), panel, start
                )
                for line, values in zip(places, sums, strict=True):
                    for place, value in zip(line, values, strict=True):
                        k.store(value, self.scratch.ref, [place])

            each_tile(k, rows, tile.rows, add)

        each_panel(k, panels(columns, self.plan.target, tile.blocks), passing)

    def _sum(
        self,
        a: Matrix,
        b: Matrix,
        origins: Origins,
        corner: Index,
        panel: Panel,
        tile: Accumulators,
    ) -> Accumulators:
        """One tile over all positions of the strip."""
        k, shape, strip = self.k, self.plan.shape, self.plan.strip
        pixel = shape.columns.in_step * shape.in_channels
        inputs = (shape.rows.in_step * strip.size[1] * shape.in_channels, pixel)
        cotangents = (shape.out_size[1] * shape.out_channels, shape.out_channels)
        a_steps, b_steps = (inputs, cotangents) if self.plan.swap else (cotangents, inputs)
        (base,), offsets = origins.bases, origins.offsets

        def at(y: Index, x: Index, values: Accumulators) -> Accumulators:
            left = k.iadd(k.affine([(y, a_steps[0]), (x, a_steps[1])]), base)
            right = k.iadd(k.affine([(y, b_steps[0]), (x, b_steps[1])]), corner)
            if self.streams:
                k.prefetch(a.operand.ref, [k.iadd(left, strip.positions * a_steps[1])])
                for block in panel.blocks:
                    place = k.iadd(right, strip.positions * b_steps[1] + block.start)
                    k.prefetch(b.operand.ref, [place])
            step = outer_step(
                k,
                lambda row, _: a.operand.load(k, k.iadd(left, offsets[row])),
                lambda block, _: b.operand.load(k, k.iadd(right, block.start), block.lanes),
                panel.blocks,
            )
            return step(0, values)

        def line(y: Index, values: Accumulators) -> Accumulators:
            return accumulate(k, 0, strip.phase.columns.positions, values, lambda x, t: at(y, x, t))

        return accumulate(k, 0, strip.rows, tile, line)

    def _turn(self, count: int) -> None:
        """[element][output] to [output][element]."""
        k, plan, lanes = self.k, self.plan, self.plan.target.lanes

        def block(element: Index, width: int) -> None:
            source = k.iadd(k.imul(element, count), plan.turned)
            pack_square_by_square(
                k, self.scratch, source, count, count, (width, width), self.scratch, element,
                plan.elements,
            )  # fmt: skip

        each_block(k, plan.elements, lanes, block)

    def _emit(self, output: Index, count: int) -> None:
        """Stores finished channels through the epilogue."""
        k, plan, shape = self.k, self.plan, self.plan.shape
        taps = (shape.rows.count, shape.columns.count)

        def tap(at: Sequence[Index]) -> None:
            o, i, j = at
            start = k.affine([(o, plan.elements), (i, taps[1] * shape.depth), (j, shape.depth)])

            def block(channel: Index, lanes: int) -> None:
                value = self.scratch.load(k, k.iadd(start, channel), lanes)
                self.refs.pointwise.emit(k, [k.iadd(output, o), i, j, channel], lanes, value)

            each_block(k, shape.depth, plan.target.lanes, block)

        k.nest([count, *taps], tap)
