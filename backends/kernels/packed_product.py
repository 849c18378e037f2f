"""Matrix products of vector machines: B in panels, A in strips of rows that stay in cache."""

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import RegisterTile, register_tiles, tiled_rows
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.panel_packing import RowLoop
from niwaki.backends.kernels.product import (
    BesideTile,
    Matrix,
    PackedColumns,
    Prefetch,
    PrefetchTerm,
    Put,
    Staging,
    Sum,
    multiply_panels,
)
from niwaki.backends.kernels.tiles import Panel, each_panel, each_tile, padded_panels
from niwaki.backends.kernels.weight_panels import WeightPanels
from niwaki.backends.targets import Target

_MOST_PACKED_BYTES = 8 << 20
"""Of B at once: larger ones are packed a panel at a time, and A is read again for each."""
_MOST_ROWS_AT_ONCE = 256
"""Rows of A that pass each panel of B together: packing all of B costs more than reading A again.

More do so if they are stored as columns, which strips would have to copy, and nearly in cache.
"""
_FEW_BYTES = 1024
"""Between elements of a column: so close together they are read where they are."""
_AHEAD = 32
"""Terms between what is multiplied and what is prefetched of columns further apart than that."""


@dataclass(frozen=True)
class PackedProduct:
    """C[row, column] = sum over i < length of A[row, i] * B[i, column]."""

    rows: int
    columns: int
    length: int
    transpose_a: bool
    """Whether A is stored as [i][row]."""
    transpose_b: bool
    """Whether B is stored as [column][i]."""
    target: Target
    other_tile: RegisterTile | None = None
    """Of registers, instead of the best one."""
    prepacked: bool = False
    """Whether B comes in panels."""
    staged: bool = False
    """Whether finished tiles are put down before a loop takes their elements on."""

    @property
    def tile(self) -> RegisterTile:
        """Of registers."""
        return self.other_tile or self.tiles[0]

    @property
    def tiles(self) -> list[RegisterTile]:
        """Of registers, the best first."""
        # Rows a large power of two apart compete for the same few places in the first cache.
        apart = not self.transpose_a and 4 * self.length % 2048 == 0
        return register_tiles(
            self.rows, self.columns, self.target, lambda height: not apart or height <= 6
        )

    @property
    def panels(self) -> list[Panel]:
        """Of B."""
        return padded_panels(self.columns, self.target, self.tile.blocks)

    @property
    def strip(self) -> int:
        """Rows that are worked on at a time."""
        few = self.rows <= _MOST_ROWS_AT_ONCE
        near = self.transpose_a and 4 * self.rows * self.length <= 2 * self.target.cache_bytes
        if few or near or 4 * self.length * self.columns > _MOST_PACKED_BYTES:
            return self.rows
        row_bytes = 4 * (self.length + self.columns)
        return tiled_rows(self.rows, self.tile.rows, row_bytes, self.target)

    @property
    def copied(self) -> int:
        """Elements of a strip of A that is copied, so that its rows are neighbours."""
        return self.strip * self.length if self._is_far and self.strip < self.rows else 0

    @property
    def _is_far(self) -> bool:
        """Whether each term of the sums takes lines of A that no other one has near."""
        return self.transpose_a and 4 * self.rows > _FEW_BYTES

    @property
    def packed(self) -> int:
        """Elements of packed B: all of it, or where each panel is used only once, one of a range.

        Ranges do not share their place, so that threads may work on one of them.
        """
        if self.prepacked:
            return 0
        once = self.strip == self.rows
        return sum(p.width * (1 if once else p.repeat) for p in self.panels) * self.length

    @property
    def scratch(self) -> int:
        """Elements: packed B, the copied strip, then a finished tile."""
        tile = self.tile.rows * max(p.width for p in self.panels) if self.staged else 0
        return self.packed + self.copied + tile

    @cached_property
    def weight_panels(self) -> WeightPanels:
        """How packed B follows from B."""
        panels = tuple(self.panels)
        if self.transpose_b:
            return WeightPanels((RowLoop(self.length, 1),), self.length, panels)
        return WeightPanels((RowLoop(self.length, self.columns),), 1, panels)

    def emit(
        self,
        k: KernelBuilder,
        a: Matrix,
        b: Matrix,
        scratch: Operand | None,
        put: Put,
        prefetch: Prefetch,
    ) -> None:
        """One product of the matrices as they are stored; there is scratch if any is needed."""
        right, staging = self._right(k, a, b, scratch), None
        if self.staged:
            assert scratch is not None
            staging = Staging(scratch, self.packed + self.copied)

        def strip(first: Index, count: int) -> None:
            left, step, origin = a, self.rows if self.transpose_a else 1, first
            if self.copied:
                assert scratch is not None
                self._copy(k, a, first, count, scratch)
                left, step, origin = Matrix(scratch, self.packed, 1), count, 0

            def moved(row: Index, column: Index, lanes: int, value: Value) -> None:
                put(k.iadd(row, k.isub(first, origin)), column, lanes, value)

            def prefetch_moved(row: Index, column: Index) -> None:
                prefetch(k.iadd(row, k.isub(first, origin)), column)

            sums = [Sum(self.length, step, 1)]
            multiply_panels(
                k, left, right, self.tile.rows, origin, count, self.panels, sums,
                moved if self.copied else put, prefetch_moved if self.copied else prefetch,
                staging,
            )  # fmt: skip

        each_tile(k, self.rows, self.strip, strip)

    def _right(
        self, k: KernelBuilder, a: Matrix, b: Matrix, scratch: Operand | None
    ) -> PackedColumns:
        """B in panels, or what packs one at a time."""
        if self.prepacked:
            return PackedColumns(b.operand, b.start, self.length)
        assert scratch is not None
        pack = self.weight_panels.pack(k, b.operand, b.start, scratch)
        right = PackedColumns(scratch, 0, self.length)
        if self.strip == self.rows:
            widths = accumulate((p.width for p in self.panels), initial=0)
            places = {
                p.start: width * self.length for p, width in zip(self.panels, widths, strict=False)
            }
            return replace(right, pack=pack, places=places, beside=self._beside(k, a, b))

        def panel_of(column: Index, panel: Panel) -> None:
            pack(column, panel, k.imul(column, self.length))

        each_panel(k, self.panels, panel_of)
        return right

    def _beside(self, k: KernelBuilder, a: Matrix, b: Matrix) -> BesideTile:
        """Prefetches the next panel of B, evenly spread over the rows that pass this one.

        Memory would keep the packing waiting: its rows are far apart. So may be those of A, of
        which the terms that follow are prefetched.
        """

        def beside(column: Index, panel: Panel, row: Index, count: int) -> PrefetchTerm:
            far = self.length if self.transpose_b else 1
            start = k.iadd(k.imul(k.iadd(column, panel.width), far), b.start)
            if self.transpose_b:
                # The panel is one run of memory, of which every row of A takes a share.
                share = -(-panel.width * self.length // self.rows)
                start, step = k.iadd(start, k.imul(row, share)), -(-count * share // self.length)
            else:
                # Every tile takes all rows, of each the part as far into the panel as it is into A.
                start = k.iadd(start, k.idiv(k.imul(row, panel.width), self.rows))
                step = self.columns
            waits = self._is_far and self.length > 2 * _AHEAD
            first = k.iadd(row, a.start) if waits else 0

            def term(i: Index) -> None:
                k.prefetch(b.operand.ref, [k.iadd(start, k.imul(i, step))])
                if not waits:
                    return
                line = k.iadd(first, k.imul(k.iadd(i, _AHEAD), self.rows))
                for end in dict.fromkeys((0, count - 1)):
                    k.prefetch(a.operand.ref, [k.iadd(line, end)])

            return term

        return beside

    def _copy(
        self, k: KernelBuilder, a: Matrix, first: Index, count: int, scratch: Operand
    ) -> None:
        def line(i: Value) -> None:
            source = k.iadd(k.iadd(k.imul(i, self.rows), first), a.start)
            goal = k.iadd(k.imul(i, count), self.packed)

            def block(start: Index, lanes: int) -> None:
                value = a.operand.load(k, k.iadd(source, start), lanes)
                k.store(value, scratch.ref, [k.iadd(goal, start)])

            each_block(k, count, self.target.lanes, block)

        k.each(0, self.length, 1, line)
