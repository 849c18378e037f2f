"""Regions of operations that can be computed a strip at a time.

What a strip of the results needs is found going backward from the results: some rows of every
value inside and of every value that is read from outside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from xdsl.ir import SSAValue

from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.passes.strips.row_reaches import Reach, Rows
from niwaki.passes.strips.row_rules import RowOp


@dataclass(frozen=True)
class Strip:
    """The rows of one strip."""

    number: int
    height: int
    """Rows of the lowest result."""


class _Step(NamedTuple):
    """What an operation needs, by the numbers of values."""

    summed: int | None
    """Rows of what it sums up."""
    results: tuple[int, ...]
    operands: tuple[tuple[int, Reach], ...]


@dataclass(frozen=True, eq=False)
class Region:
    """Operations in a valid order, with results that are joined and results that are summed up."""

    ops: tuple[RowOp, ...]
    outputs: tuple[SSAValue, ...]
    """Values with rows that are used outside; those of `sums` are too."""
    axis: int
    samples: int
    """Samples that are computed one after the other, each in strips; 1 along the samples."""

    @cached_property
    def rows(self) -> int:
        """Rows of the lowest result, by which all are cut."""
        return min(self._cut_rows)

    @cached_property
    def _cut_rows(self) -> list[int]:
        sums = [op.rows for op in self.ops if op.sums]
        return [shape_of(v)[self.axis] for v in self.outputs] + sums

    def strips(self, count: int) -> list[Strip]:
        """At most `count` strips of one height, the last one lower."""
        height = -(-self.rows // count)
        return [Strip(number, height) for number in range(-(-self.rows // height))]

    def part(self, strip: Strip, rows: int) -> Rows:
        """The rows of `strip` of a result, or of what is summed up, that has `rows` in all."""
        first, end = (
            min(number * strip.height, self.rows) * rows // self.rows
            for number in (strip.number, strip.number + 1)
        )
        return first, end

    @cached_property
    def numbers(self) -> dict[SSAValue, int]:
        """A number for every value that is computed or read, and cut."""
        numbers: dict[SSAValue, int] = {}
        for row in self.ops:
            cut = [v for v, p in zip(row.op.operands, row.operands, strict=True) if p is not None]
            for value in (*cut, *row.op.results):
                numbers.setdefault(value, len(numbers))
        return numbers

    @cached_property
    def _steps(self) -> list[_Step]:
        """The operations, the last one first."""
        numbers = self.numbers
        return [
            _Step(
                row.rows if row.sums else None,
                tuple(numbers[r] for r in row.op.results),
                tuple(
                    (numbers[v], part.reach)
                    for v, part in zip(row.op.operands, row.operands, strict=True)
                    if part is not None and part.reach is not None
                ),
            )
            for row in reversed(self.ops)
        ]

    @cached_property
    def _output_rows(self) -> list[tuple[int, int]]:
        return [(self.numbers[v], shape_of(v)[self.axis]) for v in self.outputs]

    def needed(self, strip: Strip) -> tuple[list[Rows], list[Rows]]:
        """The rows of each operation, and of each value by its number ((0, 0): none)."""
        ops: list[Rows] = []
        values: list[Rows] = [(0, 0)] * len(self.numbers)
        for number, rows in self._output_rows:
            values[number] = self.part(strip, rows)
        for summed, results, operands in self._steps:
            rows = _hull(values, results) if summed is None else self.part(strip, summed)
            ops.append(rows)
            if summed is None:
                for number in results:
                    values[number] = rows
            for number, reach in operands:
                wanted = reach.needed(rows)
                known = values[number]
                if known[1] == 0:
                    values[number] = wanted
                elif known != wanted:
                    values[number] = min(known[0], wanted[0]), max(known[1], wanted[1])
        return ops[::-1], values


def _hull(values: Sequence[Rows], numbers: Sequence[int]) -> Rows:
    """The rows of all results of an operation that something needs."""
    if len(numbers) == 1:
        return values[numbers[0]]
    wanted = [values[n] for n in numbers if values[n][1] > 0]
    return min(w[0] for w in wanted), max(w[1] for w in wanted)
