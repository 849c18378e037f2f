"""Places what a program needs in the memories of a board, and plans the arena in each of them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate

import numpy as np

from niwaki.backends.targets import MemoryRegion
from niwaki.ir.dialects.plan import RegionRange
from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import EntryPoint, RegionUse
from niwaki.passes.arenas.plan_arena import plan_arena
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem
from niwaki.passes.arenas.region_assignment import AssignmentProblem, RegionItem, assign_regions


@dataclass(frozen=True)
class Buffers:
    """The buffers of an entry point, or of the state, which outlives them all."""

    problem: ArenaProblem
    """For the state, the times are all the same."""
    traffic: tuple[int, ...]
    """Bytes that kernels load from each or store to it."""
    labels: tuple[str, ...]
    """For people."""


@dataclass(frozen=True)
class ArenaInRegions:
    """The arena of an entry point, its regions one after another."""

    plan: ArenaPlan
    regions: tuple[RegionRange, ...]


@dataclass(frozen=True)
class RegionPlan:
    """Where everything lies."""

    state: tuple[int, ...]
    """The number of the region of each buffer of the state."""
    arenas: tuple[ArenaInRegions, ...]
    """One for each entry point, with a range for every region that one of them uses."""
    access_cost: float
    """Bytes loaded or stored, times the cost of their region."""


def assignment_problem(
    state: Buffers, entries: Sequence[Buffers], regions: Sequence[MemoryRegion]
) -> AssignmentProblem:
    """The state's buffers, then those of the entry points; these follow each other in time."""
    windows = _windows(entries)
    end = max((w.stop for w in windows), default=0) or 1
    items = [
        RegionItem(max(b.occupied, 1), 0, end, traffic)
        for b, traffic in zip(state.problem.buffers, state.traffic, strict=True)
    ]
    for window, entry in zip(windows, entries, strict=True):
        items += [
            RegionItem(max(b.occupied, 1), window.start + b.start, window.start + b.end, traffic)
            for b, traffic in zip(entry.problem.buffers, entry.traffic, strict=True)
        ]
    return AssignmentProblem(
        tuple(items), tuple(r.cost for r in regions), tuple(r.capacity for r in regions)
    )


def plan_regions(
    state: Buffers, entries: Sequence[Buffers], regions: Sequence[MemoryRegion]
) -> RegionPlan:
    """Divides all buffers among `regions` (writable, the fastest first) and plans each arena.

    Where an arena turns out larger than its region because of gaps, buffers that are worth least
    there move on, and all is divided again.

    Raises DoesNotFitError with the capacities and the largest buffers if no division is found.
    """
    problem = assignment_problem(state, entries, regions)
    planned = cache(plan_arena)
    while True:
        assignment = assign_regions(problem)
        places = [r for r in assignment.regions if r is not None]
        if len(places) < len(problem.items):
            missing = assignment.missing(problem)
            raise DoesNotFitError(_message(problem, missing, (state, *entries), regions))
        first = len(state.labels)
        of_state = tuple(places[:first])
        rooms = [r.capacity - sum(_sizes(state, of_state, n)) for n, r in enumerate(regions)]
        arenas: list[_DividedArena] = []
        for entry in entries:
            here = places[first : first + len(entry.labels)]
            arenas.append(_DividedArena(entry.problem, first, here, len(regions), planned))
            first += len(entry.labels)
        barred = {pair for arena in arenas for pair in arena.too_much(rooms, problem)}
        if not barred:
            return RegionPlan(of_state, _join(arenas, regions), assignment.cost(problem))
        problem = replace(problem, barred=problem.barred | barred)


def check_constants(region: MemoryRegion | None, size: int) -> None:
    """DoesNotFitError if frozen weights of `size` bytes are too large for the read-only region."""
    if region is not None and size > region.capacity:
        raise DoesNotFitError(
            f"the frozen weights are {size:,} bytes, the board leaves {region.capacity:,} in "
            f"{region.name}: use a smaller model"
        )


def region_uses(
    regions: Sequence[MemoryRegion],
    entries: Iterable[EntryPoint],
    state: Sequence[RegionRange],
    constant_bytes: int,
) -> tuple[RegionUse, ...]:
    """What a program needs of each region."""
    arena: dict[str, int] = {}
    for entry in entries:
        for part in entry.regions:
            arena[part.region] = max(arena.get(part.region, 0), part.size)
    kept = {part.region: part.size for part in state}
    return tuple(
        RegionUse(
            region.name,
            region.capacity,
            arena.get(region.name, 0),
            kept.get(region.name, 0),
            constant_bytes if region.read_only else 0,
        )
        for region in regions
    )


class _DividedArena:
    """The arena of an entry point, planned in each region."""

    def __init__(
        self,
        problem: ArenaProblem,
        first: int,
        places: Sequence[int],
        regions: int,
        planned: Callable[[ArenaProblem], ArenaPlan],
    ) -> None:
        """`first`: the number of the first buffer among all items."""
        self.first = first
        self.buffers = problem.buffers
        self.members = [[i for i, p in enumerate(places) if p == n] for n in range(regions)]
        """The buffers in each region."""
        self.plans = [
            planned(ArenaProblem(tuple(self.buffers[i] for i in members)))
            for members in self.members
        ]

    def too_much(self, rooms: Sequence[int], problem: AssignmentProblem) -> list[tuple[int, int]]:
        """(item, region) of buffers to keep out of regions whose arena is larger than its room.

        Of what is live together with a buffer that leaves the room, the least used per byte.
        """
        found: list[tuple[int, int]] = []
        for number, (members, plan, room) in enumerate(
            zip(self.members, self.plans, rooms, strict=True)
        ):
            excess = plan.size - room
            outside = [
                self.buffers[i]
                for i, offset in zip(members, plan.offsets, strict=True)
                if offset + self.buffers[i].occupied > room
            ]
            for member in sorted(members, key=lambda i: self._value(i, problem)):
                if excess <= 0:
                    break
                if any(_meet(self.buffers[member], other) for other in outside):
                    found.append((self.first + member, number))
                    excess -= self.buffers[member].occupied
        return found

    def _value(self, member: int, problem: AssignmentProblem) -> float:
        item = problem.items[self.first + member]
        return item.traffic / item.size


def _meet(a: ArenaBuffer, b: ArenaBuffer) -> bool:
    return a.start < b.end and b.start < a.end


def _join(
    arenas: Sequence[_DividedArena], regions: Sequence[MemoryRegion]
) -> tuple[ArenaInRegions, ...]:
    used = [any(arena.plans[n].size for arena in arenas) for n in range(len(regions))]
    joined: list[ArenaInRegions] = []
    for arena in arenas:
        offsets = [0] * len(arena.buffers)
        ranges: list[RegionRange] = []
        start = 0
        for number, plan in enumerate(arena.plans):
            for member, offset in zip(arena.members[number], plan.offsets, strict=True):
                offsets[member] = start + offset
            if used[number]:
                ranges.append(RegionRange(regions[number].name, start, start + plan.size))
            start += plan.size
        joined.append(ArenaInRegions(ArenaPlan(tuple(offsets), start), tuple(ranges)))
    return tuple(joined)


def _windows(entries: Sequence[Buffers]) -> list[slice]:
    """When each entry point runs, on the time axis of all."""
    lengths = [max((b.end for b in e.problem.buffers), default=0) for e in entries]
    ends = list(accumulate(lengths))
    return [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]


def _sizes(buffers: Buffers, places: Sequence[int], region: int) -> list[int]:
    pairs = zip(buffers.problem.buffers, places, strict=True)
    return [buffer.occupied for buffer, place in pairs if place == region]


_SHOWN = 5
"""Buffers that the message names."""


def _message(
    problem: AssignmentProblem,
    missing: int,
    buffers: Sequence[Buffers],
    regions: Sequence[MemoryRegion],
) -> str:
    load = np.zeros(max(item.end for item in problem.items) + 1, np.int64)
    for item in problem.items:
        load[item.start] += item.size
        load[item.end] -= item.size
    peak = int(np.argmax(np.cumsum(load)))
    labels = [label for group in buffers for label in group.labels]
    alive = [
        (item.size, label)
        for item, label in zip(problem.items, labels, strict=True)
        if item.start <= peak < item.end
    ]
    largest = sorted(alive, key=lambda pair: -pair[0])[:_SHOWN]
    return "\n".join(
        [
            "the step does not fit the memories of the board: "
            + ", ".join(f"{r.name} has {r.capacity:,} bytes" for r in regions)
            + f", and buffers of {missing:,} bytes find no place.",
            "The largest at the peak, in bytes:",
            *(f"  {size:>12,}  {label}" for size, label in largest),
            "Update fewer layers, use a smaller batch, or an optimizer with less state.",
        ]
    )
