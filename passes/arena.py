"""The plan problem as plain data: buffers with lifetimes, and their offsets in one arena."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArenaBuffer:
    """`size` bytes, rounded up to whole multiples of `alignment`, live during [start, end)."""

    size: int
    start: int
    end: int
    alignment: int = 1
    pinned: int | None = None
    """A fixed offset; None: the planner's choice."""

    @property
    def occupied(self) -> int:
        """The size with its padding."""
        return align(self.size, self.alignment)


@dataclass(frozen=True)
class ArenaProblem:
    """Buffers to place so that no two overlap in both time and bytes."""

    buffers: tuple[ArenaBuffer, ...]

    @property
    def bound(self) -> int:
        """The most bytes that are live at one time: no arena can be smaller."""
        return int(_loads(self.buffers).max(initial=0))


@dataclass(frozen=True)
class ArenaPlan:
    """Byte offsets of the buffers of a problem, and the bytes that the arena needs."""

    offsets: tuple[int, ...]
    size: int


class PlanError(Exception):
    """A plan is wrong: a fault of the planner."""


def align(value: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-value // alignment) * alignment


def plan_arena(problem: ArenaProblem) -> ArenaPlan:
    """The smallest of several greedy plans; never larger than greedy by size, best fit.

    Stops at the first plan that reaches the bound.
    """
    bound = problem.bound
    best: ArenaPlan | None = None
    for order in _orders(problem.buffers):
        for best_fit in (True, False):
            plan = greedy_plan(problem, order, best_fit)
            if best is None or plan.size < best.size:
                best = plan
            if best.size == bound:
                return best
    assert best is not None
    return best


def greedy_plan(problem: ArenaProblem, order: Sequence[int], best_fit: bool) -> ArenaPlan:
    """Places the buffers in `order`, each into the tightest (or the lowest) gap that is free.

    Pinned buffers come first. The tightest gap is preferred to the open end of the arena.
    """
    placer = _Placer(len(problem.buffers))
    offsets = [0] * len(problem.buffers)
    pinned = [i for i in order if problem.buffers[i].pinned is not None]
    free = [i for i in order if problem.buffers[i].pinned is None]
    for number in (*pinned, *free):
        buffer = problem.buffers[number]
        offset = placer.find(buffer, best_fit) if buffer.pinned is None else buffer.pinned
        placer.place(buffer, offset)
        offsets[number] = offset
    size = max((o + b.occupied for o, b in zip(offsets, problem.buffers, strict=True)), default=0)
    return ArenaPlan(tuple(offsets), size)


class _Placer:
    """The buffers that have a place, sorted by offset."""

    def __init__(self, capacity: int) -> None:
        self._rows = np.zeros((4, capacity), np.int64)
        self._count = 0

    def place(self, buffer: ArenaBuffer, offset: int) -> None:
        """Records `buffer` at `offset`."""
        at = int(np.searchsorted(self._rows[0, : self._count], offset))
        self._rows[:, at + 1 : self._count + 1] = self._rows[:, at : self._count].copy()
        self._rows[:, at] = offset, offset + buffer.occupied, buffer.start, buffer.end
        self._count += 1

    def find(self, buffer: ArenaBuffer, best_fit: bool) -> int:
        """An aligned offset at which `buffer` meets nothing that is live with it."""
        lower, upper, start, end = self._rows[:, : self._count]
        live = (start < buffer.end) & (end > buffer.start)
        lower, upper = lower[live], upper[live]
        if not len(lower):
            return 0
        tops = np.maximum.accumulate(upper)
        floors = np.concatenate(([0], tops))
        floors = -(-floors // buffer.alignment) * buffer.alignment
        gaps = lower - floors[:-1]
        (fitting,) = np.nonzero(gaps >= buffer.occupied)
        if not len(fitting):
            return int(floors[-1])
        chosen = fitting[np.argmin(gaps[fitting])] if best_fit else fitting[0]
        return int(floors[chosen])


_MAX_PLACEMENTS = 40_000
"""Stops large problems from trying every order: placing one buffer takes 10 to 100 microseconds."""


def _orders(buffers: Sequence[ArenaBuffer]) -> list[list[int]]:
    """Greedy orders to try, by size first: products of size, lifetime and load (see `_peaks`)."""
    size = np.array([b.occupied for b in buffers], np.float64)
    life = np.array([b.end - b.start for b in buffers], np.float64)
    start = np.array([b.start for b in buffers], np.float64)
    peak = _peaks(buffers).astype(np.float64)
    keys = (
        (-size, -life),
        (-size * life, start),
        (-peak, -size),
        (-life * size * peak, start),
        (-life, -size),
        (-peak * size, -life),
        (start, -size),
        (-(start + life), -size),
    )
    orders = [np.lexsort((minor, major)).tolist() for major, minor in keys]
    affordable = max(1, _MAX_PLACEMENTS // max(1, 2 * len(buffers)))
    return orders[:affordable]


def _loads(buffers: Sequence[ArenaBuffer]) -> NDArray[np.int64]:
    """Live bytes at each time."""
    changes = np.zeros(max((b.end for b in buffers), default=0) + 1, np.int64)
    for buffer in buffers:
        changes[buffer.start] += buffer.occupied
        changes[buffer.end] -= buffer.occupied
    return np.cumsum(changes)


def _peaks(buffers: Sequence[ArenaBuffer]) -> NDArray[np.int64]:
    """The highest load during each buffer's lifetime."""
    loads = _loads(buffers)
    return np.array([loads[b.start : b.end].max(initial=0) for b in buffers], np.int64)
