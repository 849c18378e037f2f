"""Optimal recomputation of chains by dynamic programming over stages and bytes.

The forward runs are cut where one value alone leads on. Each stage between two cuts has a section
of the backward runs. As in Rotor (Beaumont et al. 2019, "Optimal checkpointing for heterogeneous
chains"), the program either runs a stage keeping what its section needs and goes on behind it, or
runs several stages keeping only the value behind them, finishes what comes after, and starts
again. What a stage keeps is one of several choices that the greedy search finds within it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.orders.problem import Node
from niwaki.passes.recomputation.greedy import best_rewrite
from niwaki.passes.recomputation.problem import RecomputeProblem, Trace, Value, lean_trace

SLOTS = 256
"""Steps in which the dynamic program counts memory."""
MAX_STAGES = 120
"""Its time grows with the third power of the stages: neighbours are joined beyond."""


@dataclass(frozen=True)
class Choice:
    """What a stage keeps for its section, and what that takes beside the stage's input."""

    forward: tuple[int, ...]
    backward: tuple[int, ...]
    """Runs of the section, with what it makes again."""
    extra: int
    """Cost of what it makes again."""
    held: int
    """Bytes kept between stage and section, its output included."""
    forward_peak: int
    backward_peak: int


@dataclass(frozen=True)
class Stage:
    """Forward runs between two cuts, and the section of the backward runs that belongs to them."""

    choices: tuple[Choice, ...]
    cost: int
    output: int
    """Bytes of the value that leads on."""
    gradient: int
    """Bytes of other values that live when the section begins."""


class Chain:
    """The plans of a chain of stages for every number of bytes up to `capacity`."""

    def __init__(self, stages: Sequence[Stage], capacity: int) -> None:
        self.stages = stages
        self.slot = max(1, -(-capacity // SLOTS))
        count = len(stages)
        self.best: dict[tuple[int, int], NDArray[np.float64]] = {}
        """(first, last stage) -> least cost to run them and their sections, by slots."""
        self.decision: dict[tuple[int, int], NDArray[np.int64]] = {}
        """As `best`: c >= 0 for choice c of the first stage, -n for running n stages first."""
        for last in range(count):
            for first in range(last, -1, -1):
                self._solve(first, last)

    def _slots(self, size: int) -> int:
        return round(size / self.slot)

    def _solve(self, first: int, last: int) -> None:
        stage, gradient = self.stages[first], self.stages[last].gradient
        best = np.full(SLOTS + 1, np.inf)
        decision = np.zeros(SLOTS + 1, np.int64)

        def offer(costs: NDArray[np.float64], need: int, number: int) -> None:
            start = min(self._slots(need), SLOTS + 1)
            better = costs < best
            better[:start] = False
            best[better] = costs[better]
            decision[better] = number

        for number, choice in enumerate(stage.choices):
            need = max(gradient + choice.forward_peak, choice.backward_peak)
            rest = (
                np.zeros(SLOTS + 1) if first == last
                else _later(self.best[first + 1, last], self._slots(choice.held))
            )  # fmt: skip
            offer(rest + (stage.cost + choice.extra), need, number)
        cost, need, carried = 0, 0, 0
        for split in range(first + 1, last + 1):
            before = self.stages[split - 1]
            cost += before.cost
            need = max(need, before.choices[-1].forward_peak + carried)
            carried = before.output
            rest = _later(self.best[split, last], self._slots(carried))
            offer(rest + self.best[first, split - 1] + cost, need + gradient, first - split)
        self.best[first, last] = best
        self.decision[first, last] = decision

    def runs(self, slots: int) -> list[int] | None:
        """The cheapest runs within `slots`; None if there are none."""
        if not np.isfinite(self.best[0, len(self.stages) - 1][slots]):
            return None
        runs: list[int] = []
        work: list[tuple[str, tuple[int, ...]]] = [("solve", (0, len(self.stages) - 1, slots))]
        while work:
            kind, what = work.pop()
            if kind == "run":
                runs += what
                continue
            first, last, left = what
            stage, number = self.stages[first], int(self.decision[first, last][left])
            if number >= 0:
                choice = stage.choices[number]
                runs += choice.forward
                work.append(("run", choice.backward))
                if first < last:
                    work.append(("solve", (first + 1, last, left - self._slots(choice.held))))
                continue
            split = first - number
            for passed in self.stages[first:split]:
                runs += passed.choices[0].forward
            carried = self._slots(self.stages[split - 1].output)
            work.append(("solve", (first, split - 1, left)))
            work.append(("solve", (split, last, left - carried)))
        return runs


def _later(costs: NDArray[np.float64], taken: int) -> NDArray[np.float64]:
    """`costs` with `taken` slots less."""
    if taken > SLOTS:
        return np.full(SLOTS + 1, np.inf)
    return np.concatenate([np.full(taken, np.inf), costs[: SLOTS + 1 - taken]])


def chain_plans(problem: RecomputeProblem, runs: Sequence[int]) -> list[Trace]:
    """Plans from most to least memory that dynamic programming finds for `runs`.

    Empty if `runs` has no cuts.
    """
    trace = Trace(problem, runs)
    stages = _stages(trace)
    if len(stages) < 2:
        return []
    chain = Chain(stages, trace.peak)
    plans: list[Trace] = []
    previous = np.inf
    for slots in range(SLOTS, -1, -1):
        cost = chain.best[0, len(stages) - 1][slots]
        if not np.isfinite(cost):
            break
        if cost == previous:
            continue
        previous = cost
        found = chain.runs(slots)
        assert found is not None
        plans.append(lean_trace(problem, _repeatable_only(problem, found)))
    return plans


def _repeatable_only(problem: RecomputeProblem, runs: Sequence[int]) -> list[int]:
    """`runs` less the repetitions that must not be: their readers get the earlier value."""
    seen: set[int] = set()
    kept: list[int] = []
    for node in runs:
        repeatable = problem.repeatable[node] and seen.isdisjoint(problem.deadlines[node])
        if node not in seen or repeatable:
            kept.append(node)
        seen.add(node)
    return kept


# --- cutting


def _stages(trace: Trace) -> list[Stage]:
    turn = _turning_point(trace)
    cuts = _cuts(trace, turn)
    sections = _sections(trace, turn, cuts)
    if not sections:
        return []
    bounds = [-1, *(cut for cut, _ in sections[:-1]), turn]
    return [
        _stage(trace, turn, range(bounds[i] + 1, bounds[i + 1] + 1), section,
               bounds[i], bounds[i + 1])
        for i, (_, section) in enumerate(sections)
    ]  # fmt: skip


def _turning_point(trace: Trace) -> int:
    """The run behind which most bytes are held."""
    held = np.zeros(len(trace.runs), np.int64)
    np.add.at(held, np.maximum(trace.made, 0), trace.sizes)
    np.subtract.at(held, np.maximum(trace.last, 0), trace.sizes)
    return int(np.argmax(np.cumsum(held)))


def _cuts(trace: Trace, turn: int) -> list[int]:
    """Runs before `turn` behind which one value alone leads on to the runs up to `turn`."""
    leading = np.zeros(turn + 2, np.int64)
    for value in trace.values:
        reads = [r for r in value.reads if r <= turn]
        if reads:
            leading[value.made] += 1
            leading[reads[-1]] -= 1
    return [int(p) for p in np.flatnonzero(np.cumsum(leading)[:turn] == 1)]


def _leading_value(trace: Trace, cut: int, turn: int) -> int:
    """The value that leads over `cut`."""
    (found,) = (
        n for n, v in enumerate(trace.values)
        if v.made <= cut and any(cut < r <= turn for r in v.reads)
    )  # fmt: skip
    return found


def _sections(trace: Trace, turn: int, cuts: Sequence[int]) -> list[tuple[int, range]]:
    """(cut behind a stage, its section), stage by stage; cuts that cross sections are left out.

    A backward run may read values of its own stage and the value that leads into it.
    """
    bounds = list(cuts)
    if len(bounds) > MAX_STAGES:
        bounds = [bounds[i * len(bounds) // MAX_STAGES] for i in range(MAX_STAGES)]
    while bounds:
        conflict = _conflict(trace, turn, bounds)
        if isinstance(conflict, list):
            return conflict
        del bounds[conflict[0] : conflict[1]]
    return []


def _conflict(
    trace: Trace, turn: int, bounds: Sequence[int]
) -> list[tuple[int, range]] | tuple[int, int]:
    """The sections, or the range of `bounds` to leave out."""
    leading = {_leading_value(trace, cut, turn): i for i, cut in enumerate(bounds)}
    stage_of_run = np.searchsorted(bounds, range(turn + 1))
    current = len(bounds)
    starts = {current: turn + 1}
    for run in range(turn + 1, len(trace.runs)):
        low, high = 0, len(bounds)
        for number in trace.reads_of(run):
            value = trace.values[number]
            if value.made > turn:
                continue
            if number in leading:
                first, last = int(stage_of_run[value.made]), leading[number] + 1
            else:
                first = last = int(stage_of_run[value.made])
            low, high = max(low, first), min(high, last)
        if low > high:
            return (high, low)
        if low > current:
            return (current, low)
        while current > high:
            current -= 1
            starts[current] = run
    for stage in range(current):
        starts[stage] = len(trace.runs)
    ends = {i: starts.get(i - 1, len(trace.runs)) for i in range(len(bounds) + 1)}
    return [
        (bounds[i] if i < len(bounds) else turn, range(starts[i], ends[i]))
        for i in range(len(bounds) + 1)
    ]


def _stage(
    trace: Trace, turn: int, forward: range, section: range, before: int, behind: int
) -> Stage:
    problem = trace.problem
    entering = None if before < 0 else _leading_value(trace, before, turn)
    leaving = None if behind == turn else _leading_value(trace, behind, turn)
    outside = [
        v for v in trace.values
        if v.made > turn and v.made < section.start and v.last >= section.start
    ]  # fmt: skip
    bystanders = sum(
        trace.size(v) for v in outside if v.last >= section.stop and not _read_in(v, section)
    )
    kept_on = [
        v.buffer for v in trace.values
        if v.last >= section.stop and (v.made in section or (v in outside and _read_in(v, section)))
    ]  # fmt: skip
    sizes = list(problem.schedule.sizes)
    if entering is not None:
        sizes[trace.values[entering].buffer] = 0
    output = 0 if leaving is None else trace.size(trace.values[leaving])
    leads = () if leaving is None else (trace.values[leaving].buffer,)
    huge = sum(sizes) + 1
    gap, end = len(problem.costs), len(problem.costs) + 1
    nodes = (
        *problem.schedule.nodes,
        Node(reads=leads, workspace=huge),
        Node(reads=tuple(dict.fromkeys(kept_on))),
    )
    local = RecomputeProblem(
        replace(problem.schedule, nodes=nodes, sizes=tuple(sizes)),
        (*problem.costs, 0, 0),
        (*problem.repeatable, False, False),
        (*problem.deadlines, (), ()),
    )
    forward_runs = trace.runs[forward.start : forward.stop].tolist()
    backward_runs = trace.runs[section.start : section.stop].tolist()
    state: Trace | None = Trace(local, [*forward_runs, gap, *backward_runs, end])
    choices: list[Choice] = []
    base = problem.cost(forward_runs) + problem.cost(backward_runs)
    while state is not None:
        choices.append(_choice(state, gap, base, bystanders))
        state = best_rewrite(state, huge)
    return Stage(
        tuple(choices),
        sum(problem.costs[n] for n in forward_runs if problem.repeatable[n]),
        output,
        sum(trace.size(v) for v in outside),
    )


def _read_in(value: Value, section: range) -> bool:
    return any(r in section for r in value.reads)


def _choice(state: Trace, gap: int, base: int, bystanders: int) -> Choice:
    runs = state.runs.tolist()
    middle = runs.index(gap)
    given = sum(state.size(v) for v in state.values if v.made < 0 and v.reads)
    held = sum(state.size(v) for v in state.values if 0 <= v.made < middle <= v.last)
    return Choice(
        tuple(runs[:middle]),
        tuple(runs[middle + 1 : -1]),
        state.cost - base,
        held,
        int(state.profile[:middle].max(initial=given)) - given,
        int(state.profile[middle + 1 :].max(initial=given)) + bystanders,
    )
