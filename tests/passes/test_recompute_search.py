"""Recomputation on plain data: valid runs, budgets met, near the exact optimum."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pytest

from niwaki.passes.orders.problem import Node, live_bytes, read_counts
from niwaki.passes.recomputation.exchange import keeping_more
from niwaki.passes.recomputation.greedy import rewrites
from niwaki.passes.recomputation.problem import RecomputeProblem, Trace, check_runs, lean_trace
from niwaki.passes.recomputation.search import cheapest_runs, cheapest_within, frontier
from tests.passes.test_exact_order import random_problem
from tests.recompute_problems import (
    least_budget,
    least_cost,
    random_chain,
    random_graph,
    source_order,
    training_chain,
)

Maker: TypeAlias = Callable[[np.random.Generator, int], RecomputeProblem]

MAKERS: list[Maker] = [random_chain, random_graph]


@pytest.mark.parametrize("seed", range(6))
def test_chains_cost_what_exhaustive_search_finds_at_every_budget(seed: int) -> None:
    problem = random_chain(np.random.default_rng(seed), 5)
    base = Trace(problem, source_order(problem))
    found = frontier(base)
    for budget in range(least_budget(problem), base.peak + 1):
        trace = cheapest_within(found, budget)
        check_runs(problem, trace.runs.tolist())
        assert trace.peak <= budget
        assert trace.cost == least_cost(problem, budget)


def test_graphs_meet_every_budget_near_the_optimum_of_exhaustive_search() -> None:
    ratios: list[float] = []
    for seed in range(8):
        problem = random_graph(np.random.default_rng(seed), 6)
        base = Trace(problem, source_order(problem))
        found, least = frontier(base), least_budget(problem)
        for budget in {least, (least + base.peak) // 2, (least + 3 * base.peak) // 4}:
            trace, optimum = cheapest_within(found, budget), least_cost(problem, budget)
            check_runs(problem, trace.runs.tolist())
            assert trace.peak <= budget
            assert optimum is not None
            assert trace.cost >= optimum
            ratios.append(trace.cost / optimum)
    assert np.mean(ratios) <= 1.005
    assert max(ratios) <= 1.02


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("layers", [12, 30])
def test_more_budget_never_costs_more(make: Maker, layers: int) -> None:
    problem = make(np.random.default_rng(layers), layers)
    base = Trace(problem, source_order(problem))
    assert base.peak == live_bytes(problem.schedule, source_order(problem)).peak
    found = frontier(base)
    assert found[0] is base
    assert found[-1].peak < 0.8 * base.peak
    for dearer, cheaper in zip(found[1:], found[:-1], strict=True):
        check_runs(problem, dearer.runs.tolist())
        assert dearer.peak < cheaper.peak
        assert dearer.cost > cheaper.cost


@pytest.mark.parametrize("seed", range(20))
def test_bytes_with_memory_shared_in_place(seed: int) -> None:
    schedule = random_problem(np.random.default_rng(seed), 12)
    # Unlike live_bytes, a trace ignores what nothing reads.
    unread = [b for b, count in enumerate(read_counts(schedule)) if not count]
    end = Node(tuple(range(12)), tuple(unread))
    schedule = replace(schedule, nodes=(*schedule.nodes, end))
    problem = RecomputeProblem(schedule, (1,) * 13, (False,) * 13, ((),) * 13)
    expected = live_bytes(schedule, range(13)).profile
    assert tuple(Trace(problem, range(13)).profile.tolist()) == expected


def test_what_a_budget_needs_not_repeat_is_kept() -> None:
    problem = training_chain([3, 4, 5, 6], [1, 1, 1, 1])
    order = source_order(problem)
    base = Trace(problem, order)
    *_, repeated = rewrites(base, base.peak - 5)
    assert repeated.cost > base.cost
    assert keeping_more(repeated, base.peak).runs.tolist() == order
    assert keeping_more(repeated, repeated.peak).cost <= repeated.cost


def test_a_long_chain_needs_about_its_square_root() -> None:
    problem = training_chain([10] * 36, [5] * 36)
    base = Trace(problem, source_order(problem))
    trace = cheapest_runs(problem, source_order(problem), base.peak // 4)
    assert trace.peak <= base.peak // 4
    assert trace.cost <= base.cost + 2 * 36 * 5


def test_a_budget_that_is_kept_anyway_changes_nothing() -> None:
    problem = training_chain([3, 4, 5], [1, 1, 1])
    order = source_order(problem)
    assert cheapest_runs(problem, order, Trace(problem, order).peak).runs.tolist() == order


def test_invalid_runs_are_refused() -> None:
    problem = training_chain([3, 4, 5], [1, 1, 1])
    order = source_order(problem)
    with pytest.raises(ValueError, match="must run"):
        check_runs(problem, order[:-1])
    with pytest.raises(ValueError, match="must not run again"):
        check_runs(problem, [*order, order[-1]])
    with pytest.raises(ValueError, match="before a predecessor"):
        check_runs(problem, [1, 0, *order[2:]])


def test_dead_runs_go() -> None:
    problem = training_chain([3, 4, 5], [1, 1, 1])
    order = source_order(problem)
    assert lean_trace(problem, [0, *order]).runs.tolist() == order
