"""What must come before what in a block: data flow, and reads before writes of storage."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from xdsl.dialects.builtin import f16, i16
from xdsl.ir import Block, Operation, OpResult, SSAValue

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import NARROW, f32, i1, i32, shape_of, type_of
from niwaki.ir.effects import storage_read

ANCHORS = (
    nn.Conv2dOp,
    nn.IntegerConv2dOp,
    nn.IntegerConv2dDxOp,
    nn.IntegerConv2dDwOp,
    nn.Conv2dDxOp,
    nn.Conv2dDwOp,
    nn.MatmulOp,
    nn.Reduction,
)
"""Operations that a fused group holds at most one of."""


def is_fusable_elementwise(op: Operation) -> bool:
    """Whether `op` is elementwise on floats, what stands for them, integers and masks."""
    return isinstance(op, nn.Elementwise) and all(
        type_of(v).element_type in (f32, f16, i16, i32, i1, *NARROW)
        for v in (*op.operands, *op.results)
    )


@dataclass(frozen=True)
class Update:
    """A gradient product and the elementwise operations that make new parameters of it.

    Nothing outside reads a result of `anchor` or `members`, but for the assigns. Of several
    products that are added up (one for each micro-batch), the anchor is the last one.
    """

    anchor: Operation
    members: tuple[Operation, ...]
    assigns: tuple[train.AssignOp, ...]

    @property
    def operations(self) -> Iterator[Operation]:
        yield self.anchor
        yield from self.members


def _users(op: Operation) -> list[Operation]:
    return [use.operation for result in op.results for use in result.uses]


def find_updates(block: Block) -> list[Update]:
    """The updates of `block`, in the order of their anchors."""
    chain: set[Operation] = set()
    for op in reversed(list(block.ops)):
        if is_fusable_elementwise(op) and _only_feeds(op, chain):
            chain.add(op)
    anchors = [op for op in block.ops if isinstance(op, ANCHORS) and _only_feeds(op, chain)]
    last: dict[frozenset[train.AssignOp], Update] = {}
    for anchor in reversed(anchors):
        update = _update_of(anchor, chain)
        last.setdefault(frozenset(update.assigns), update)
    return list(reversed(last.values()))


def _only_feeds(op: Operation, chain: set[Operation]) -> bool:
    """Whether all users are assigns, or operations of `chain` with a result of this shape."""
    users = _users(op)
    return bool(users) and all(
        isinstance(u, train.AssignOp)
        or (u in chain and shape_of(u.results[0]) == shape_of(op.results[0]))
        for u in users
    )


def _update_of(anchor: Operation, chain: set[Operation]) -> Update:
    members: dict[Operation, None] = {}
    assigns: dict[train.AssignOp, None] = {}
    pending = [anchor]
    while pending:
        op = pending.pop()
        for user in _users(op):
            if isinstance(user, train.AssignOp):
                assigns[user] = None
            elif user not in members:
                members[user] = None
                pending.append(user)
                # What else it reads and nobody else does (momentum * velocity) is a member too.
                pending.extend(
                    o.op for o in user.operands if isinstance(o, OpResult) and o.op in chain
                )
        if op is not anchor:
            members[op] = None
    return Update(anchor, tuple(members), tuple(assigns))


@dataclass
class Dependences:
    """Predecessors and successors of every operation of a block, by position."""

    ops: list[Operation]
    position: dict[Operation, int]
    predecessors: list[list[int]] = field(default_factory=list[list[int]])
    successors: list[list[int]] = field(default_factory=list[list[int]])

    @classmethod
    def of(cls, block: Block, updates: list[Update]) -> "Dependences":
        """Data flow, reads before assigns, and reads before the update that may write in place.

        The last are left out where they would close a cycle (two updates that read each other's
        parameter); such an update is no longer in place.
        """
        ops = list(block.ops)
        result = cls(ops, {op: i for i, op in enumerate(ops)})
        result.predecessors = [[] for _ in ops]
        result.successors = [[] for _ in ops]
        for op in ops:
            for operand in op.operands:
                if isinstance(operand, OpResult):
                    result._add(operand.op, op)
        readers = _readers_of_storage(ops)
        for op in ops:
            if isinstance(op, train.AssignOp):
                for reader in readers.get(train.storage_of(op.target).key, ()):
                    if reader is not op:
                        result._add(reader, op)
        for reader, anchor in _reads_before_updates(updates, readers):
            result._add(reader, anchor)
        return result

    def _add(self, before: Operation, after: Operation) -> None:
        self.successors[self.position[before]].append(self.position[after])
        self.predecessors[self.position[after]].append(self.position[before])


def _readers_of_storage(ops: list[Operation]) -> dict[str, list[Operation]]:
    """Storage name -> operations that read its memory, possibly through a view."""
    readers: dict[str, list[Operation]] = {}
    for op in ops:
        for operand in _read_operands(op):
            storage = storage_read(operand)
            if storage is not None:
                readers.setdefault(storage.key, []).append(op)
    return readers


def _read_operands(op: Operation) -> list[SSAValue]:
    return [op.value] if isinstance(op, train.AssignOp) else list(op.operands)


def _reads_before_updates(
    updates: list[Update], readers: dict[str, list[Operation]]
) -> Iterator[tuple[Operation, Operation]]:
    update_of = {op: i for i, update in enumerate(updates) for op in update.operations}
    after: list[set[int]] = [set() for _ in updates]
    """For each update, those that must come after it."""
    for number, update in enumerate(updates):
        own = {*update.operations, *update.assigns}
        targets = [train.storage_of(a.target).key for a in update.assigns]
        others = [r for key in targets for r in readers.get(key, ()) if r not in own]
        earlier = {update_of[r] for r in others if r in update_of}
        if _reaches(after, number, earlier):
            continue
        for before in earlier:
            after[before].add(number)
        yield from ((reader, update.anchor) for reader in others)


def _reaches(after: list[set[int]], start: int, goals: set[int]) -> bool:
    seen: set[int] = set()
    pending = [start] if goals else []
    while pending:
        number = pending.pop()
        if number in goals:
            return True
        if number not in seen:
            seen.add(number)
            pending.extend(after[number])
    return False
