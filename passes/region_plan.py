"""Places what a program needs in the memories of a board, and plans the arena in each of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, islice

import numpy as np
from numpy.typing import NDArray

from niwaki.backends.regions import MemoryRegion
from niwaki.ir.dialects.plan import RegionRange
from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import EntryPoint, RegionUse
from niwaki.passes.arena import plan_arena
from niwaki.passes.arena_problem import ArenaPlan, ArenaProblem
from niwaki.passes.region_assignment import AssignmentProblem, RegionItem, assign_regions


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
    capacities = np.array([[region.capacity] * end for region in regions], np.int64)
    return AssignmentProblem(tuple(items), tuple(r.cost for r in regions), capacities)


def plan_regions(
    state: Buffers, entries: Sequence[Buffers], regions: Sequence[MemoryRegion]
) -> RegionPlan:
    """Divides all buffers among `regions` (writable, the fastest first) and plans each arena.

    Where an arena turns out larger than its region because of gaps, the region is taken for
    smaller by that during this entry point, so that the buffers worth least there move on.

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
        remaining = iter(places)
        of_state = tuple(islice(remaining, len(state.problem.buffers)))
        parts = [_Parts(e, list(islice(remaining, len(e.labels))), len(regions)) for e in entries]
        plans = [[planned(problem) for problem in part.problems] for part in parts]
        rooms = [r.capacity - sum(_sizes(state, of_state, n)) for n, r in enumerate(regions)]
        if not _shrink(problem.capacities, _windows(entries), plans, rooms):
            return RegionPlan(of_state, _join(parts, plans, regions))


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


class _Parts:
    """The buffers of an entry point by region."""

    def __init__(self, entry: Buffers, places: Sequence[int], regions: int) -> None:
        self.problem = entry.problem
        self.members = [
            [i for i, place in enumerate(places) if place == number] for number in range(regions)
        ]
        buffers = entry.problem.buffers
        self.problems = [ArenaProblem(tuple(buffers[i] for i in m)) for m in self.members]


def _shrink(
    capacities: NDArray[np.int64],
    windows: Sequence[slice],
    plans: Sequence[Sequence[ArenaPlan]],
    rooms: Sequence[int],
) -> bool:
    """Takes regions for smaller where an arena is larger than its room; whether any is."""
    found = False
    for window, by_region in zip(windows, plans, strict=True):
        for number, (plan, room) in enumerate(zip(by_region, rooms, strict=True)):
            if plan.size > room:
                capacities[number, window] -= plan.size - room
                found = True
    return found


def _join(
    parts: Sequence[_Parts],
    plans: Sequence[Sequence[ArenaPlan]],
    regions: Sequence[MemoryRegion],
) -> tuple[ArenaInRegions, ...]:
    used = [any(by_region[n].size for by_region in plans) for n in range(len(regions))]
    joined: list[ArenaInRegions] = []
    for part, by_region in zip(parts, plans, strict=True):
        offsets = [0] * len(part.problem.buffers)
        ranges: list[RegionRange] = []
        start = 0
        for number, plan in enumerate(by_region):
            for member, offset in zip(part.members[number], plan.offsets, strict=True):
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
    load = np.zeros(problem.capacities.shape[1] + 1, np.int64)
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
