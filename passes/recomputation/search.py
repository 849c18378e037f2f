"""The trade-off of memory against repeated work, from dynamic programming and greedy rewriting."""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice

from niwaki.passes.recomputation.chain import chain_plans
from niwaki.passes.recomputation.exchange import keeping_more, neighbours
from niwaki.passes.recomputation.greedy import rewrites
from niwaki.passes.recomputation.problem import RecomputeProblem, Trace

BUDGETS = 20
"""Into how many equal steps the greedy search divides the peak."""
SMALL = 64
"""Most runs of a problem that is searched thoroughly: with more starts, steps and exchanges."""
SMALL_BUDGETS, SMALL_STARTS, EXCHANGES = 100, 2, 3000


def cheapest_runs(problem: RecomputeProblem, runs: Sequence[int], budget: int) -> Trace:
    """`runs` with repetitions that keep at most `budget` bytes live, at the least cost found.

    If nothing meets the budget, what needs the fewest bytes. More budget never costs more.
    """
    base = Trace(problem, runs)
    if base.peak <= budget:
        return base
    return cheapest_within(_known_frontier(problem, tuple(base.runs.tolist())), budget)


@lru_cache(maxsize=8)
def _known_frontier(problem: RecomputeProblem, runs: tuple[int, ...]) -> list[Trace]:
    """`frontier`, searched once for all budgets that one problem is tried with."""
    return frontier(Trace(problem, runs))


def cheapest_within(found: Sequence[Trace], budget: int) -> Trace:
    """The first trace of a frontier that needs at most `budget` bytes, or its last one."""
    return next((trace for trace in found if trace.peak <= budget), found[-1])


def frontier(base: Trace) -> list[Trace]:
    """Traces from most to least bytes; each costs more than the one before, the first is `base`.

    All budgets share one search, so that the choice among what it finds is monotone.
    """
    plans = chain_plans(base.problem, base.runs.tolist())
    if len(base.runs) > SMALL:
        return _pareto([base, *plans, *_descent(base, base.peak, BUDGETS)])
    found = [base, *plans]
    for start in (base, *_spread(plans, SMALL_STARTS)):
        found += _descent(start, base.peak, SMALL_BUDGETS)
    return _exchanged(_pareto(found))


def _descent(start: Trace, peak: int, steps: int) -> list[Trace]:
    """What greedy rewriting meets on its way to ever smaller parts of `peak`."""
    found: list[Trace] = []
    state = start
    for step in reversed(range(steps)):
        budget = peak * step // steps
        if state.peak <= budget:
            continue
        found += rewrites(state, budget)
        state = found[-1]
        if state.peak > budget:
            break
        found.append(keeping_more(state, budget))
    return found


def _spread(plans: Sequence[Trace], count: int) -> list[Trace]:
    """`count` of `plans`, evenly from the cheapest on."""
    count = min(count, len(plans))
    return [plans[i * len(plans) // count] for i in range(count)]


def _exchanged(found: list[Trace]) -> list[Trace]:
    """`found`, better where single changes lead to anything better."""
    left, fresh = EXCHANGES, found
    while left and fresh:
        some = (other for trace in fresh for other in neighbours(trace))
        changed = list(islice(some, left))
        left -= len(changed)
        better = _pareto([*found, *changed])
        fresh = [trace for trace in better if trace not in found]
        found = better
    return found


def _pareto(traces: Iterable[Trace]) -> list[Trace]:
    kept: list[Trace] = []
    for trace in sorted(traces, key=lambda t: (t.cost, t.peak)):
        if not kept or trace.peak < kept[-1].peak:
            kept.append(trace)
    return kept
