"""Recomputation on plain data: valid runs, budgets met, near the exact optimum."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from niwaki.passes.recompute_problem import RecomputeProblem, Trace, check_runs, without_dead_runs
from niwaki.passes.recompute_search import cheapest_runs
from niwaki.passes.schedule_problem import live_bytes
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


@pytest.mark.parametrize("make", MAKERS)
def test_near_the_optimum_of_exhaustive_search(make: Maker) -> None:
    ratios: list[float] = []
    for seed in range(8):
        problem = make(np.random.default_rng(seed), 5)
        order = source_order(problem)
        least, peak = least_budget(problem), Trace(problem, order).peak
        for budget in {least, (least + peak) // 2, (least + 3 * peak) // 4}:
            found, optimum = cheapest_runs(problem, order, budget), least_cost(problem, budget)
            check_runs(problem, found.runs)
            assert optimum is not None
            if found.peak <= budget:
                assert found.cost >= optimum
                ratios.append(found.cost / optimum)
    assert len(ratios) >= 20
    assert np.mean(ratios) <= 1.02
    assert max(ratios) <= 1.15


@pytest.mark.parametrize("make", MAKERS)
def test_runs_are_valid_and_never_above_the_peak(make: Maker) -> None:
    for seed in range(10):
        problem = make(np.random.default_rng(seed), 12)
        order = source_order(problem)
        base = Trace(problem, order)
        assert base.peak == live_bytes(problem.schedule, order).peak
        for part in (0.9, 0.7, 0.5, 0.2):
            found = cheapest_runs(problem, order, int(part * base.peak))
            check_runs(problem, found.runs)
            assert found.peak <= base.peak


def test_a_long_chain_needs_about_its_square_root() -> None:
    problem = training_chain([10] * 36, [5] * 36)
    order = source_order(problem)
    peak = Trace(problem, order).peak
    costs: list[int] = []
    for budget in (peak, peak // 2, peak // 3, peak // 4):
        found = cheapest_runs(problem, order, budget)
        assert found.peak <= budget
        costs.append(found.cost)
    assert costs == sorted(costs)
    assert costs[-1] <= costs[0] + 2 * 36 * 5


def test_a_budget_that_is_kept_anyway_changes_nothing() -> None:
    problem = training_chain([3, 4, 5], [1, 1, 1])
    order = source_order(problem)
    assert cheapest_runs(problem, order, Trace(problem, order).peak).runs == order


def test_invalid_runs_are_refused() -> None:
    problem = training_chain([3, 4, 5], [1, 1, 1])
    order = source_order(problem)
    with pytest.raises(ValueError, match="every node must run"):
        check_runs(problem, order[:-1])
    with pytest.raises(ValueError, match="must not run again"):
        check_runs(problem, [*order, order[-1]])
    with pytest.raises(ValueError, match="before a predecessor"):
        check_runs(problem, [1, 0, *order[2:]])


def test_dead_runs_go() -> None:
    problem = training_chain([3, 4, 5], [1, 1, 1])
    order = source_order(problem)
    assert without_dead_runs(problem, [0, *order]) == order
