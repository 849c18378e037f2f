"""How the rows of an operation's operand follow from those of its result."""

from dataclasses import dataclass
from typing import Protocol, TypeAlias

Rows: TypeAlias = tuple[int, int]
"""[first, end) along the dimension that is cut."""


class Reach(Protocol):
    """What rows of an operand the rows of a result need."""

    def needed(self, rows: Rows) -> Rows:
        """The operand's rows; at least one."""
        ...

    def padding(self, rows: Rows) -> tuple[int, int]:
        """The operation's padding before and behind where only those rows are there."""
        ...


@dataclass(frozen=True)
class Same:
    """Row by row."""

    def needed(self, rows: Rows) -> Rows:
        return rows

    def padding(self, rows: Rows) -> tuple[int, int]:
        return 0, 0


@dataclass(frozen=True)
class Window:
    """The windows of a convolution or pooling look at `span` rows each."""

    stride: int
    top: int
    span: int
    size: int
    """Rows of the operand."""

    def _wanted(self, rows: Rows) -> Rows:
        first = rows[0] * self.stride - self.top
        return first, (rows[1] - 1) * self.stride - self.top + self.span

    def needed(self, rows: Rows) -> Rows:
        first, end = self._wanted(rows)
        return max(first, 0), min(end, self.size)

    def padding(self, rows: Rows) -> tuple[int, int]:
        first, end = self._wanted(rows)
        return max(-first, 0), max(end - self.size, 0)


@dataclass(frozen=True)
class Windows:
    """The transpose: the windows that see a row. Result and operand change places."""

    stride: int
    top: int
    span: int
    size: int
    """Rows of the operand: windows."""

    def needed(self, rows: Rows) -> Rows:
        first = -((self.span - 1 - self.top - rows[0]) // self.stride)
        # A row that no window sees still needs one, for the shapes to fit.
        first = max(min(first, (rows[0] + self.top) // self.stride, self.size - 1), 0)
        end = min((rows[1] - 1 + self.top) // self.stride + 1, self.size)
        return first, max(end, first + 1)

    def padding(self, rows: Rows) -> tuple[int, int]:
        first, end = self.needed(rows)
        top = rows[0] + self.top - first * self.stride
        bottom = (end - first - 1) * self.stride + self.span - (rows[1] - rows[0]) - top
        return top, max(bottom, 0)


@dataclass(frozen=True)
class Scaled:
    """A reshape: `result` rows hold the elements of `operand` rows."""

    result: int
    operand: int

    def needed(self, rows: Rows) -> Rows:
        first, end = rows
        return first * self.operand // self.result, -(-end * self.operand // self.result)

    def padding(self, rows: Rows) -> tuple[int, int]:
        return 0, 0
