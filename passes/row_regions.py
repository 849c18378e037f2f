"""Regions of operations that can be computed a strip of rows at a time, and what that costs.

A region is a run of the block whose only result that is used outside is its last one's, all of
whose operations work on rows: output rows [a, b) need certain rows of each operand (convolution,
pooling, elementwise), here of NHWC tensors of batch 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from xdsl.ir import Operation, SSAValue

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_ints, shape_of, tensor_bytes, type_of

Rows = tuple[int, int]
"""[first, end) of dimension 1."""


@dataclass(frozen=True)
class Window:
    """How the rows of an operation's result depend on those of its first operand."""

    stride: int
    top: int
    span: int
    """Rows that one output row looks at."""
    size: int
    """Rows of the operand."""

    def _wanted(self, rows: Rows) -> Rows:
        first = rows[0] * self.stride - self.top
        return first, (rows[1] - 1) * self.stride - self.top + self.span

    def needed(self, rows: Rows) -> Rows:
        """The operand's rows that the result's `rows` need."""
        first, end = self._wanted(rows)
        return max(first, 0), min(end, self.size)

    def padding(self, rows: Rows) -> tuple[int, int]:
        """Padding above and below where only the needed rows are there."""
        first, end = self._wanted(rows)
        return max(-first, 0), max(end - self.size, 0)


@dataclass(frozen=True, eq=False)
class RowOp:
    """An operation that can be computed a strip of rows at a time."""

    op: Operation
    result: SSAValue
    window: Window | None
    """None for elementwise operations: row by row."""
    sources: tuple[SSAValue, ...]
    """Operands that are cut into rows; the others (filter, bias, scalar) are used whole."""
    rows: int
    row_bytes: int
    row_flops: int
    """Multiply-adds, counted as two; elementwise work is free."""

    @classmethod
    def of(cls, op: Operation) -> "RowOp | None":
        """The facts about `op`; None if it does not work on rows."""
        if not isinstance(op, nn.Conv2dOp | nn.MaxPool2dOp | nn.AvgPool2dOp | nn.Elementwise):
            return None
        result = op.results[0]
        shape = shape_of(result)
        if len(shape) != 4 or shape[0] != 1 or shape[1] == 1:
            return None
        window = _window(op)
        sources = tuple(op.operands[:1]) if window else _with_rows(op, shape[1])
        kernel = shape_of(op.w) if isinstance(op, nn.Conv2dOp) else (0,)
        flops = 2 * shape[2] * shape[3]
        for size in kernel[1:] or (0,):
            flops *= size
        size = tensor_bytes(type_of(result)) // shape[1]
        return cls(op, result, window, sources, shape[1], size, flops)

    def needed(self, rows: Rows) -> Rows:
        """The rows of every source that the result's `rows` need."""
        return rows if self.window is None else self.window.needed(rows)


def _window(op: Operation) -> Window | None:
    if isinstance(op, nn.Conv2dOp):
        span = op.window.dilation[0] * (shape_of(op.w)[1] - 1) + 1
    elif isinstance(op, nn.MaxPool2dOp | nn.AvgPool2dOp):
        span = get_ints(op.properties, "kernel_size")[0]
    else:
        return None
    size = shape_of(op.operands[0])[1]
    return Window(op.window.strides[0], op.window.padding[0], span, size)


def _with_rows(op: Operation, rows: int) -> tuple[SSAValue, ...]:
    shapes = {value: shape_of(value) for value in op.operands}
    return tuple(v for v, shape in shapes.items() if len(shape) == 4 and shape[1] == rows)


@dataclass(frozen=True)
class Cost:
    """What a region costs when it is computed in strips."""

    peak: int
    """Most bytes of strips live at once; the result and what is read from outside are whole."""
    flops: int


@dataclass(frozen=True)
class Region:
    """A run of operations with one result."""

    ops: tuple[RowOp, ...]

    @property
    def rows(self) -> int:
        """Rows of the result."""
        return self.ops[-1].rows

    @cached_property
    def _last_use(self) -> dict[SSAValue, int]:
        return {value: number for number, op in enumerate(self.ops) for value in op.sources}

    @cached_property
    def _inner(self) -> set[SSAValue]:
        return {op.result for op in self.ops[:-1]}

    def strips(self, count: int) -> list[Rows]:
        """The result's rows in at most `count` strips of one height, the last one lower."""
        height = -(-self.rows // count)
        return [(at, min(at + height, self.rows)) for at in range(0, self.rows, height)]

    def needed(self, rows: Rows) -> dict[SSAValue, Rows]:
        """For `rows` of the result: the rows of every value computed, or read, in the region."""
        found: dict[SSAValue, Rows] = {self.ops[-1].result: rows}
        for op in reversed(self.ops):
            first, end = op.needed(found[op.result])
            for value in op.sources:
                low, high = found.get(value, (first, end))
                found[value] = (min(low, first), max(high, end))
        return found

    def cost(self, count: int) -> Cost:
        """The cost in `count` strips; those between the first and the last are all alike."""
        strips = self.strips(count)
        kinds = {strips[0]: 1, strips[-1]: 1}
        if len(strips) > 2:
            kinds[strips[1]] = len(strips) - 2
        costs = [(self._strip_cost(strip), times) for strip, times in kinds.items()]
        return Cost(max(c.peak for c, _ in costs), sum(c.flops * n for c, n in costs))

    def _strip_cost(self, strip: Rows) -> Cost:
        needed = self.needed(strip)
        live = peak = flops = 0
        for number, op in enumerate(self.ops):
            first, end = needed[op.result]
            flops += op.row_flops * (end - first)
            size = op.row_bytes * (end - first) if op.result in self._inner else 0
            freed = sum(
                self._bytes(value, needed[value])
                for value in op.sources
                if value in self._inner and self._last_use[value] == number
            )
            in_place = op.window is None and freed >= size
            peak = max(peak, live + (0 if in_place else size))
            live += size - freed
        return Cost(peak, flops)

    def _bytes(self, value: SSAValue, rows: Rows) -> int:
        return self._row_bytes[value] * (rows[1] - rows[0])

    @cached_property
    def _row_bytes(self) -> dict[SSAValue, int]:
        return {op.result: op.row_bytes for op in self.ops}


def split_units(ops: Sequence[RowOp | None]) -> list[tuple[int, int]]:
    """Runs [first, end) of one windowed operation and the elementwise ones behind it.

    Regions begin and end where units do: nothing is gained in between. Operations that do not
    work on rows are units of their own.
    """
    starts = [
        number
        for number, op in enumerate(ops)
        if op is None or op.window is not None or number == 0 or ops[number - 1] is None
    ]
    return list(zip(starts, [*starts[1:], len(ops)], strict=True))
