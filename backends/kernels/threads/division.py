"""Divides a kernel among threads.

Parts share no result, so the results are those of the whole kernel bit for bit, whatever the
number of parts. Nothing is asked of who writes a kernel: what `independence` cannot show to be
independent stays on one thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import func, scf

from niwaki.backends.kernels.threads.accesses import AccessesOf
from niwaki.backends.kernels.threads.divided_code import write
from niwaki.backends.kernels.threads.independence import (
    NO_SCRATCH,
    Independence,
    Piece,
    PrivateScratch,
)
from niwaki.backends.kernels.threads.sections import Divided, Item, Opened, Section, sections_in
from niwaki.backends.kernels.threads.units import Memory, Taken, Unit, is_divisible, iterations

_DEEPEST = 3
"""Loops around one that is divided, at most."""
_GAIN = 0.75
"""Of the time of one thread: what dividing a unit must come below."""


def divide(function: func.FuncOp, memory: Memory, parts: int, least_share: float) -> func.FuncOp:
    """The kernel with `kernel.parallel` where that is possible and pays; perhaps itself.

    `least_share`: the part of the kernel's work that a section must be to be divided. The workspace
    of part n lies n * `scratch_stride` bytes behind that of the kernel.
    """
    try:
        accesses = AccessesOf(function)
    except NotImplementedError:
        return function
    taken = Taken(accesses, memory)
    division = _Division(taken, Independence(accesses, memory), parts)
    block = function.body.block
    division.least = least_share * taken.work(block.ops)
    plan = division.plan(taken.body(block).units, ())
    if not division.scratch_survives(plan.items):
        division.careful = True
        plan = division.plan(taken.body(block).units, ())
    if plan.time >= _GAIN * plan.whole or not division.scratch_survives(plan.items):
        return function
    return write(function, plan.items, taken, parts)


@dataclass(frozen=True)
class _Plan:
    """Of neighbouring units; times are counted in operations."""

    items: tuple[Item, ...]
    time: float
    whole: float
    """The time of one thread."""


class _Division:
    def __init__(self, taken: Taken, independence: Independence, parts: int) -> None:
        self._taken = taken
        self._accesses = taken.accesses
        self._independence = independence
        self._parts = parts
        self.least = 0.0
        """Operations below which a section is not divided."""
        self.careful = False
        """Whether scratch of single parts must be out of reach for all that is not the section."""

    def plan(self, units: Sequence[Unit], opened: tuple[scf.ForOp, ...]) -> _Plan:
        """The items of a block, in the loops `opened`."""
        items: list[Item] = []
        time, whole = 0.0, 0.0
        for unit in units:
            alone = self._taken.work(unit.ops)
            item, cost = self._best(unit, alone, opened)
            last = items[-1] if items else None
            if isinstance(item, Section) and isinstance(last, Section):
                joined = self._joined(last, item, opened)
                items[-1:] = [last, item] if joined is None else [joined]
            else:
                items.append(item)
            time, whole = time + cost, whole + alone
        return _Plan(tuple(items), time, whole)

    def scratch_survives(self, items: Sequence[Item]) -> bool:
        """Whether no section loads what another one keeps in the scratch of single parts."""
        sections = list(sections_in(items))
        for section in sections:
            ops = [op for d in section.units for op in d.unit.ops]
            for access in self._accesses.inside(ops):
                if access.stores or access.argument is not self._taken.memory.scratch:
                    continue
                if access.op not in section.private.ops and any(
                    self._independence.touches(access, other.private)
                    for other in sections
                    if other is not section
                ):
                    return False
        return True

    def _best(self, unit: Unit, alone: float, opened: tuple[scf.ForOp, ...]) -> tuple[Item, float]:
        """How to compute `unit`, and the time; `alone`: the time of one thread."""
        undivided = Section((Divided(unit, None),), NO_SCRATCH)
        if unit.loop is None or alone < self.least:
            return undivided, alone
        dispatch = self.least / 4
        times = [(self._time(unit, depth) + dispatch, depth) for depth in range(_DEEPEST + 1)]
        found: tuple[Item, float] = undivided, alone
        for time, depth in sorted(times):
            if time >= _GAIN * alone:
                break
            section = self._section((Divided(unit, depth),), opened)
            if section is not None:
                found = section, time
                break
        body = self._taken.body(unit.loop.body.block)
        if len(opened) <= _DEEPEST:
            inner = self.plan(body.units, (*opened, unit.loop))
            each = self._taken.work(body.ambient) + inner.time
            time = iterations(unit.loop, self._accesses) * each
            if time < min(found[1], _GAIN * alone):
                return Opened(unit.loop, inner.items), time
        return found

    def _time(self, unit: Unit, depth: int) -> float:
        """Operations one after the other, if the loops `depth` levels inside are divided.

        Every part runs the loops around: of equal parts, those of an outer loop take less.
        """
        loop = unit.loop
        if loop is None or (depth == 0 and not is_divisible(loop)):
            return self._taken.work(unit.ops)
        count, block = iterations(loop, self._accesses), loop.body.block
        if depth == 0:
            return 1 + -(-count // self._parts) * self._taken.work(block.ops)
        body = self._taken.body(block)
        every_part = self._taken.work(body.ambient)
        return 1 + count * (every_part + sum(self._time(u, depth - 1) for u in body.units))

    def _section(self, units: tuple[Divided, ...], opened: tuple[scf.ForOp, ...]) -> Section | None:
        """The section of `units`; None if their pieces must not run at once, or none is divided."""
        pieces = [p for d in units for p in d.pieces(self._taken)]
        if all(p.loop is None for p in pieces):
            return None
        private = self._independence.check(pieces, opened)
        if private is None or (self.careful and self._is_read_elsewhere(private, pieces)):
            return None
        return Section(units, private)

    def _is_read_elsewhere(self, private: PrivateScratch, pieces: Sequence[Piece]) -> bool:
        """Whether anything but `pieces` loads from the scratch of single parts."""
        own = {a.op for piece in pieces for a in self._accesses.inside(piece.ops)}
        return any(
            not access.stores
            and access.argument is self._taken.memory.scratch
            and access.op not in own
            and self._independence.touches(access, private)
            for access in self._accesses.all
        )

    def _joined(
        self, section: Section, following: Section, opened: tuple[scf.ForOp, ...]
    ) -> Section | None:
        """Both as one; None if the second one has to wait for the first."""
        units = (*section.units, *following.units)
        if not section.parallel and not following.parallel:
            return Section(units, NO_SCRATCH)
        return self._section(units, opened)
