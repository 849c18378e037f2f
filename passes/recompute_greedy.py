"""Greedy recomputation: shortens the life of one value after the other where it costs least."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from niwaki.passes.recompute_problem import RecomputeProblem, Trace, without_dead_runs

MAX_SEGMENT = 64
"""Most nodes that one rewrite runs again."""
MEASURED = 6
"""Candidates of each step whose real effect is measured."""


def recompute_greedily(problem: RecomputeProblem, runs: Sequence[int], budget: int) -> Trace:
    """`runs` with repetitions that keep at most `budget` bytes live, or as few as it finds.

    Each step looks at the run where most bytes are live. A value that lies idle there may be made
    again just before its next read, with as many of its ancestors as are not worth being kept.
    Of the candidates with the best ratio of bytes to cost, the one is taken that removes most
    bytes above the budget, over all runs, for its cost.
    """
    trace = Trace(problem, list(runs))
    while trace.peak > budget:
        best = best_rewrite(trace, budget)
        if best is None:
            break
        trace = best
    return trace


def best_rewrite(trace: Trace, budget: int) -> Trace | None:
    """The best single step; None if no step takes bytes above the budget away."""
    problem = trace.problem
    excess, cost = _excess(trace, budget), problem.cost(trace.runs)
    best, best_ratio = None, 0.0
    for position, segment in _candidates(trace)[:MEASURED]:
        runs = [*trace.runs[:position], *segment, *trace.runs[position:]]
        new = Trace(problem, without_dead_runs(problem, runs))
        gain = excess - _excess(new, budget)
        extra = max(problem.cost(new.runs) - cost, 1)
        if gain > 0 and (gain / extra > best_ratio or best is None):
            best, best_ratio = new, gain / extra
    return best


def _excess(trace: Trace, budget: int) -> int:
    return sum(bytes_ - budget for bytes_ in trace.profile if bytes_ > budget)


def _candidates(trace: Trace) -> list[tuple[int, list[int]]]:
    """(run before which to insert, nodes to run there), best bytes per cost at the peak first."""
    peak = trace.profile.index(trace.peak)
    first, last = _first_and_last_runs(trace.runs)
    rated: list[tuple[float, int, list[int]]] = []
    for number, value in enumerate(trace.values):
        if not 0 <= value.made < peak < value.last or peak in value.reads:
            continue
        position = next(r for r in value.reads if r > peak)
        for nodes in _segments(trace, number, position, peak, last):
            saved = _saved(trace, nodes, position, peak)
            if saved > 0:
                segment = sorted(nodes, key=first.__getitem__)
                rated.append((-saved / max(trace.problem.cost(nodes), 1), position, segment))
    rated.sort(key=lambda item: item[0])
    return [(position, segment) for _, position, segment in rated]


def _first_and_last_runs(runs: Sequence[int]) -> tuple[dict[int, int], dict[int, int]]:
    last = {node: number for number, node in enumerate(runs)}
    first = {node: number for number, node in reversed(list(enumerate(runs)))}
    return first, last


def _segments(
    trace: Trace, number: int, position: int, peak: int, last_run: Mapping[int, int]
) -> Iterator[list[int]]:
    """Nodes that make value `number` anew before run `position`.

    First its producer alone, then with the producers of what would have to be kept for it over
    the peak.
    """
    problem = trace.problem
    nodes: dict[int, None] = {}
    pending = [number]
    while pending and len(nodes) + len(pending) <= MAX_SEGMENT:
        for made in (trace.values[v].made for v in pending):
            if made < 0 or not _may_run_again(problem, trace.runs[made], position, last_run):
                return
            nodes[trace.runs[made]] = None
        yield list(nodes)
        pending = _extended(trace, nodes, position, peak)


def _may_run_again(
    problem: RecomputeProblem, node: int, position: int, last_run: Mapping[int, int]
) -> bool:
    return problem.repeatable[node] and all(
        last_run.get(overwriter, position) >= position for overwriter in problem.deadlines[node]
    )


def _extended(trace: Trace, nodes: Iterable[int], position: int, peak: int) -> list[int]:
    """Values that live past the peak only because `nodes` run again at `position`."""
    made, read = _buffers(trace.problem, nodes)
    latest = (trace.latest(buffer, position) for buffer in read if buffer not in made)
    return [v for v in latest if trace.values[v].last < peak]


def _saved(trace: Trace, nodes: Iterable[int], position: int, peak: int) -> int:
    """Bytes that are no longer live at the peak if `nodes` run again at `position`."""
    made, _ = _buffers(trace.problem, nodes)
    saved = -sum(trace.size(trace.values[v]) for v in _extended(trace, nodes, position, peak))
    for buffer in made:
        value = trace.values[trace.latest(buffer, position)]
        needed = any(peak <= r < position for r in value.reads)
        if value.made < peak < value.last and not needed:
            saved += trace.size(value)
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
