"""Greedy recomputation: shortens the life of one value after the other where it costs least."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

import numpy as np

from niwaki.passes.recomputation.problem import Ints, RecomputeProblem, Trace, lean_trace

Segment: TypeAlias = tuple[int, tuple[int, ...]]
"""A run, and the nodes to run again just before it."""

MAX_SEGMENT = 64
"""Most nodes that one rewrite runs again."""
TRIED, MEASURED = 48, 6
"""Candidates of each step whose real effect is measured at most, and useful ones that suffice."""
NEGLIGIBLE = 64
"""Values so many times smaller than the largest idle one are kept over the peak where needed."""
WEIGHED = 160
"""Idle values, the largest ones, that each step looks at."""


def rewrites(trace: Trace, budget: int) -> Iterator[Trace]:
    """`trace` and what greedy steps make of it, until at most `budget` bytes are live.

    Each step looks at the run where most bytes are live. A value that lies idle there may be made
    again just before its next read, with as many of its ancestors as are not worth being kept.
    Of the candidates with the best ratio of bytes to cost, the one is taken that removes most
    bytes above the budget, over all runs, for its cost. Ends early if no step removes any.
    """
    step: Trace | None = trace
    while step is not None:
        yield step
        step = best_rewrite(step, budget) if step.peak > budget else None


def best_rewrite(trace: Trace, budget: int) -> Trace | None:
    """The best single step; None if no step takes bytes above the budget away."""
    excess = _excess(trace, budget)
    best, best_ratio, useful = None, 0.0, 0
    for segment in Candidates(trace, int(np.argmax(trace.profile))).segments()[:TRIED]:
        new = with_segment(trace, segment)
        gain = excess - _excess(new, budget)
        if gain <= 0:
            continue
        useful += 1
        extra = max(new.cost - trace.cost, 1)
        if gain / extra > best_ratio:
            best, best_ratio = new, gain / extra
        if useful == MEASURED:
            break
    return best


def with_segment(trace: Trace, segment: Segment) -> Trace:
    """`trace` with `segment`, without what nothing reads then."""
    position, nodes = segment
    return lean_trace(trace.problem, np.insert(trace.runs, position, nodes))


def _excess(trace: Trace, budget: int) -> int:
    return int(np.maximum(trace.profile - budget, 0).sum())


class Candidates:
    """What could be made again because it lies idle at one run of a trace, the peak."""

    def __init__(self, trace: Trace, position: int) -> None:
        self.trace = trace
        self.problem: RecomputeProblem = trace.problem
        self.position = position
        runs = trace.runs.tolist()
        self.first_run = {node: i for i, node in reversed(list(enumerate(runs)))}
        self.last_run = {node: i for i, node in enumerate(runs)}
        self.next_read = np.full(len(trace.made), len(runs), np.int64)
        """The first read of each value at the peak or behind it."""
        later = trace.read_by >= self.position
        self.next_read[trace.read[later][::-1]] = trace.read_by[later][::-1]

    def segments(self) -> list[Segment]:
        """(run before which to insert, nodes to run there), best bytes per cost first."""
        rated: list[tuple[float, Segment]] = []
        idle = self._idle().tolist()
        self.largest = max(map(self._size, idle), default=0)
        for value in idle:
            position = int(self.next_read[value])
            for nodes in self._growing(self._maker(value), position):
                saved = self._saved(nodes, position)
                if saved > 0:
                    rating = -saved / max(self.problem.cost(nodes), 1)
                    inserted = tuple(sorted(nodes, key=self.first_run.__getitem__))
                    rated.append((rating, (position, inserted)))
        rated.sort(key=lambda item: item[0])
        return [segment for _, segment in rated]

    def _idle(self) -> Ints:
        """Values that were made before the peak and are read only behind it, largest first."""
        trace = self.trace
        idle = np.flatnonzero(
            (trace.made >= 0)
            & (trace.made < self.position)
            & (self.next_read > self.position)
            & (self.next_read < len(trace.runs))
        )
        return idle[np.argsort(-trace.sizes[idle], kind="stable")][:WEIGHED]

    def _growing(self, maker: int, position: int) -> Iterator[list[int]]:
        """Nodes that run `maker` again before run `position`.

        First that node alone, then with one node after the other that makes the largest value
        which would have to be kept for it over the peak.
        """
        nodes: list[int] = []
        further: int | None = maker if self._may_run(maker, position) else None
        while further is not None and len(nodes) < MAX_SEGMENT:
            nodes.append(further)
            yield list(nodes)
            further = self._further(nodes, position)

    def _further(self, nodes: Sequence[int], position: int) -> int | None:
        extended = self._extended(nodes, position)
        for value in sorted(extended, key=self._size, reverse=True):
            if self._size(value) * NEGLIGIBLE < self.largest:
                break
            maker = self._maker(value)
            if maker >= 0 and self._may_run(maker, position):
                return maker
        return None

    def _may_run(self, node: int, position: int) -> bool:
        trace, problem = self.trace, self.problem
        return (
            problem.repeatable[node]
            and all(self.last_run.get(o, position) >= position for o in problem.deadlines[node])
            and all(
                trace.last[v] > trace.made[v]
                for v in (trace.latest(b, position) for b in problem.schedule.nodes[node].reads)
            )
        )

    def _maker(self, value: int) -> int:
        """The node that made `value`; -1 if it was there from the start."""
        made = int(self.trace.made[value])
        return -1 if made < 0 else int(self.trace.runs[made])

    def _size(self, value: int) -> int:
        return int(self.trace.sizes[value])

    def _extended(self, nodes: Iterable[int], position: int) -> list[int]:
        """Values that live past the peak only because `nodes` run again at `position`."""
        made, read = _buffers(self.problem, nodes)
        latest = (self.trace.latest(buffer, position) for buffer in read if buffer not in made)
        return [value for value in latest if self.trace.last[value] < self.position]

    def _saved(self, nodes: Sequence[int], position: int) -> int:
        """Bytes that are no longer live at the peak if `nodes` run again at `position`."""
        trace = self.trace
        made, _ = _buffers(self.problem, nodes)
        saved = -sum(int(trace.sizes[value]) for value in self._extended(nodes, position))
        for buffer in made:
            value = trace.latest(buffer, position)
            if (
                trace.made[value] < self.position < trace.last[value]
                and self.next_read[value] >= position
            ):
                saved += int(trace.sizes[value])
        return saved


def _buffers(
    problem: RecomputeProblem, nodes: Iterable[int]
) -> tuple[dict[int, None], dict[int, None]]:
    """What `nodes` write and read."""
    operations = [problem.schedule.nodes[node] for node in nodes]
    return (
        dict.fromkeys(b for operation in operations for b in operation.writes),
        dict.fromkeys(b for operation in operations for b in operation.reads),
    )
