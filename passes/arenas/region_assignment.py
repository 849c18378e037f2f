"""Which memory each buffer goes to: the frequently used ones to the fast ones, within capacities.

A multiple knapsack whose items have lifetimes (unsplittable flow on a path, per region), which is
NP-hard. Greedy assignments in several orders, each improved by moving one buffer to a better
region and what stands in its way elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_TRIES = 20_000
"""Moves that improvement looks at, at most: a few seconds for 10,000 items, else enough."""
_MAX_IMPROVED = 4_000
"""Items of all assignments that are improved: with many items, only the best one is."""


@dataclass(frozen=True)
class RegionItem:
    """A buffer: `size` > 0 bytes (padding included), live during [start, end)."""

    size: int
    start: int
    end: int
    traffic: int
    """Bytes that kernels load from it or store to it."""


@dataclass(frozen=True)
class AssignmentProblem:
    """Items to divide among writable regions."""

    items: tuple[RegionItem, ...]
    costs: tuple[float, ...]
    """Of an access to one byte of each region, the fastest first."""
    capacities: tuple[int, ...]
    """Bytes of each region."""
    barred: frozenset[tuple[int, int]] = frozenset()
    """(item, region) that must not come together."""


@dataclass(frozen=True)
class Assignment:
    """The region of each item; None: it fits nowhere."""

    regions: tuple[int | None, ...]

    def cost(self, problem: AssignmentProblem) -> float:
        """Of all accesses to the items that have a region."""
        return sum(
            item.traffic * problem.costs[region]
            for item, region in zip(problem.items, self.regions, strict=True)
            if region is not None
        )

    def missing(self, problem: AssignmentProblem) -> int:
        """Bytes of the items without a region."""
        pairs = zip(problem.items, self.regions, strict=True)
        return sum(item.size for item, region in pairs if region is None)


def assign_regions(problem: AssignmentProblem) -> Assignment:
    """The best assignment found: as few bytes as possible without a region, then the least cost.

    Within the capacities by live bytes; whether the buffers of a region can be placed there
    without gaps is for the arena planner to say. Deterministic.
    """

    def badness(search: _Search) -> tuple[int, float]:
        found = search.assignment
        return found.missing(problem), found.cost(problem)

    if not problem.items:
        return Assignment(())
    searches = sorted(_starts(problem), key=badness)
    affordable = max(1, _MAX_IMPROVED // len(problem.items))
    for search in searches[:affordable]:
        search.improve()
    return min(searches, key=badness).assignment


def _starts(problem: AssignmentProblem) -> "list[_Search]":
    """Greedy assignments: by traffic per byte (and time), and by size."""
    size = np.array([i.size for i in problem.items], np.float64)
    life = np.array([i.end - i.start for i in problem.items], np.float64)
    traffic = np.array([i.traffic for i in problem.items], np.float64)
    starts: list[_Search] = []
    for key, fastest_first in (
        (-traffic / (size * life), True),
        (-traffic / size, True),
        (-size, True),
        (-size, False),
    ):
        search = _Search(problem)
        search.fill(np.argsort(key, kind="stable").tolist(), fastest_first)
        starts.append(search)
    return starts


class _Search:
    """An assignment that changes; region number `nowhere` has room for everything."""

    def __init__(self, problem: AssignmentProblem) -> None:
        self.items = problem.items
        self.nowhere = len(problem.costs)
        times = max(item.end for item in problem.items)
        self.free = np.array([[c] * times for c in problem.capacities], np.int64)
        """Bytes of each region that are free at each time."""
        self.barred = problem.barred
        self.region = np.full(len(problem.items), self.nowhere)
        self.start = np.array([i.start for i in problem.items], np.int64)
        self.end = np.array([i.end for i in problem.items], np.int64)
        self.size = np.array([i.size for i in problem.items], np.int64)
        # A byte without a region costs more than every access together.
        outside = 1.0 + max(problem.costs) * sum(i.traffic for i in problem.items)
        rows = [(*(i.traffic * c for c in problem.costs), outside * i.size) for i in problem.items]
        self.cost = np.array(rows, np.float64)
        """Of each item (row) in each region."""
        self.tries = _TRIES

    @property
    def assignment(self) -> Assignment:
        """As it stands."""
        return Assignment(tuple(None if r == self.nowhere else r for r in self.region.tolist()))

    def fill(self, order: Sequence[int], fastest_first: bool) -> None:
        """Gives each item in `order` the fastest (or the slowest) region that has room for it."""
        numbers = range(self.nowhere)
        preferred = numbers if fastest_first else numbers[::-1]
        for item in order:
            self._move(item, self._first_with_room(item, preferred))

    def improve(self) -> None:
        """Moves items to cheaper regions until none is found that pays."""
        while self.tries:
            gains = self.cost[np.arange(len(self.items)), self.region] - self.cost[:, 0]
            order = np.argsort(-gains, kind="stable").tolist()
            improved = [self._improve(item) for item in order if gains[item] > 0]
            if not any(improved):
                return

    def _improve(self, item: int) -> bool:
        """Moves `item` to the fastest region where that pays."""
        return any(self._try(item, region) for region in range(self.region[item]))

    def _try(self, item: int, region: int) -> bool:
        """Moves `item` to `region`, what stands in its way elsewhere, if that costs less."""
        if (item, region) in self.barred:
            return False
        self.tries -= self.tries > 0
        others = self._in_the_way(item, region) if self.tries else None
        if others is None:
            return False
        moved = [item, *others]
        homes = [int(self.region[i]) for i in moved]
        for other in others:
            self._move(other, self.nowhere)
        self._move(item, region)
        for other in reversed(others):
            self._move(other, self._first_with_room(other, range(self.nowhere)))
        gain = self.cost[moved, homes].sum() - self.cost[moved, self.region[moved]].sum()
        if gain > 1e-9 * self.cost[item, homes[0]]:
            return True
        for i, home in zip(moved, homes, strict=True):
            self._move(i, home)
        return False

    def _in_the_way(self, item: int, region: int) -> list[int] | None:
        """Items of `region` to take out so that `item` has room, the cheapest per byte first.

        None if it would not fit into the empty region.
        """
        start, end = self.start[item], self.end[item]
        lacking = self.size[item] - self.free[region, start:end]
        if lacking.max() <= 0:
            return []
        alive = (self.region == region) & (self.start < end) & (self.end > start)
        candidates = np.flatnonzero(alive)
        low = np.maximum(self.start[candidates] - start, 0)
        high = np.minimum(self.end[candidates] - start, end - start)
        size = self.size[candidates]
        # What it costs at least; where they really go shows when all are out.
        loss = self.cost[candidates, region + 1] - self.cost[candidates, region]
        chosen: list[int] = []
        while lacking.max() > 0:
            times = np.concatenate(([0], np.cumsum(lacking > 0)))
            useful = (times[high] - times[low]) * size
            useful[np.isinf(loss)] = 0
            if not useful.any():
                return None
            best = int(np.argmin(np.where(useful > 0, loss / np.maximum(useful, 1), np.inf)))
            chosen.append(int(candidates[best]))
            loss[best] = np.inf
            lacking[low[best] : high[best]] -= size[best]
        return chosen

    def _first_with_room(self, item: int, regions: Sequence[int]) -> int:
        window = slice(self.start[item], self.end[item])
        size = self.size[item]
        for region in regions:
            if (item, region) not in self.barred and self.free[region, window].min() >= size:
                return region
        return self.nowhere

    def _move(self, item: int, region: int) -> None:
        window = slice(self.start[item], self.end[item])
        for changed, bytes_freed in ((self.region[item], 1), (region, -1)):
            if changed != self.nowhere:
                self.free[changed, window] += bytes_freed * self.size[item]
        self.region[item] = region
