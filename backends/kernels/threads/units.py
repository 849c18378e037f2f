"""The pieces of a kernel that may run apart from each other: loops, and code between them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects import arith, func, memref, scf, vector
from xdsl.ir import Block, Operation, SSAValue

from niwaki.backends.kernels.threads.accesses import AccessesOf
from niwaki.backends.kernels.threads.index_forms import trips

_STORES = (memref.StoreOp, vector.StoreOp)
_LOADS = (memref.LoadOp, vector.LoadOp)


@dataclass(frozen=True)
class Unit:
    """Neighbouring operations of a block: one loop, or code that belongs together."""

    ops: tuple[Operation, ...]
    loop: scf.ForOp | None
    """The loop, if all that it leaves behind are stores."""


@dataclass(frozen=True)
class Body:
    """A block taken apart."""

    ambient: tuple[Operation, ...]
    """What units need and anyone may compute: no stores, no loads of what the kernel stores."""
    units: tuple[Unit, ...]


@dataclass(frozen=True)
class Memory:
    """What the arguments of a kernel are."""

    same: Mapping[SSAValue, SSAValue]
    """Argument -> the one that stands for all that may be the same memory."""
    scratch: SSAValue | None
    """The workspace."""


class Taken:
    """The blocks of one kernel, taken apart when they are asked for."""

    def __init__(self, accesses: AccessesOf, memory: Memory) -> None:
        self.accesses = accesses
        self.memory = memory
        stored = {memory.same[a.argument] for a in accesses.all if a.stores}
        self._constant = {a.op for a in accesses.all if memory.same[a.argument] not in stored}
        self._bodies: dict[Block, Body] = {}
        self._work: dict[Operation, int] = {}

    def body(self, block: Block) -> Body:
        """A block of the kernel."""
        if block not in self._bodies:
            self._bodies[block] = self._take(block)
        return self._bodies[block]

    def work(self, ops: Iterable[Operation]) -> int:
        """Operations that `ops` amount to, those of loops as often as they run."""
        return sum(self._work_of(op) for op in ops)

    def _work_of(self, op: Operation) -> int:
        if not op.regions:
            return not isinstance(op, scf.YieldOp)
        if op not in self._work:
            times = iterations(op, self.accesses) if isinstance(op, scf.ForOp) else 1
            self._work[op] = 1 + times * sum(self.work(r.block.ops) for r in op.regions)
        return self._work[op]

    def _take(self, block: Block) -> Body:
        ambient: list[Operation] = []
        units: list[list[Operation]] = []
        owner: dict[Operation, int] = {}
        for op in block.ops:
            if isinstance(op, scf.YieldOp | func.ReturnOp):
                continue
            needed = _needed(op, owner)
            if not needed and self._is_ambient(op):
                ambient.append(op)
                continue
            start = min(needed, default=len(units))
            if start == len(units) > 0 and not self._loop([op]) and not self._loop(units[-1]):
                start -= 1
            merged = [o for unit in units[start:] for o in unit] + [op]
            units[start:] = [merged]
            owner.update(dict.fromkeys(merged, start))
        found = tuple(Unit(tuple(unit), self._loop(unit)) for unit in units)
        return Body(tuple(ambient), found)

    def _loop(self, ops: Sequence[Operation]) -> scf.ForOp | None:
        """What `ops` consist of, if that is one loop without results."""
        (first, *others) = ops
        if others or not isinstance(first, scf.ForOp) or first.results:
            return None
        return first if self.accesses.stores(first) else None

    def _is_ambient(self, op: Operation) -> bool:
        if isinstance(op, _LOADS):
            return op in self._constant
        return not op.regions and not isinstance(op, _STORES)


def _needed(op: Operation, owner: dict[Operation, int]) -> set[int]:
    """The units whose values `op`, or what it contains, uses."""
    used = (o.owner for inner in op.walk() for o in inner.operands)
    return {owner[o] for o in used if isinstance(o, Operation) and o in owner}


def iterations(loop: scf.ForOp, accesses: AccessesOf) -> int:
    """Of a loop; at most, where its bounds are no constants."""
    forms = accesses.forms
    exact = trips(loop, forms)
    if exact is not None:
        return exact
    (low, _), (_, stop) = forms.range(forms.of(loop.lb)), forms.range(forms.of(loop.ub))
    return max(0, stop - low)


def is_divisible(loop: scf.ForOp) -> bool:
    """Whether the bounds are constants."""
    return all(isinstance(v.owner, arith.ConstantOp) for v in (loop.lb, loop.ub, loop.step))
