"""Decides which operations of a block become one kernel.

Every operation starts as a group of its own, at its position in the block. Going forward, an
elementwise operation (or a reduction) joins the groups of its operands. A merged group stands at
one of the two positions, and the order of positions stays a topological order of the groups at
all times: so no merge can close a cycle.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from xdsl.ir import Block, Operation, OpResult, SSAValue

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.passes.dependences import (
    ANCHORS,
    Dependences,
    find_updates,
    is_fusable_elementwise,
)

MAX_VALUES = 16
"""Operands and results of a group together: what a kernel can address."""
MAX_OPS = 64
"""Operations of a group: bounds the code of one kernel."""

_FREE = (nn.ReshapeOp, nn.ConstantOp, train.Storage)
"""Operations that take neither time nor memory of their own."""


@dataclass(eq=False)
class Group:
    """Operations of one kernel, by position in the block, and where in the order it stands."""

    members: list[int]
    slot: int
    anchor: Operation | None
    shape: tuple[int, ...] | None
    """Shape of the elementwise operations (behind the anchor); None where nothing may join."""
    operand_shape: tuple[int, ...] | None
    """Shape of the elementwise operations before a reduction; None without one."""


def _group(op: Operation, position: int) -> Group:
    if is_fusable_elementwise(op):
        return Group([position], position, None, shape_of(op.results[0]), None)
    if isinstance(op, nn.Reduction):
        shape, operand_shape = shape_of(op.y), shape_of(op.x)
        # A reduction that reduces nothing has no side before and behind it.
        usable = shape != operand_shape
        return Group(
            [position], position, op, shape if usable else None, operand_shape if usable else None
        )
    if isinstance(op, ANCHORS):
        return Group([position], position, op, shape_of(op.results[0]), None)
    return Group([position], position, None, None, None)


def fusion_groups(block: Block) -> list[list[Operation]]:
    """The groups of `block` in execution order, each in the order of the block."""
    grouping = _Grouping(block)
    grouping.run()
    return grouping.result()


class _Grouping:
    def __init__(self, block: Block) -> None:
        dependences = Dependences.of(block, find_updates(block))
        self.ops = dependences.ops
        self.position = dependences.position
        self.predecessors = dependences.predecessors
        self.successors = dependences.successors
        self.groups = [_group(op, i) for i, op in enumerate(self.ops)]
        """The group of the operation at each position."""
        self.vacant = [isinstance(op, _FREE) for op in self.ops]
        """Slots where no work is done."""
        self.previous = list(range(-1, len(self.ops) - 1))
        """For each slot, one before it with only vacant ones between."""
        self.readers = self._readers()

    # --- the greedy pass

    def run(self) -> None:
        """Merges what may and should be merged: consumers with producers, then siblings."""
        candidates = [
            position
            for position, op in enumerate(self.ops)
            if self.groups[position].shape is not None
            and (is_fusable_elementwise(op) or isinstance(op, nn.Reduction))
        ]
        self._join_producers(candidates, self._prologue(candidates))
        self._join_producers(candidates, set())
        last_reader: dict[SSAValue, int] = {}
        for position in candidates:
            self._join_siblings(position, last_reader)

    def _join_producers(self, candidates: list[int], prologue: set[int]) -> None:
        """Merges each candidate with its operands' groups, but keeps `prologue` for reductions.

        Where others read the operand as well, joining its anchor would save nothing.
        """
        for position in candidates:
            for producer in self._producers(self.ops[position]):
                group = self.groups[producer]
                if position in prologue and group.anchor is not None and self._is_shared(producer):
                    continue
                self._try_merge(group, self.groups[position])

    def _prologue(self, candidates: list[int]) -> set[int]:
        """Elementwise operations that only lead to one reduction: they had better join that."""
        prologue: set[int] = set()
        for position in reversed(candidates):
            op = self.ops[position]
            users = {self.position[use.operation] for r in op.results for use in r.uses}
            if not is_fusable_elementwise(op) or len(users) != 1:
                continue
            (user,) = users
            if shape_of(op.results[0]) in (
                self.groups[user].operand_shape,
                self.groups[user].shape if user in prologue else None,
            ):
                prologue.add(position)
        return prologue

    def _is_shared(self, position: int) -> bool:
        return len({use.operation for r in self.ops[position].results for use in r.uses}) > 1

    def _producers(self, op: Operation) -> list[int]:
        """Positions of the operands' producers, the latest first."""
        producers = {self.position[o.op] for o in op.operands if isinstance(o, OpResult)}
        return sorted(producers, key=lambda p: self.groups[p].slot, reverse=True)

    def _join_siblings(self, position: int, last_reader: dict[SSAValue, int]) -> None:
        """Merges with an elementwise group that reads an operand of the same shape."""
        op = self.ops[position]
        for operand in op.operands:
            if shape_of(operand) != shape_of(op.results[0]) or _is_constant(operand):
                continue
            sibling = last_reader.get(operand)
            last_reader[operand] = position
            if sibling is None:
                continue
            first, second = self.groups[sibling], self.groups[position]
            if first.anchor is None and second.anchor is None:
                if first.slot > second.slot:
                    first, second = second, first
                self._try_merge(first, second)

    def _try_merge(self, first: Group, second: Group) -> None:
        if first is second or not self._fits(first, second):
            return
        slot = self._common_slot(first, second)
        if slot is None or self._count_values(first, second) > MAX_VALUES:
            return
        self._merge(first, second, slot)

    # --- what a kernel can be

    def _fits(self, first: Group, second: Group) -> bool:
        if first.shape is None or second.shape is None:
            return False
        if len(first.members) + len(second.members) > MAX_OPS:
            return False
        if second.anchor is None:
            return first.shape == second.shape
        if first.anchor is not None:
            return False
        if first.shape == second.operand_shape:
            return self._is_consumed_by(first, second)
        return first.shape == second.shape and not self._feeds_anchor(first, second)

    def _is_consumed_by(self, first: Group, second: Group) -> bool:
        return all(self.groups[s] is second for s in self._outside(first, self.successors))

    def _feeds_anchor(self, first: Group, second: Group) -> bool:
        """Whether `second` needs a result of `first` at or before its anchor."""
        before = [
            m
            for m in second.members
            if self.ops[m] is second.anchor
            or shape_of(self.ops[m].results[0]) == second.operand_shape
        ]
        return any(self.groups[p] is first for m in before for p in self.predecessors[m])

    def _count_values(self, first: Group, second: Group) -> int:
        """Operands and results that the merged group would have."""
        members = {*first.members, *second.members}
        operands = {o for m in members for o in self.ops[m].operands if not _is_constant(o)}
        results = [r for m in members for r in self.ops[m].results]
        outside = [o for o in operands if self._position_of(o) not in members]
        made = [
            r for r in results if any(self.position[use.operation] not in members for use in r.uses)
        ]
        return len(outside) + len(made)

    def _position_of(self, value: SSAValue) -> int | None:
        return self.position[value.op] if isinstance(value, OpResult) else None

    # --- where it can stand

    def _common_slot(self, first: Group, second: Group) -> int | None:
        """The slot of the merged group; None if none is possible without costing memory."""
        adjacent = self._previous(second.slot) == first.slot
        delayed = (self.groups[s] for s in self._outside(first, self.successors))
        if all(g is second or g.slot > second.slot for g in delayed) and (
            adjacent or self._cost_of_delay(first, second) <= 0
        ):
            return second.slot
        hastened = (self.groups[p] for p in self._outside(second, self.predecessors))
        if all(g is first or g.slot < first.slot for g in hastened) and (
            adjacent or self._cost_of_haste(first, second) <= 0
        ):
            return first.slot
        return None

    def _cost_of_delay(self, first: Group, second: Group) -> int:
        """Bytes held between the two slots if `first` moves to that of `second`.

        Its operands must stay where nothing else needs them that late; its results need not exist
        before.
        """
        operands = sum(
            _bytes(v)
            for v in self._values_read(first)
            if all(slot < second.slot for slot in self._other_reader_slots(v, first))
        )
        return operands - sum(_bytes(v) for v in self._values_made(first))

    def _cost_of_haste(self, first: Group, second: Group) -> int:
        """Bytes held between the two slots if `second` moves to that of `first`.

        Its results exist sooner; operands that nothing else needs after `first` go.
        """
        operands = sum(
            _bytes(v)
            for v in self._values_read(second)
            if all(slot <= first.slot for slot in self._other_reader_slots(v, second))
        )
        return sum(_bytes(v) for v in self._values_made(second)) - operands

    # --- bookkeeping

    def result(self) -> list[list[Operation]]:
        """The members of each group, groups in the order of their slots."""
        groups = sorted(dict.fromkeys(self.groups), key=lambda g: g.slot)
        return [[self.ops[m] for m in group.members] for group in groups]

    def _merge(self, first: Group, second: Group, slot: int) -> None:
        self.vacant[first.slot if slot == second.slot else second.slot] = True
        if second.anchor is not None:
            first.anchor, first.shape = second.anchor, second.shape
            first.operand_shape = second.operand_shape
        first.members = sorted((*first.members, *second.members))
        first.slot = slot
        for member in second.members:
            self.groups[member] = first

    def _previous(self, slot: int) -> int:
        """The last slot before `slot` where work is done; -1 if there is none."""
        current = self.previous[slot]
        path: list[int] = [slot]
        while current >= 0 and self.vacant[current]:
            path.append(current)
            current = self.previous[current]
        for passed in path:
            self.previous[passed] = current
        return current

    def _outside(self, group: Group, neighbours: list[list[int]]) -> Iterator[int]:
        """Positions outside `group` among the `neighbours` of its members."""
        return (n for m in group.members for n in neighbours[m] if self.groups[n] is not group)

    def _is_member(self, op: Operation, group: Group) -> bool:
        return self.groups[self.position[op]] is group

    def _values_read(self, group: Group) -> list[SSAValue]:
        """What `group` reads and does not make, without repetition."""
        values = dict.fromkeys(_root(o) for m in group.members for o in self.ops[m].operands)
        return [v for v in values if not (isinstance(v, OpResult) and self._is_member(v.op, group))]

    def _values_made(self, group: Group) -> list[SSAValue]:
        """What `group` makes for others."""
        return [
            r
            for m in group.members
            for r in self.ops[m].results
            if not all(self._is_member(use.operation, group) for use in r.uses)
        ]

    def _other_reader_slots(self, value: SSAValue, group: Group) -> Iterator[int]:
        """Slots of the readers of `value` outside `group`."""
        readers = (self.groups[r] for r in self.readers.get(value, ()))
        return (reader.slot for reader in readers if reader is not group)

    def _readers(self) -> dict[SSAValue, list[int]]:
        """Value -> positions of the operations that read its memory, also as a reshape."""
        readers: dict[SSAValue, list[int]] = {}
        for position, op in enumerate(self.ops):
            if not isinstance(op, nn.ReshapeOp):
                for root in dict.fromkeys(_root(o) for o in op.operands):
                    readers.setdefault(root, []).append(position)
        return readers


def _is_constant(value: SSAValue) -> bool:
    return isinstance(value, OpResult) and isinstance(value.op, nn.ConstantOp)


def _root(value: SSAValue) -> SSAValue:
    """The value whose memory a chain of reshapes shares."""
    while isinstance(value, OpResult) and isinstance(value.op, nn.ReshapeOp):
        value = value.op.x
    return value


def _bytes(value: SSAValue) -> int:
    """What holding `value` costs; arguments, storage and constants are there anyway.

    One number is not worth a kernel of its own.
    """
    if not isinstance(value, OpResult) or isinstance(value.op, train.Storage | nn.ConstantOp):
        return 0
    return tensor_bytes(type_of(value)) if type_of(value).element_count() > 1 else 0
