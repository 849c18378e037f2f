"""Matrix products on registers: C[row, column] = sum over i of A[row, i] * B[i, column]."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from niwaki.backends.kernels.blocks import Block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.panel_packing import Pack
from niwaki.backends.kernels.tiles import (
    Accumulators,
    Panel,
    accumulate,
    dot_tile,
    each_panel,
    each_tile,
    outer_step,
    panels,
    tile_rows,
    unroll_of,
    zeros,
)
from niwaki.backends.targets import Target

Put = Callable[[Index, Index, int, Value], None]
"""(row, column, lanes, value): takes finished elements."""
Prefetch = Callable[[Index, Index], None]
"""(row, column): prefetches what `Put` will load and store for the element there."""
PrefetchTerm = Callable[[Index], None]
"""(i): prefetches something beside term i of the sums of a tile."""
BesideTile = Callable[[Index, Panel, Index, int], PrefetchTerm]
"""(column, panel, row, rows): prefetches what is read next beside a tile of `rows` rows."""


@dataclass(frozen=True)
class Sum:
    """One loop of the sum over i, with its strides in A and in B."""

    count: int
    a_step: int
    b_step: int


@dataclass(frozen=True)
class Origins:
    """Where the rows of a tile start: at offsets from one base, or each at its own."""

    bases: Sequence[Index]
    offsets: Sequence[int] = ()

    def of(self, row: int) -> tuple[Index, int]:
        """(base, offset) of a row."""
        return (self.bases[0], self.offsets[row]) if self.offsets else (self.bases[row], 0)


class Rows(Protocol):
    """A of a product."""

    @property
    def operand(self) -> Operand:
        """The memory."""
        ...

    def origins(self, k: KernelBuilder, row: Index, count: int) -> Origins:
        """Where `count` rows from `row` on start."""
        ...


class Columns(Protocol):
    """B of a product."""

    @property
    def operand(self) -> Operand:
        """The memory."""
        ...

    def panel(
        self, k: KernelBuilder, column: Index, panel: Panel, sums: Sequence[Sum]
    ) -> tuple[Index, Sequence[Sum]]:
        """Where the panel at `column` starts, and the loops of the sum with their steps there."""
        ...


@dataclass(frozen=True)
class Matrix:
    """A matrix in a flat memref. A is [row, i]; B is [column, i]."""

    operand: Operand
    start: Index
    stride: int
    """From row to row of A, from column to column of B."""

    def origins(self, k: KernelBuilder, row: Index, count: int) -> Origins:
        """Equally distant rows."""
        base = k.iadd(k.imul(row, self.stride), self.start)
        return Origins([base], [r * self.stride for r in range(count)])

    def panel(
        self, k: KernelBuilder, column: Index, panel: Panel, sums: Sequence[Sum]
    ) -> tuple[Index, Sequence[Sum]]:
        """Columns that are neighbours."""
        del panel
        return k.iadd(column, self.start), sums


@dataclass(frozen=True)
class PackedColumns:
    """B as `panel_packing` leaves it; sums count its steps in rows."""

    operand: Operand
    start: Index
    length: int
    """Terms of a sum."""
    pack: Pack | None = None
    """Packs each panel before it is used, all of a range at one place; None: all are packed."""
    places: Mapping[int, int] = field(default_factory=dict[int, int])
    """First column of a range -> elements from `start` to that place, if there are any."""
    beside: BesideTile | None = None
    """Prefetches what the next panels and terms will read."""

    def prepare(self, k: KernelBuilder, column: Index, panel: Panel) -> None:
        """What has to be done before tiles read a panel."""
        if self.pack is not None:
            self.pack(column, panel, self._place(k, panel))

    def _place(self, k: KernelBuilder, panel: Panel) -> Index:
        return k.iadd(self.start, self.places.get(panel.start, 0))

    def panel(
        self, k: KernelBuilder, column: Index, panel: Panel, sums: Sequence[Sum]
    ) -> tuple[Index, Sequence[Sum]]:
        """The panel is contiguous."""
        start = self._place(k, panel)
        if self.pack is None:
            start = k.iadd(k.imul(column, self.length), start)
        return start, [replace(s, b_step=s.b_step * panel.width) for s in sums]


@dataclass(frozen=True)
class Staging:
    """Where a finished tile is put down, so that a loop takes its elements on.

    An epilogue of many operations would fight the sums for registers: it would load its constants
    for every vector, and be written out for each one.
    """

    operand: Operand
    start: Index

    def put(
        self,
        k: KernelBuilder,
        tile: Accumulators,
        row: Index,
        column: Index,
        panel: Panel,
        put: Put,
    ) -> None:
        """Stores a tile, then gives its elements to `put`."""
        for offset, values in enumerate(tile):
            for block, value in zip(panel.blocks, values, strict=True):
                place = k.iadd(self.start, offset * panel.width + block.start)
                k.store(value, self.operand.ref, [place])

        def line(offset: Value) -> None:
            source = k.iadd(k.imul(offset, panel.width), self.start)
            for block in panel.blocks:
                for part in panel.parts(block):
                    start = block.start + part.start
                    value = self.operand.load(k, k.iadd(source, start), part.lanes)
                    put(k.iadd(row, offset), k.iadd(column, start), part.lanes, value)

        k.each(0, len(tile), 1, line)


def use_dots(rows: int, length: int, target: Target) -> bool:
    """Whether to work by dot products, for A and B both contiguous along the sum.

    The other way B must be transposed first, which pays only over many rows. Scalar machines
    have nothing to gain from it.
    """
    return target.lanes == 1 or length >= 4 * rows


def transpose(
    k: KernelBuilder, b: Matrix, columns: int, length: int, scratch: Operand, start: int
) -> Matrix:
    """B, contiguous along the sum, rewritten to `scratch` so that its columns are."""

    def row(i: Value) -> None:
        source, goal = k.iadd(i, b.start), k.iadd(k.imul(i, columns), start)

        def element(j: Value) -> None:
            value = b.operand.load(k, k.iadd(k.imul(j, b.stride), source))
            k.store(value, scratch.ref, [k.iadd(goal, j)])

        k.each(0, columns, 1, element)

    k.each(0, length, 1, row)
    return Matrix(scratch, start, 1)


def multiply_outer(
    k: KernelBuilder,
    target: Target,
    a: Matrix,
    b: Matrix,
    rows: int,
    columns: int,
    sums: Sequence[Sum],
    put: Put,
    prefetch: Prefetch | None = None,
    beside: BesideTile | None = None,
) -> None:
    """By outer products: vectors of B (column stride 1) times scalars of A.

    `beside`: what to prefetch beside the first panel.
    """
    ranges = panels(columns, target)
    height = tile_rows(rows, max(len(p.blocks) for p in ranges), target)

    def tile(row: Index, count: int) -> None:
        def passing(column: Index, panel: Panel) -> None:
            term = None
            if beside is not None and panel is ranges[0]:
                term = beside(column, panel, row, count)
            outer_tile(k, a, b, row, count, column, panel, sums, put, prefetch, term)

        each_panel(k, ranges, passing)

    each_tile(k, rows, height, tile)


def beside_matrix(k: KernelBuilder, a: Matrix, rows: int, length: int) -> BesideTile:
    """Prefetches the matrix behind A of a stack, evenly spread over the tiles of this one."""

    def beside(column: Index, panel: Panel, row: Index, count: int) -> PrefetchTerm:
        del column, panel
        start = k.iadd(a.start, k.imul(k.iadd(row, rows), length))
        return lambda i: k.prefetch(a.operand.ref, [k.iadd(start, k.imul(i, count))])

    return beside


def multiply_panels(
    k: KernelBuilder,
    a: Rows,
    b: PackedColumns,
    height: int,
    first: Index,
    rows: int,
    ranges: Sequence[Panel],
    sums: Sequence[Sum],
    put: Put,
    prefetch: Prefetch | None = None,
    staging: Staging | None = None,
) -> None:
    """By outer products, `rows` rows from `first` on: a panel stays in cache while they pass."""

    def passing(column: Index, panel: Panel) -> None:
        def tile(row: Index, count: int) -> None:
            place = k.iadd(row, first)
            term = None if b.beside is None else b.beside(column, panel, row, count)
            outer_tile(k, a, b, place, count, column, panel, sums, put, prefetch, term, staging)

        b.prepare(k, column, panel)
        each_tile(k, rows, height, tile)

    each_panel(k, ranges, passing)


def outer_tile(
    k: KernelBuilder,
    a: Rows,
    b: Columns,
    row: Index,
    count: int,
    column: Index,
    panel: Panel,
    sums: Sequence[Sum],
    put: Put,
    prefetch: Prefetch | None = None,
    prefetch_term: PrefetchTerm | None = None,
    staging: Staging | None = None,
) -> None:
    """One tile of `count` rows and one panel of columns."""
    if prefetch is not None:
        for offset in range(count):
            for block in panel.blocks:
                prefetch(k.iadd(row, offset), k.iadd(column, block.start))
    corner, sums = b.panel(k, column, panel, sums)
    start = zeros(k, count, panel.blocks, a.operand.element)
    origins = a.origins(k, row, count)
    tile = _accumulate_all(
        k, a.operand, b.operand, origins, corner, panel, sums, start, prefetch_term
    )
    if staging is not None:
        staging.put(k, tile, row, column, panel, put)
        return
    for offset, values in enumerate(tile):
        for block, value in zip(panel.blocks, values, strict=True):
            for part in panel.parts(block):
                place = k.iadd(column, block.start + part.start)
                put(k.iadd(row, offset), place, part.lanes, k.slice(value, part.start, part.lanes))


def _accumulate_all(
    k: KernelBuilder,
    a: Operand,
    b: Operand,
    origins: Origins,
    corner: Index,
    panel: Panel,
    sums: Sequence[Sum],
    tile: Accumulators,
    prefetch_term: PrefetchTerm | None,
) -> Accumulators:
    """The loops `sums`, the first one outermost."""
    loop, *inner = sums

    def shifted(i: Index) -> Origins:
        step = k.imul(i, loop.a_step)
        return replace(origins, bases=[k.iadd(step, base) for base in origins.bases])

    if inner:

        def nested(i: Index, values: Accumulators) -> Accumulators:
            edge = k.iadd(k.imul(i, loop.b_step), corner)
            return _accumulate_all(k, a, b, shifted(i), edge, panel, inner, values, prefetch_term)

        return accumulate(k, 0, loop.count, tile, nested)

    def step(i: Index, values: Accumulators) -> Accumulators:
        if prefetch_term is not None:
            prefetch_term(i)
        places, line = shifted(i), k.iadd(k.imul(i, loop.b_step), corner)

        def left(row: int, _: Index) -> Value:
            base, offset = places.of(row)
            return a.load(k, k.iadd(base, offset))

        def right(block: Block, _: Index) -> Value:
            return b.load(k, k.iadd(line, block.start), block.lanes)

        return outer_step(k, left, right, panel.blocks)(i, values)

    unroll = unroll_of(len(tile), len(panel.blocks))
    return accumulate(k, 0, loop.count, tile, step, unroll)


def multiply_dots(
    k: KernelBuilder,
    target: Target,
    a: Matrix,
    b: Matrix,
    rows: int,
    columns: int,
    length: int,
    put: Put,
) -> None:
    """By dot products along the sum, for A and B contiguous there."""
    wide = tile_rows(columns, 4, target, most=4)
    height = tile_rows(rows, wide, target, most=4)

    def tile(column: Index, width: int) -> None:
        each_tile(
            k,
            rows,
            height,
            lambda row, count: dots(k, target, a, b, row, count, column, width, length, put),
        )

    each_tile(k, columns, wide, tile)


def dots(
    k: KernelBuilder,
    target: Target,
    a: Matrix,
    b: Matrix,
    row: Index,
    count: int,
    column: Index,
    width: int,
    length: int,
    put: Put,
) -> None:
    """One tile of dot products."""
    origins = [k.iadd(k.imul(k.iadd(row, r), a.stride), a.start) for r in range(count)]
    corners = [k.iadd(k.imul(k.iadd(column, c), b.stride), b.start) for c in range(width)]
    sums = dot_tile(
        k,
        length,
        target.lanes,
        lambda r, i, lanes: a.operand.load(k, k.iadd(origins[r], i), lanes),
        lambda c, i, lanes: b.operand.load(k, k.iadd(corners[c], i), lanes),
        count,
        width,
        a.operand.element,
    )
    for r, values in enumerate(sums):
        for c, value in enumerate(values):
            put(k.iadd(row, r), k.iadd(column, c), 1, value)
