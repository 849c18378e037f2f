"""Finds what a run of operations has that can be computed in strips."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from xdsl.ir import Block, Operation, SSAValue

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.effects import storage_read
from niwaki.passes.strips.regions import Region
from niwaki.passes.strips.row_reaches import Scaled
from niwaki.passes.strips.row_rules import ROWS, RowOp, row_op


@dataclass(frozen=True)
class BlockFacts:
    """What must be known of a block to find regions in it."""

    position: Mapping[Operation, int]
    static: frozenset[SSAValue]
    """What depends on parameters, state and constants alone."""
    updates: frozenset[Operation]
    """Elementwise operations and views that only make new parameters and state."""
    assigned: Mapping[str, int]
    """Position of the assignment to each parameter or state."""

    rows: dict[tuple[Operation, int], RowOp | None] = field(
        default_factory=dict[tuple[Operation, int], RowOp | None]
    )
    """What `row_op` said of each operation and dimension so far."""

    def row(self, op: Operation, axis: int) -> RowOp | None:
        """`row_op`, asked once."""
        key = op, axis
        if key not in self.rows:
            self.rows[key] = row_op(op, axis)
        return self.rows[key]

    @classmethod
    def of(cls, block: Block) -> "BlockFacts":
        """The facts about `block` as it is."""
        ops = list(block.ops)
        static: set[SSAValue] = {a for a in block.args if not shape_of(a)}
        for op in ops:
            if op.results and all(o in static for o in op.operands):
                static.update(op.results)
        updates: set[Operation] = set()
        for op in reversed(ops):
            if isinstance(op, nn.Elementwise | nn.ReshapeOp | nn.SliceOp) and _only_updates(
                op, updates
            ):
                updates.add(op)
        return cls(
            {op: number for number, op in enumerate(ops)},
            frozenset(static),
            frozenset(updates),
            {
                train.storage_of(op.target).key: number
                for number, op in enumerate(ops)
                if isinstance(op, train.AssignOp)
            },
        )


def _only_updates(op: Operation, updates: Collection[Operation]) -> bool:
    users = [use.operation for result in op.results for use in result.uses]
    return bool(users) and all(isinstance(u, train.AssignOp) or u in updates for u in users)


def find_region(
    run: Sequence[Operation],
    recomputed: Sequence[Operation],
    axis: int,
    facts: BlockFacts,
    dropped: Collection[SSAValue] = (),
) -> Region | None:
    """The region of a run of the block, along `axis`; None if its operations do not allow one.

    `recomputed`: operations before the run, in order, whose results the region computes for
    itself. `dropped`: results of the run that nothing outside will read. What is no part of the
    region can be computed before it or after it.
    """
    members = _members(run, recomputed, axis, facts)
    if not members:
        return None
    inside = {row.op for row in members}
    first = min((facts.position[op] for op in run), default=0)
    if any(_is_overwritten(op, first, facts) for op in recomputed):
        return None
    again = set(recomputed)
    outputs = [
        result
        for row in members
        if not row.sums and row.op not in again
        for result in row.op.results
        if result not in dropped and any(u.operation not in inside for u in result.uses)
    ]
    needed = _needed(members, outputs)
    samples = _samples(members) if axis == ROWS else 1
    if not needed or samples is None:
        return None
    region = Region(tuple(needed), tuple(outputs), axis, samples)
    return region if _fits(region) else None


def _members(
    run: Sequence[Operation], recomputed: Sequence[Operation], axis: int, facts: BlockFacts
) -> list[RowOp] | None:
    """The operations that are cut; None if another one stands between two of them."""
    again = set(recomputed)
    members: list[RowOp] = []
    inner: set[SSAValue] = set()
    late: set[SSAValue] = set()
    """Sums, and what depends on them."""
    for op in (*recomputed, *run):
        if not op.results or all(o in facts.static for o in op.operands):
            continue
        reads_rows = any(o in inner for o in op.operands)
        if op in facts.updates or any(o in late for o in op.operands):
            if reads_rows or op in again:
                return None
            late.update(op.results)
            continue
        row = facts.row(op, axis)
        if row is not None and any(
            o in inner and (part is None or part.reach is None)
            for o, part in zip(op.operands, row.operands, strict=True)
        ):
            return None
        if row is None:
            if reads_rows or op in again:
                return None
            continue
        if row.sums and op in again:
            return None
        members.append(row)
        (late if row.sums else inner).update(op.results)
    return members


def _is_overwritten(op: Operation, start: int, facts: BlockFacts) -> bool:
    """Whether `op` reads a parameter or state that has a new value from before `start` on."""
    storages = [storage_read(o) for o in op.operands]
    return any(s is not None and facts.assigned.get(s.key, start) < start for s in storages)


def _needed(members: Iterable[RowOp], outputs: Iterable[SSAValue]) -> list[RowOp]:
    """Members without those that nothing needs."""
    wanted = set(outputs)
    needed: list[RowOp] = []
    for row in reversed(list(members)):
        if row.sums or any(r in wanted for r in row.op.results):
            needed.append(row)
            wanted.update(row.op.operands)
    return needed[::-1]


def _samples(members: Iterable[RowOp]) -> int | None:
    """The samples that all members have."""
    found: set[int] = set()
    for row in members:
        found |= row.samples
    return found.pop() if len(found) == 1 else None


def _fits(region: Region) -> bool:
    """Whether the cuts are between whole rows of both shapes of every reshape."""
    reaches = [p.reach for row in region.ops for p in row.operands if p is not None]
    sizes = [n for r in reaches if isinstance(r, Scaled) for n in (r.result, r.operand)]
    return all(size % region.rows == 0 for size in sizes)
