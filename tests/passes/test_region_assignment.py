"""Buffers for regions: capacities are kept, and small problems come out as by trying all."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niwaki.passes.arenas.region_assignment import (
    Assignment,
    AssignmentProblem,
    RegionItem,
    assign_regions,
)

TIMES = 8


def problem(
    items: list[tuple[int, int, int, int]], capacities: tuple[int, ...], costs: tuple[float, ...]
) -> AssignmentProblem:
    """Items (size, start, end, traffic)."""
    return AssignmentProblem(tuple(RegionItem(*item) for item in items), costs, capacities)


def is_within(tried: Assignment, p: AssignmentProblem) -> bool:
    free = np.array([[capacity] * TIMES for capacity in p.capacities], np.int64)
    for item, region in zip(p.items, tried.regions, strict=True):
        if region is not None:
            free[region, item.start : item.end] -= item.size
    return bool(free.min() >= 0)


def badness(tried: Assignment, p: AssignmentProblem) -> tuple[int, float]:
    return tried.missing(p), tried.cost(p)


def best_of_all(p: AssignmentProblem) -> tuple[int, float]:
    choices = product((*range(len(p.costs)), None), repeat=len(p.items))
    return min(badness(a, p) for a in map(Assignment, choices) if is_within(a, p))


def row(size: int, start: int, life: int, traffic: int) -> tuple[int, int, int, int]:
    return size, start, min(start + life, TIMES), traffic


ITEM = st.builds(
    row,
    st.integers(1, 20),
    st.integers(0, TIMES - 1),
    st.integers(1, TIMES),
    st.integers(0, 100),
)
REGIONS = st.sampled_from(
    [((20, 40), (1.0, 4.0)), ((10, 20, 30), (1.0, 2.0, 5.0)), ((25,), (1.0,))]
)


@given(st.lists(ITEM, max_size=12), REGIONS)
def test_capacities_are_kept(
    items: list[tuple[int, int, int, int]],
    regions: tuple[tuple[int, ...], tuple[float, ...]],
) -> None:
    p = problem(items, *regions)
    found = assign_regions(p)
    assert is_within(found, p)
    assert assign_regions(p) == found


def test_close_to_the_best() -> None:
    random = np.random.default_rng(0)
    ratios: list[float] = []
    for number in range(60):
        starts = random.integers(0, TIMES - 1, 3 + number % 4)
        items = [
            (int(random.integers(1, 20)), int(s), int(random.integers(s + 1, TIMES)) + 1, int(t))
            for s, t in zip(starts, random.integers(0, 100, len(starts)), strict=True)
        ]
        costs = (1.0, 2.0, 5.0)[: 2 + number % 2]
        p = problem(items, (20, 25, 40)[-len(costs) :], costs)
        missing, cost = best_of_all(p)
        found = assign_regions(p)
        assert found.missing(p) == missing
        ratios.append(found.cost(p) / cost if cost else 1.0)
    assert max(ratios) < 1.1
    assert np.mean(ratios) < 1.005


def test_the_frequent_one_displaces_the_rest() -> None:
    # By size the cold one would come first; both hot ones fit without it.
    p = problem([(20, 0, 8, 10), (10, 0, 4, 500), (12, 4, 8, 400)], (20, 100), (1.0, 3.0))
    assert assign_regions(p).regions == (1, 0, 0)


def test_regions_are_shared_over_time() -> None:
    p = problem([(20, t, t + 1, 7) for t in range(TIMES)], (20, 100), (1.0, 3.0))
    assert assign_regions(p).regions == (0,) * TIMES


def test_a_cold_buffer_that_fits_nowhere_else_displaces_a_hot_one() -> None:
    p = problem([(10, 0, 8, 900), (40, 0, 8, 1)], (40, 20), (1.0, 3.0))
    assert assign_regions(p).regions == (1, 0)


@pytest.mark.parametrize("size", [51, 80])
def test_what_fits_nowhere_has_no_region(size: int) -> None:
    p = problem([(10, 0, 2, 5), (size, 0, 8, 9)], (20, 50), (1.0, 3.0))
    assert assign_regions(p).regions == (0, None)
    assert assign_regions(p).missing(p) == size


def test_what_is_barred_stays_out() -> None:
    p = problem([(10, 0, 2, 500), (10, 2, 4, 5), (30, 4, 6, 7)], (20, 50), (1.0, 3.0))
    assert assign_regions(p).regions == (0, 0, 1)
    barred = replace(p, barred=frozenset({(0, 0), (2, 1)}))
    assert assign_regions(barred).regions == (1, 0, None)
