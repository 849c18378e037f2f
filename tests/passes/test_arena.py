"""The arena planner never overlaps live buffers, and its checker sees every kind of fault."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.passes.arenas.plan_arena import plan_arena
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem, PlanError
from niwaki.passes.arenas.verify import verify_arena

SPECS = st.lists(
    st.tuples(
        st.integers(0, 300), st.integers(0, 11), st.integers(1, 6), st.sampled_from((1, 8, 64))
    ),
    max_size=14,
)
"""(size, start, length of life, alignment)."""


def problem_of(spec: list[tuple[int, int, int, int]]) -> ArenaProblem:
    return ArenaProblem(tuple(ArenaBuffer(s, t, t + n, a) for s, t, n, a in spec))


def first_fit_by_size(problem: ArenaProblem) -> int:
    """TFLite Micro's planner, stated anew: the largest first, each at the lowest free place."""
    placed: list[tuple[ArenaBuffer, int]] = []
    top = 0
    for buffer in sorted(problem.buffers, key=lambda b: (-b.occupied, b.start - b.end)):
        offset = 0
        for other, at in sorted(placed, key=lambda p: p[1]):
            if other.start >= buffer.end or buffer.start >= other.end:
                continue
            if offset + buffer.occupied <= at:
                break
            beyond = -(-(at + other.occupied) // buffer.alignment) * buffer.alignment
            offset = max(offset, beyond)
        placed.append((buffer, offset))
        top = max(top, offset + buffer.occupied)
    return top


@settings(max_examples=500)
@given(SPECS)
def test_plans_are_valid_and_no_larger_than_greedy_by_size(
    spec: list[tuple[int, int, int, int]],
) -> None:
    problem = problem_of(spec)
    plan = plan_arena(problem)
    verify_arena(problem, plan)
    assert problem.bound <= plan.size <= first_fit_by_size(problem)


def test_bound_is_the_load() -> None:
    problem = problem_of([(10, 0, 2, 8), (16, 1, 2, 8), (24, 2, 1, 8)])
    assert problem.bound == 40  # 16 + 16, then 16 + 24


def test_disjoint_lifetimes_share_memory() -> None:
    plan = plan_arena(problem_of([(64, 0, 1, 8), (64, 1, 1, 8), (64, 2, 1, 8)]))
    assert plan == ArenaPlan((0, 0, 0), 64)


def test_pinned_buffers_stay_and_others_move_around_them() -> None:
    problem = ArenaProblem((ArenaBuffer(64, 0, 2), ArenaBuffer(32, 0, 2, pinned=16)))
    plan = plan_arena(problem)
    verify_arena(problem, plan)
    assert plan.offsets == (48, 16)


def test_a_plan_of_thousands_of_buffers_is_near_the_bound() -> None:
    """Lifetimes as in training: activations end in the reverse order of their start."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 1000, 3000) * 16
    activations = [ArenaBuffer(int(s), i, 4000 - i, 64) for i, s in enumerate(sizes[:1500])]
    short = [
        ArenaBuffer(int(s), 2 * i, 2 * i + int(n), 64)
        for i, (s, n) in enumerate(zip(sizes[1500:], random.integers(1, 30, 1500), strict=True))
    ]
    problem = ArenaProblem((*activations, *short))
    plan = plan_arena(problem)
    verify_arena(problem, plan)
    assert plan.size <= 1.05 * problem.bound


GOOD = problem_of([(64, 0, 2, 8), (64, 1, 2, 8)])


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (ArenaPlan((0, 56), 128), "overlap"),
        (ArenaPlan((56, 0), 128), "overlap"),
        (ArenaPlan((0, 0), 128), "overlap"),
        (ArenaPlan((0, 68), 136), "aligned"),
        (ArenaPlan((0, 64), 120), "outside"),
        (ArenaPlan((-8, 64), 128), "outside"),
        (ArenaPlan((0,), 128), "offsets"),
    ],
)
def test_checker_sees_faults(plan: ArenaPlan, message: str) -> None:
    verify_arena(GOOD, ArenaPlan((0, 64), 128))
    with pytest.raises(PlanError, match=message):
        verify_arena(GOOD, plan)


def test_checker_sees_a_moved_pin() -> None:
    pinned = ArenaProblem((replace(GOOD.buffers[0], pinned=64),))
    with pytest.raises(PlanError, match="pinned"):
        verify_arena(pinned, ArenaPlan((0,), 128))


@settings(max_examples=300)
@given(SPECS, st.integers(0, 1000))
def test_checker_agrees_with_all_pairs(spec: list[tuple[int, int, int, int]], seed: int) -> None:
    """Random offsets: the sweep finds an overlap exactly if some pair overlaps."""
    buffers = tuple(replace(b, alignment=1) for b in problem_of(spec).buffers)
    random = np.random.default_rng(seed)
    offsets = tuple(int(o) for o in random.integers(0, 900, len(buffers)))
    problem, plan = ArenaProblem(buffers), ArenaPlan(offsets, 2000)
    overlap = any(
        a.start < b.end and b.start < a.end and o < p + b.size and p < o + a.size
        for i, (a, o) in enumerate(zip(buffers, offsets, strict=True))
        for b, p in list(zip(buffers, offsets, strict=True))[:i]
        if a.size and b.size
    )
    if overlap:
        with pytest.raises(PlanError, match="overlap"):
            verify_arena(problem, plan)
    else:
        verify_arena(problem, plan)
