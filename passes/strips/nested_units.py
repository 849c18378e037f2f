"""The forward pass in units, each with the part of the backward pass that belongs to it.

Forward operations come in some order, the backward ones of the same layers in the opposite one:
the later a unit runs forward, the sooner its backward part runs, like nested brackets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.func import ReturnOp
from xdsl.ir import Operation, OpResult, SSAValue

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.ir.effects import storage_read
from niwaki.passes.strips.find_region import BlockFacts

_MASKS = (nn.CompareOp, nn.AndOp, nn.SliceOp, nn.ReshapeOp)
"""Operations on forward values that stand among them for the backward pass."""
_JOIN = (nn.Elementwise, nn.ReshapeOp, nn.SliceOp, nn.PadOp, nn.ConcatOp)
"""Operations that belong to the unit before them."""


@dataclass(frozen=True)
class Unit:
    """Positions [first, end) of a block: an operation with what follows it elementwise."""

    forward: tuple[int, int]
    backward: tuple[int, int]
    """What the gradients of the unit need; empty without a backward pass."""

    @property
    def has_backward(self) -> bool:
        """Whether it has a backward part."""
        return self.backward[0] < self.backward[1]


def nested_units(ops: Sequence[Operation], facts: BlockFacts) -> list[list[Unit]]:
    """The units of `ops`, a whole block, by phases of one forward and one backward pass each.

    Inference is one phase without a backward part; micro-batches are a phase each.
    """
    needed = _ancestors_of_results(ops)
    neutral = [_is_neutral(op, op in needed, facts) for op in ops]
    phases: list[list[Unit]] = []
    start = 0
    while start < len(ops):
        turn = end = start
        while turn < len(ops) and (neutral[turn] or ops[turn] in needed):
            turn += 1
        end = turn
        while end < len(ops) and (neutral[end] or ops[end] not in needed):
            end += 1
        phases.append(_Phase(ops, neutral, start, turn, end, facts).units())
        start = end
    return phases


def _ancestors_of_results(ops: Sequence[Operation]) -> set[Operation]:
    found: set[Operation] = set()
    for op in reversed(ops):
        if isinstance(op, ReturnOp) or op in found:
            found.update(o.op for o in op.operands if isinstance(o, OpResult))
    return found


def _is_neutral(op: Operation, needed: bool, facts: BlockFacts) -> bool:
    """Whether `op` may stand in the forward and in the backward pass."""
    return (
        not op.results
        or op in facts.updates
        or all(o in facts.static for o in op.operands)
        or (isinstance(op, _MASKS) and not needed)
    )


class _Phase:
    def __init__(
        self,
        ops: Sequence[Operation],
        neutral: Sequence[bool],
        start: int,
        turn: int,
        end: int,
        facts: BlockFacts,
    ) -> None:
        self.ops, self.neutral, self.facts = ops, neutral, facts
        self.start, self.turn, self.end = start, turn, end

    def units(self) -> list[Unit]:
        starts = self._starts()
        ends = [*starts[1:], self.turn]
        unit_of: dict[Operation, int] = {}
        for number, (first, end) in enumerate(zip(starts, ends, strict=True)):
            unit_of.update((op, number) for op in self.ops[first:end])
        behind = self._backward_ends(unit_of, len(starts))
        return [
            Unit((first, end), (behind[number + 1], behind[number]))
            for number, (first, end) in enumerate(zip(starts, ends, strict=True))
        ]

    def _starts(self) -> list[int]:
        """Where units begin: not where more bytes pass on than both before and behind."""
        starts = [
            i
            for i in range(self.start, self.turn)
            if i == self.start or not (self.neutral[i] or isinstance(self.ops[i], _JOIN))
        ]
        passing = self._passing()
        sizes = [passing[i - self.start] for i in starts] + [0]
        return [
            i
            for number, i in enumerate(starts)
            if number == 0
            or sizes[number] <= sizes[number - 1]
            or sizes[number] < sizes[number + 1]
        ]

    def _passing(self) -> list[int]:
        """Bytes of forward values that are made before each operation and read from it on."""
        position = {op: i for i, op in enumerate(self.ops[self.start : self.turn])}
        change = [0] * (len(position) + 2)
        for op, i in position.items():
            for value in op.results:
                readers = [position[u.operation] for u in value.uses if u.operation in position]
                size = tensor_bytes(type_of(value))
                change[i + 1] += size
                change[max(readers, default=i) + 1] -= size
        total, passing = 0, list[int]()
        for delta in change:
            total += delta
            passing.append(total)
        return passing

    def _backward_ends(self, unit_of: dict[Operation, int], count: int) -> list[int]:
        """Where the backward part of each unit ends; at last, where that of the last one begins.

        The last operation that reads what only later layers have marks the end of their part.
        """
        reader_of: dict[str, int] = {}
        for op, number in unit_of.items():
            for operand in op.operands:
                storage = storage_read(operand)
                if storage is not None:
                    reader_of.setdefault(storage.key, number)
        updated = self._updated()
        ends = [self.turn] * (count + 1)
        ends[0] = self.end
        # From the end, each operation belongs to a unit not before that of the ones behind it.
        level = 0
        for i in reversed(range(self.turn, self.end)):
            if self.neutral[i]:
                continue
            number = self._unit_read(self.ops[i], unit_of, reader_of, updated)
            while level < number:
                level += 1
                ends[level] = i + 1
        return ends

    def _unit_read(
        self,
        op: Operation,
        unit_of: dict[Operation, int],
        reader_of: dict[str, int],
        updated: dict[SSAValue, str],
    ) -> int:
        """The latest unit that `op` must belong to; 0 if it tells nothing."""
        for result in op.results:
            if result in updated:
                return reader_of.get(updated[result], 0)
        numbers = [0]
        for operand in op.operands:
            storage = storage_read(operand)
            if storage is not None:
                numbers.append(reader_of.get(storage.key, 0))
            elif isinstance(operand, OpResult):
                numbers.append(unit_of.get(operand.op, 0))
        return max(numbers)

    def _updated(self) -> dict[SSAValue, str]:
        """Gradient -> the name of the parameter that it moves."""
        updated: dict[SSAValue, str] = {}
        for op in reversed(self.ops):
            if isinstance(op, train.AssignOp):
                updated[op.value] = train.storage_of(op.target).key
            elif isinstance(op, nn.Elementwise | nn.ReshapeOp | nn.SliceOp):
                name = next((updated[r] for r in op.results if r in updated), None)
                for operand in op.operands:
                    if name is not None and _may_be_gradient(operand, op):
                        updated.setdefault(operand, name)
        return updated


def _may_be_gradient(operand: SSAValue, reader: Operation) -> bool:
    """Not where the reader is elementwise and the operand is a factor of another shape."""
    return not isinstance(reader, nn.Elementwise) or shape_of(operand) == shape_of(
        reader.results[0]
    )
