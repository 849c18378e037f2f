"""Plans of an arena: greedy ones first, and a search where they miss the bound."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem, loads, plan_at
from niwaki.passes.arenas.search import SearchResult, search_arena

Solver: TypeAlias = Callable[[ArenaProblem, int, int], SearchResult]
"""Looks for a plan of a problem within a capacity, with so many nodes."""

_NODES = 10_000
"""Of the search in `plan_arena`: a third of a second for hundreds of buffers."""

_WORK = 4_000_000
"""Nodes times buffers, at most: a node of thousands of buffers takes long."""


def plan_arena(problem: ArenaProblem) -> ArenaPlan:
    """A plan that is never larger than greedy by size, and is mostly as small as the bound.

    Deterministic: the effort is counted in nodes of the search, not in seconds.
    """
    greedy = plan_greedily(problem)
    count = len(problem.buffers)
    nodes = min(_NODES, _WORK // max(count, 1))
    if nodes < 2 * count:
        return greedy  # Not even one dive would end.
    return shrink(problem, greedy, problem.bound, nodes, search_arena)


def shrink(
    problem: ArenaProblem, plan: ArenaPlan, target: int, nodes: int, solver: Solver
) -> ArenaPlan:
    """The smallest plan that `solver` finds, at most as large as `plan`, no smaller than `target`.

    Three quarters of the nodes go into each attempt that is left: first for `target`, then between
    the sizes that failed and the best plan.
    """
    capacity, failed = target, target - 1
    while plan.size > max(failed + 1, target) and nodes:
        share = nodes * 3 // 4 or nodes
        result = solver(problem, capacity, share)
        nodes -= max(result.nodes, 1)
        if result.offsets is None:
            failed = capacity
        else:
            plan = min(plan, plan_at(problem, result.offsets), key=lambda p: p.size)
        capacity = (failed + plan.size) // 2
    return plan


def plan_greedily(problem: ArenaProblem) -> ArenaPlan:
    """The smallest of several greedy plans.

    Never larger than by size, whether each goes to the tightest gap or to the lowest, and whether
    of equal sizes the longest life comes first or the earliest.

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
    return plan_at(problem, offsets)


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
        (-size, start),
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


def _peaks(buffers: Sequence[ArenaBuffer]) -> NDArray[np.int64]:
    """The highest load during each buffer's lifetime."""
    times, load = loads(buffers)
    first = np.searchsorted(times, [b.start for b in buffers])
    last = np.searchsorted(times, [b.end for b in buffers])
    return np.array([load[f:l].max(initial=0) for f, l in zip(first, last, strict=True)], np.int64)
