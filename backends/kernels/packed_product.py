"""Matrix products of vector machines: B in panels, A in strips of rows that stay in cache."""

from dataclasses import dataclass
from functools import cached_property

from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import RegisterTile, register_tile, tiled_rows
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.panel_packing import RowLoop
from niwaki.backends.kernels.product import Matrix, PackedColumns, Put, Sum, multiply_panels
from niwaki.backends.kernels.tiles import Panel, each_panel, each_tile, padded_panels
from niwaki.backends.kernels.weight_panels import WeightPanels
from niwaki.backends.targets import Target

_MOST_PACKED_BYTES = 8 << 20
"""Of B at once: larger ones are packed a panel at a time, and A is read again for each."""
_FEW_BYTES = 1024
"""Between elements of a column: so close together they are read where they are."""


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
    prepacked: bool = False
    """Whether B comes in panels."""

    @property
    def tile(self) -> RegisterTile:
        """Of registers."""
        # Rows a large power of two apart compete for the same few places in the first cache.
        apart = not self.transpose_a and 4 * self.length % 2048 == 0
        return register_tile(
            self.rows, self.columns, self.target, lambda height: not apart or height <= 6
        )

    @property
    def panels(self) -> list[Panel]:
        """Of B."""
        return padded_panels(self.columns, self.target, self.tile.blocks)

    @property
    def strip(self) -> int:
        """Rows that are worked on at a time."""
        if 4 * self.length * self.columns > _MOST_PACKED_BYTES:
            return self.rows
        row_bytes = 4 * (self.length + self.columns)
        return tiled_rows(self.rows, self.tile.rows, row_bytes, self.target)

    @property
    def copied(self) -> int:
        """Elements of a strip of A that is copied, so that its rows are neighbours."""
        far = self.transpose_a and 4 * self.rows > _FEW_BYTES
        return self.strip * self.length if far and self.strip < self.rows else 0

    @property
    def packed(self) -> int:
        """Elements of B that are packed: all of it, unless each panel is used only once."""
        ranges = self.panels
        if self.prepacked:
            return 0
        if self.strip == self.rows:
            return max(p.width for p in ranges) * self.length
        return sum(p.width * p.repeat for p in ranges) * self.length

    @property
    def scratch(self) -> int:
        """Elements: packed B, then the copied strip."""
        return self.packed + self.copied

    @cached_property
    def weight_panels(self) -> WeightPanels:
        """How packed B follows from B."""
        panels = tuple(self.panels)
        if self.transpose_b:
            return WeightPanels((RowLoop(self.length, 1),), self.length, panels)
        return WeightPanels((RowLoop(self.length, self.columns),), 1, panels)

    def emit(
        self, k: KernelBuilder, a: Matrix, b: Matrix, scratch: Operand | None, put: Put
    ) -> None:
        """One product of the matrices as they are stored; there is scratch if any is needed."""
        right = self._right(k, b, scratch)

        def strip(first: Index, count: int) -> None:
            left, step, origin = a, self.rows if self.transpose_a else 1, first
            if self.copied:
                assert scratch is not None
                self._copy(k, a, first, count, scratch)
                left, step, origin = Matrix(scratch, self.packed, 1), count, 0

            def moved(row: Index, column: Index, lanes: int, value: Value) -> None:
                put(k.iadd(row, k.isub(first, origin)), column, lanes, value)

            sums = [Sum(self.length, step, 1)]
            multiply_panels(
                k, left, right, self.tile.rows, origin, count, self.panels, sums,
                moved if self.copied else put,
            )  # fmt: skip

        each_tile(k, self.rows, self.strip, strip)

    def _right(self, k: KernelBuilder, b: Matrix, scratch: Operand | None) -> PackedColumns:
        """B in panels, or what packs one at a time."""
        if self.prepacked:
            return PackedColumns(b.operand, b.start, self.length)
        assert scratch is not None
        pack = self.weight_panels.pack(k, b.operand, b.start, scratch)
        once = self.strip == self.rows
        if not once:

            def panel_of(column: Index, panel: Panel) -> None:
                pack(column, panel, k.imul(column, self.length))

            each_panel(k, self.panels, panel_of)
        return PackedColumns(scratch, 0, self.length, pack if once else None)

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
