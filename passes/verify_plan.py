"""Checks plan.program as it stands: no call may read, or lose, what is not there any more."""

from bisect import bisect_right
from collections.abc import Mapping
from itertools import count
from typing import TypeAlias

from xdsl.ir import SSAValue

from niwaki.backends.kernels.spec import buffer_bytes, element_bytes
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.passes.arenas.problem import PlanError

_INITIAL = 0
"""The version of what a space holds before the first call."""

Versions: TypeAlias = tuple[int, ...]
"""Several where calls wrote parts of a range."""


def verify_plan(program: plan.ProgramOp, alignment: int, sizes: Mapping[str, int]) -> None:
    """Plays the calls of `program` on address ranges; PlanError on the first fault.

    A view that some call writes stands for what it wrote last; any other view for what its bytes
    hold where it is defined. Every read must find just that: written before, and not overwritten
    since. What a call writes or uses as workspace may overlap what it reads only as its
    `in_place` pairs say, at one address. Arena views start at multiples of `alignment`; every
    view lies inside its space (`sizes`: bytes of the state and the constants).
    """
    _Player(program, alignment, sizes).run()


class _Memory:
    """One space: which version of its content each byte range holds."""

    def __init__(self, initialised: bool) -> None:
        self._starts = [0] if initialised else []
        self._ends: list[float] = [float("inf")] if initialised else []
        self._versions = [_INITIAL] if initialised else []

    def versions(self, start: int, end: int) -> Versions | None:
        """The versions that [start, end) holds, by address; None if there is a gap."""
        at = bisect_right(self._starts, start) - 1
        if at < 0 or self._ends[at] <= start:
            return None
        found = [self._versions[at]]
        while self._ends[at] < end:
            if at + 1 == len(self._starts) or self._starts[at + 1] > self._ends[at]:
                return None
            at += 1
            found.append(self._versions[at])
        return tuple(found)

    def write(self, start: int, end: int, version: int) -> None:
        """[start, end) holds `version` from now on."""
        first = bisect_right(self._starts, start)
        if first and self._ends[first - 1] > start:
            first -= 1
        last = first
        pieces = [(start, float(end), version)]
        while last < len(self._starts) and self._starts[last] < end:
            low, high, old = self._starts[last], self._ends[last], self._versions[last]
            if low < start:
                pieces.insert(0, (low, float(start), old))
            if high > end:
                pieces.append((end, high, old))
            last += 1
        self._starts[first:last] = [p[0] for p in pieces]
        self._ends[first:last] = [p[1] for p in pieces]
        self._versions[first:last] = [p[2] for p in pieces]


class _Player:
    def __init__(self, program: plan.ProgramOp, alignment: int, sizes: Mapping[str, int]) -> None:
        self.program = program
        self.alignment = alignment
        self.sizes = {**sizes, "arena": get_int(program.properties, "arena")}
        self.written = {
            argument
            for op in program.body.block.ops
            if isinstance(op, plan.CallOp)
            for argument in op.arguments[get_int(op.properties, "reads") :]
        }
        self.memories: dict[tuple[str, int], _Memory] = {}
        self.places: dict[SSAValue, tuple[tuple[str, int], int, int]] = {}
        """View -> space (with the number of an input or output), first byte, end."""
        self.versions: dict[SSAValue, Versions | None] = {}
        """View -> the versions that it stands for."""
        self.fresh = count(_INITIAL + 1)

    def run(self) -> None:
        for number, op in enumerate(self.program.body.block.ops):
            where = f"@{self.program.sym_name.data}, operation {number}"
            try:
                match op:
                    case plan.ViewOp():
                        self._view(op)
                    case plan.CallOp():
                        self._call(op)
                    case _:
                        raise PlanError(f"'{op.name}' is neither a view nor a call")
            except PlanError as error:
                raise PlanError(f"{where}: {error}") from None

    def _view(self, op: plan.ViewOp) -> None:
        name, start = op.space.data, get_int(op.properties, "offset")
        index = 0 if op.index is None else get_int(op.properties, "index")
        end = start + buffer_bytes(op.view.type)
        multiple = self.alignment if name == "arena" else element_bytes(op.view.type.element_type)
        if start % multiple:
            raise PlanError(f"offset {start} is not aligned to {multiple}")
        if end > self.sizes.get(name, end):
            raise PlanError(f"[{start}, {end}) leaves the {self.sizes[name]} bytes of the {name}")
        space = (name, index)
        self.places[op.view] = (space, start, end)
        if space not in self.memories:
            self.memories[space] = _Memory(initialised=name not in ("arena", "output"))
        self.versions[op.view] = self._found(op.view) if op.view not in self.written else None

    def _found(self, view: SSAValue) -> Versions | None:
        space, start, end = self.places[view]
        return self.memories[space].versions(start, end)

    def _call(self, op: plan.CallOp) -> None:
        reads = get_int(op.properties, "reads")
        kernel = op.kernel.string_value()
        for number, view in enumerate(op.arguments[:reads]):
            found = self._found(view)
            expected = self._expected(view)
            if found is None or found != expected:
                state = "never written" if expected is None else "overwritten before"
                raise PlanError(f"{kernel} reads argument {number}, which was {state}")
        self._check_overlaps(op, reads)
        for number, view in enumerate(op.arguments[reads:], reads):
            space, start, end = self.places[view]
            if space[0] in ("input", "constants"):
                raise PlanError(f"{kernel} writes argument {number}, which is read-only")
            version = next(self.fresh)
            self.versions[view] = (version,)
            self.memories[space].write(start, end, version)

    def _expected(self, view: SSAValue) -> Versions | None:
        """A view of initial content that a later call overwrites stands for that content first."""
        version = self.versions[view]
        if version is None and self.places[view][0][0] not in ("arena", "output"):
            return (_INITIAL,)
        return version

    def _check_overlaps(self, op: plan.CallOp, reads: int) -> None:
        allowed = op.in_place_pairs
        places = [self.places[a] for a in op.arguments]
        for number in range(reads, len(places)):
            for other in range(number):
                if not _overlap(places[number], places[other]):
                    continue
                if (other, number) in allowed and places[number] == places[other]:
                    continue
                raise PlanError(
                    f"{op.kernel.string_value()}: arguments {other} and {number} overlap"
                )


def _overlap(a: tuple[tuple[str, int], int, int], b: tuple[tuple[str, int], int, int]) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]
