"""Recomputation as plain data: runs of nodes, some more than once, and the bytes they keep live."""

from collections.abc import Sequence
from dataclasses import dataclass

from niwaki.passes.schedule_problem import ScheduleProblem, shared_pairs


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

    def cost(self, runs: Sequence[int]) -> int:
        """What `runs` take together."""
        return sum(self.costs[node] for node in runs)


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

    What is read before it is made is there from the start, made by run -1.
    """

    def __init__(self, problem: RecomputeProblem, runs: Sequence[int]) -> None:
        self.problem = problem
        self.runs = runs
        self.values: list[Value] = []
        self.read: list[list[int]] = []
        """Numbers of the values that each run reads."""
        self.made: list[list[int]] = []
        """Numbers of the values that each run makes."""
        latest: dict[int, int] = {}
        for number, node in enumerate(runs):
            operation = problem.schedule.nodes[node]
            for buffer in operation.reads:
                if buffer not in latest:
                    latest[buffer] = len(self.values)
                    self.values.append(Value(buffer, -1, []))
            self.read.append([latest[buffer] for buffer in operation.reads])
            for value in self.read[-1]:
                self.values[value].reads.append(number)
            self.made.append([])
            for buffer in operation.writes:
                latest[buffer] = len(self.values)
                self.made[-1].append(len(self.values))
                self.values.append(Value(buffer, number, []))
        self.versions: dict[int, list[int]] = {}
        """Buffer -> numbers of its values, in the order in which they are made."""
        for number, value in enumerate(self.values):
            self.versions.setdefault(value.buffer, []).append(number)
        self.profile = self._profile()

    @property
    def peak(self) -> int:
        """The most bytes live at one run."""
        return max(self.profile, default=0)

    @property
    def cost(self) -> int:
        """What the runs take."""
        return self.problem.cost(self.runs)

    def latest(self, buffer: int, before: int) -> int:
        """The value of `buffer` that run `before` would read."""
        return next(
            number
            for number in reversed(self.versions[buffer])
            if self.values[number].made < before
        )

    def size(self, value: Value) -> int:
        """Its bytes."""
        return self.problem.schedule.sizes[value.buffer]

    def _profile(self) -> list[int]:
        """Bytes live while each run works, as `niwaki.passes.schedule_problem.live_bytes`."""
        sizes = self.problem.schedule.sizes
        profile: list[int] = []
        live = sum(self.size(v) for v in self.values if v.made < 0)
        for number, node in enumerate(self.runs):
            operation = self.problem.schedule.nodes[node]
            dying = {
                self.values[v].buffer: v for v in self.read[number] if self.values[v].last == number
            }
            made = [v.buffer for v in map(self.values.__getitem__, self.made[number]) if v.reads]
            pairs = shared_pairs(operation, list(dying))
            shared = [a for a, b in pairs.items() if b in made]
            live += sum(sizes[b] for b in made) - sum(sizes[a] for a in shared)
            profile.append(live + operation.workspace)
            live -= sum(sizes[b] for b in dying if b not in shared)
        return profile


def without_dead_runs(problem: RecomputeProblem, runs: Sequence[int]) -> list[int]:
    """`runs` less those of repeatable nodes whose values nothing reads."""
    needed: set[int] = set()
    """Buffers that a later run reads before they are written again."""
    kept: list[int] = []
    for node in reversed(runs):
        operation = problem.schedule.nodes[node]
        if not problem.repeatable[node] or not needed.isdisjoint(operation.writes):
            needed.difference_update(operation.writes)
            needed.update(operation.reads)
            kept.append(node)
    return kept[::-1]


def check_runs(problem: RecomputeProblem, runs: Sequence[int]) -> None:
    """ValueError unless `runs` respects data flow and deadlines, and runs every node."""
    seen: set[int] = set()
    for node in runs:
        if node in seen and not problem.repeatable[node]:
            raise ValueError(f"node {node} must not run again")
        if node in seen and any(overwriter in seen for overwriter in problem.deadlines[node]):
            raise ValueError(f"node {node} runs again behind what overwrites its operand")
        if any(p not in seen for p in problem.schedule.nodes[node].predecessors):
            raise ValueError(f"node {node} runs before a predecessor")
        seen.add(node)
    if len(seen) != len(problem.schedule.nodes):
        raise ValueError("every node must run")
