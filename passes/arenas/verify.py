"""Checks an arena plan, sharing no code with the planner."""

from bisect import bisect_left, insort
from itertools import pairwise

from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem, PlanError


def verify_arena(problem: ArenaProblem, plan: ArenaPlan) -> None:
    """PlanError if two live buffers overlap, or a place is unaligned, not as pinned, or outside."""
    if len(plan.offsets) != len(problem.buffers):
        raise PlanError(f"{len(plan.offsets)} offsets for {len(problem.buffers)} buffers")
    for number, (buffer, offset) in enumerate(zip(problem.buffers, plan.offsets, strict=True)):
        _check_place(number, buffer, offset, plan.size)
    _check_overlaps(problem, plan)


def _check_place(number: int, buffer: ArenaBuffer, offset: int, size: int) -> None:
    if offset % buffer.alignment:
        raise PlanError(f"buffer {number} at {offset} is not aligned to {buffer.alignment}")
    if offset < 0 or offset + buffer.size > size:
        raise PlanError(f"buffer {number} at {offset} lies outside the arena of {size} bytes")
    if buffer.pinned not in (None, offset):
        raise PlanError(f"buffer {number} is at {offset}, but pinned to {buffer.pinned}")


def _check_overlaps(problem: ArenaProblem, plan: ArenaPlan) -> None:
    """Sweeps over time with the live buffers sorted by offset: only neighbours can overlap."""
    events: list[tuple[int, int, int]] = []
    for number, buffer in enumerate(problem.buffers):
        if buffer.size and buffer.start < buffer.end:
            events += [(buffer.start, 1, number), (buffer.end, 0, number)]
    live: list[tuple[int, int]] = []
    for _, starts, number in sorted(events):
        place = (plan.offsets[number], number)
        if not starts:
            del live[bisect_left(live, place)]
            continue
        insort(live, place)
        at = bisect_left(live, place)
        for (low, lower), (high, upper) in pairwise(live[max(at - 1, 0) : at + 2]):
            if low + problem.buffers[lower].size > high:
                raise PlanError(f"buffers {lower} at {low} and {upper} at {high} overlap")
