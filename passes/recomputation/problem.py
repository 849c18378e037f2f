"""Recomputation as plain data: runs of nodes, some more than once, and the bytes they keep live."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.orders.problem import ScheduleProblem

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class RecomputeProblem:
    """An order problem whose nodes have costs and may run again.

    A solution is a sequence of runs, node numbers that may repeat. Each run of a node makes new
    values in its buffers, and a read gets the latest.
    """

    schedule: ScheduleProblem
    costs: tuple[int, ...]
    """What one run of each node takes."""
    repeatable: tuple[bool, ...]
    """Whether a node does nothing but write its buffers."""
    deadlines: tuple[tuple[int, ...], ...]
    """For each node, those that overwrite what it reads: it cannot run again behind them."""

    def cost(self, runs: Iterable[int]) -> int:
        """What `runs` take together."""
        return sum(self.costs[node] for node in runs)

    @cached_property
    def tables(self) -> "Tables":
        """The same as arrays."""
        return Tables(self)


class _Lists:
    """Lists of numbers, one of each node, behind one another."""

    def __init__(self, lists: Sequence[Sequence[int]]) -> None:
        self.counts = np.array([len(items) for items in lists], np.int64)
        self.starts = np.cumsum(self.counts) - self.counts
        self.items = np.array([item for items in lists for item in items], np.int64)

    def of(self, runs: Ints) -> tuple[Ints, Ints, Ints]:
        """Run and item of each entry of the lists of `runs`, and where each run's list starts."""
        counts = self.counts[runs]
        starts = np.cumsum(counts) - counts
        positions = np.repeat(np.arange(len(runs)), counts)
        shift = np.repeat(self.starts[runs] - starts, counts)
        return positions, self.items[np.arange(len(positions)) + shift], starts


class Tables:
    """A problem as arrays."""

    def __init__(self, problem: RecomputeProblem) -> None:
        nodes = problem.schedule.nodes
        self.sizes = np.array(problem.schedule.sizes, np.int64)
        self.costs = np.array(problem.costs, np.int64)
        self.repeatable = np.array(problem.repeatable, np.bool_)
        self.workspaces = np.array([node.workspace for node in nodes], np.int64)
        self.reads = _Lists([node.reads for node in nodes])
        self.writes = _Lists([node.writes for node in nodes])
        most = max((len(node.in_place) for node in nodes), default=0)
        self.pairs = np.full((most, 2, len(nodes)), -1, np.int64)
        """Pairs that may share memory, by rank: places in the lists of reads and writes."""
        for number, node in enumerate(nodes):
            for rank, (read, written) in enumerate(node.in_place):
                self.pairs[rank, 0, number] = node.reads.index(read)
                self.pairs[rank, 1, number] = node.writes.index(written)


@dataclass
class Value:
    """What one run leaves in a buffer."""

    buffer: int
    made: int
    """Number of the run."""
    reads: list[int]
    """Numbers of the runs that read it, ascending."""

    @property
    def last(self) -> int:
        """The last run that needs it."""
        return self.reads[-1] if self.reads else self.made


class Trace:
    """The values of a sequence of runs. A value that nothing reads takes no memory.

    What is read before it is made is there from the start, made by run -1. Values are sorted by
    buffer, then by the run that makes them.
    """

    def __init__(self, problem: RecomputeProblem, runs: Sequence[int] | Ints) -> None:
        tables = problem.tables
        self.problem = problem
        self.runs: Ints = np.asarray(runs, np.int64)
        self._stride = len(runs) + 1
        self.read_by, read_buffer, read_start = tables.reads.of(self.runs)
        """The run of each read."""
        written_by, written_buffer, write_start = tables.writes.of(self.runs)
        written = written_buffer * self._stride + written_by + 1
        given = np.arange(len(tables.sizes)) * self._stride
        self._keys = np.sort(np.concatenate([given, written]))
        self.buffer, self.made = np.divmod(self._keys, self._stride)
        self.made -= 1
        self.read = self._version(read_buffer, self.read_by)
        """The value of each read."""
        self.last = self.made.copy()
        self.last[self.read] = self.read_by
        self.sizes = tables.sizes[self.buffer]
        self.profile = self._profile(read_start, np.searchsorted(self._keys, written), write_start)
        """Bytes live while each run works, as `niwaki.passes.orders.problem.live_bytes`."""

    @cached_property
    def peak(self) -> int:
        """The most bytes live at one run."""
        return int(self.profile.max(initial=0))

    @cached_property
    def cost(self) -> int:
        """What the runs take."""
        return int(self.problem.tables.costs[self.runs].sum())

    def latest(self, buffer: int, before: int) -> int:
        """The value of `buffer` that run `before` would read."""
        return int(np.searchsorted(self._keys, buffer * self._stride + before + 1)) - 1

    def reads_of(self, run: int) -> list[int]:
        """The values that `run` reads."""
        start, end = np.searchsorted(self.read_by, (run, run + 1))
        return self.read[start:end].tolist()

    @cached_property
    def values(self) -> list[Value]:
        """All values, those that nothing reads included."""
        values = [
            Value(buffer, made, [])
            for buffer, made in zip(self.buffer.tolist(), self.made.tolist(), strict=True)
        ]
        for value, run in zip(self.read.tolist(), self.read_by.tolist(), strict=True):
            values[value].reads.append(run)
        return values

    def size(self, value: Value) -> int:
        """Its bytes."""
        return self.problem.schedule.sizes[value.buffer]

    def _version(self, buffers: Ints, runs: Ints) -> Ints:
        return np.searchsorted(self._keys, buffers * self._stride + runs + 1) - 1

    def _profile(self, read_start: Ints, written: Ints, write_start: Ints) -> Ints:
        tables = self.problem.tables
        needed = self.last > self.made
        change = np.zeros(self._stride + 1, np.int64)
        np.add.at(change, np.maximum(self.made[needed], 0), self.sizes[needed])
        np.subtract.at(change, self.last[needed] + 1, self.sizes[needed])
        profile = np.cumsum(change)[: len(self.runs)] + tables.workspaces[self.runs]
        dying = self.last[self.read] == self.read_by
        open_ = needed[written]
        for read_place, write_place in tables.pairs[:, :, self.runs]:
            runs = np.flatnonzero(read_place >= 0)
            reads = read_start[runs] + read_place[runs]
            writes = write_start[runs] + write_place[runs]
            shared = dying[reads] & open_[writes]
            profile[runs[shared]] -= self.sizes[self.read[reads[shared]]]
            dying[reads[shared]] = False
            open_[writes[shared]] = False
        return profile


def lean_trace(problem: RecomputeProblem, runs: Sequence[int] | Ints) -> Trace:
    """The trace of `runs` less those of repeatable nodes whose values nothing reads."""
    while True:
        trace = Trace(problem, runs)
        useful = ~problem.tables.repeatable[trace.runs]
        useful[trace.made[(trace.last > trace.made) & (trace.made >= 0)]] = True
        if useful.all():
            return trace
        runs = trace.runs[useful]


def check_runs(problem: RecomputeProblem, runs: Sequence[int]) -> None:
    """ValueError unless `runs` respects data flow and deadlines, and has all effects once."""
    seen: set[int] = set()
    made: set[int] = set()
    effects = {node for node, again in enumerate(problem.repeatable) if not again}
    for node in runs:
        if node in seen and node in effects:
            raise ValueError(f"node {node} must not run again")
        if not seen.isdisjoint(problem.deadlines[node]):
            raise ValueError(f"node {node} runs behind what overwrites its operand")
        operation = problem.schedule.nodes[node]
        if not made.issuperset(operation.reads) or not effects.intersection(
            operation.predecessors
        ).issubset(seen):
            raise ValueError(f"node {node} runs before a predecessor")
        seen.add(node)
        made.update(operation.writes)
    if not effects.issubset(seen):
        raise ValueError("every node with an effect must run")
