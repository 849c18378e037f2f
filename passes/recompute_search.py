"""The cheapest runs within a number of bytes, from dynamic programming and greedy rewriting."""

from collections.abc import Sequence

from niwaki.passes.recompute_chain import chain_plans
from niwaki.passes.recompute_greedy import recompute_greedily
from niwaki.passes.recompute_problem import RecomputeProblem, Trace

GREEDY_STARTS = 4
"""Plans of the dynamic program that greedy rewriting goes on from."""


def cheapest_runs(problem: RecomputeProblem, runs: Sequence[int], budget: int) -> Trace:
    """`runs` with repetitions that keep at most `budget` bytes live, at the least cost found.

    If nothing meets the budget, what needs the fewest bytes.
    """
    best = recompute_greedily(problem, runs, budget)
    plans = [Trace(problem, plan) for plan in chain_plans(problem, runs)]
    for plan in plans:
        best = min(best, plan, key=lambda trace: _rank(trace, budget))
    for plan in _starts(plans, budget):
        if best.peak > budget or plan.cost < best.cost:
            candidate = recompute_greedily(problem, plan.runs, budget)
            best = min(best, candidate, key=lambda trace: _rank(trace, budget))
    return best


def _rank(trace: Trace, budget: int) -> tuple[int, int]:
    return (max(trace.peak - budget, 0), trace.cost)


def _starts(plans: Sequence[Trace], budget: int) -> list[Trace]:
    """A few of `plans` that need more than `budget`, evenly from the dearest to the cheapest."""
    above = sorted((p for p in plans if p.peak > budget), key=lambda p: p.peak)
    count = min(GREEDY_STARTS, len(above))
    return [above[i * len(above) // count] for i in range(count)]
