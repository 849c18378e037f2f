"""Replaces a region by its strips."""

from collections.abc import Sequence
from math import prod

from xdsl.ir import Operation, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import TensorOp, get_ints, shape_of
from niwaki.passes.strips.regions import Region, Strip
from niwaki.passes.strips.row_reaches import Rows
from niwaki.passes.strips.row_rules import ROWS, RowOp


def compute_in_strips(region: Region, count: int, run: Sequence[Operation]) -> None:
    """Replaces the operations of `region` that are in `run` by `count` strips of the region.

    They take the place of the last one; what reads a sum meanwhile moves behind them.
    """
    inside = {row.op for row in region.ops}
    window = _window(run, inside)
    last = window[-1]
    strips = _Strips(Builder.before(last), region, count)
    strips.emit()
    results = strips.results(last)
    for op in _later(window, inside):
        op.detach()
        Rewriter.insert_op(op, InsertPoint.before(last))
    for value, whole in results.items():
        whole.name_hint = value.name_hint
        value.replace_uses_with_if(whole, lambda use: use.operation not in inside)
    for op in reversed(window):
        if op in inside:
            Rewriter.erase_op(op)


def _window(run: Sequence[Operation], inside: set[Operation]) -> list[Operation]:
    """From the first to the last operation of the run that is inside, without erased ones."""
    run = [op for op in run if op.parent is not None]
    numbers = [number for number, op in enumerate(run) if op in inside]
    return run[numbers[0] : numbers[-1] + 1]


def _later(window: Sequence[Operation], inside: set[Operation]) -> list[Operation]:
    """What has to come behind the region: what reads its results, and assignments."""
    results = {r for op in window if op in inside for r in op.results}
    later: set[Operation] = set()
    for op in window:
        reads = any(o in results for o in op.operands)
        if op not in inside and (reads or isinstance(op, train.AssignOp)):
            later.add(op)
            results.update(op.results)
    for op in reversed(window):
        users = [use.operation for r in op.results for use in r.uses]
        if op not in inside and users and all(user in later for user in users):
            later.add(op)
    return [op for op in window if op in later]


class _Strips:
    """The operations of all strips, and what they give together."""

    def __init__(self, builder: Builder, region: Region, count: int) -> None:
        self.b = builder
        self.region = region
        self.strips = region.strips(count)
        self.alone = len(self.strips) * region.samples == 1
        self.parts: dict[SSAValue, list[SSAValue]] = {v: [] for v in region.outputs}
        """Result -> the part of each strip, samples one after the other."""
        self.sums: dict[SSAValue, dict[int, SSAValue]] = {}
        """Sum -> by sample where each has its own, what is added up so far."""

    def emit(self) -> None:
        """Inserts all strips."""
        for sample in range(self.region.samples):
            for strip in self.strips:
                self._strip(sample, strip)

    def _strip(self, sample: int, strip: Strip) -> None:
        ops, values = self.region.needed(strip)
        numbers = self.region.numbers
        local: dict[SSAValue, SSAValue] = {}
        for row, rows in zip(self.region.ops, ops, strict=True):
            self.b.location = row.op.location
            operands: list[SSAValue] = []
            for value, part in zip(row.op.operands, row.operands, strict=True):
                if part is None:
                    operands.append(value)
                elif value in local:
                    assert part.reach is not None
                    wanted = part.reach.needed(rows)
                    first, _ = values[numbers[value]]
                    operands.append(self._rows(local[value], first, wanted))
                else:
                    wanted = None if part.reach is None else part.reach.needed(rows)
                    operands.append(self._read(value, sample, wanted))
            results = self._copy(row, rows, operands)
            if row.sums:
                self._add(row, sample, results[0])
            else:
                local.update(zip(row.op.results, results, strict=True))
        for value, parts in self.parts.items():
            wanted = self.region.part(strip, shape_of(value)[self.region.axis])
            first, _ = values[numbers[value]]
            parts.append(self._rows(local[value], first, wanted))

    def _copy(self, row: RowOp, rows: Rows, operands: Sequence[SSAValue]) -> Sequence[SSAValue]:
        kind = type(row.op)
        if isinstance(row.op, nn.ReduceMeanOp) and row.sums and not self.alone:
            kind = nn.ReduceSumOp
        assert issubclass(kind, TensorOp)
        properties = {**row.op.properties, **row.properties(rows)}
        return self.b.insert(kind.make(*operands, **properties)).results

    def _rows(self, value: SSAValue, first: int, wanted: Rows) -> SSAValue:
        """Rows `wanted` of a value of the strip that begins with row `first`."""
        return self._box(value, self.region.axis, wanted[0] - first, wanted[1] - first)

    def _read(self, value: SSAValue, sample: int, wanted: Rows | None) -> SSAValue:
        """What a strip reads of a value from outside; all rows where `wanted` is None."""
        if self.region.axis == ROWS:
            shape = shape_of(value)
            rows = (0, shape[ROWS]) if wanted is None else wanted
            starts, sizes = [0] * len(shape), list(shape)
            starts[:2], sizes[:2] = [sample, rows[0]], [1, rows[1] - rows[0]]
            return self.b.slice(value, starts, sizes)
        assert wanted is not None
        return self._box(value, 0, *wanted)

    def _box(self, value: SSAValue, axis: int, first: int, end: int) -> SSAValue:
        starts, sizes = [0] * len(shape_of(value)), list(shape_of(value))
        starts[axis], sizes[axis] = first, end - first
        return self.b.slice(value, starts, sizes)

    def _add(self, row: RowOp, sample: int, part: SSAValue) -> None:
        sums = self.sums.setdefault(row.op.results[0], {})
        number = sample if self._is_by_sample(row.op) else 0
        sums[number] = self.b.add(part, sums[number]) if number in sums else part

    def _is_by_sample(self, op: Operation) -> bool:
        reduction = isinstance(op, nn.Reduction) and 0 not in get_ints(op.properties, "axes")
        return reduction and self.region.axis == ROWS

    def results(self, last: Operation) -> dict[SSAValue, SSAValue]:
        """What takes the place of each result of the region."""
        self.b.location = last.location
        joined = {value: self._joined(value, parts) for value, parts in self.parts.items()}
        summed = {value: self._summed(value, list(s.values())) for value, s in self.sums.items()}
        return {**joined, **summed}

    def _joined(self, value: SSAValue, parts: Sequence[SSAValue]) -> SSAValue:
        """Parts of several samples lie behind each other as rows of one long image."""
        if len(parts) == 1:
            return parts[0]
        if self.region.samples == 1:
            return self.b.concat(parts, self.region.axis)
        flat = [self.b.reshape(p, shape_of(p)[1:]) for p in parts]
        return self.b.reshape(self.b.concat(flat, 0), shape_of(value))

    def _summed(self, value: SSAValue, sums: Sequence[SSAValue]) -> SSAValue:
        total = sums[0] if len(sums) == 1 else self.b.concat(sums, 0)
        op = value.owner
        if self.alone or not isinstance(op, nn.ReduceMeanOp):
            return total
        return self.b.scale(total, prod(shape_of(value)) / prod(shape_of(op.x)))
