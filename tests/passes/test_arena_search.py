"""The exact search of the arena planner finds a plan exactly if there is one."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.passes.arenas.plan_arena import plan_arena, plan_greedily, shrink
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaProblem, plan_at
from niwaki.passes.arenas.search import search_arena
from niwaki.passes.arenas.verify import verify_arena
from niwaki.tools.plan_problem import read_plan_file


def buffer_of(size: int, start: int, life: int, alignment: int, pinned: int | None) -> ArenaBuffer:
    return ArenaBuffer(
        size, start, start + life, alignment, None if pinned is None else pinned * alignment
    )


BUFFERS = st.builds(
    buffer_of,
    size=st.integers(1, 9),
    start=st.integers(0, 5),
    life=st.integers(1, 4),
    alignment=st.sampled_from((1, 1, 2, 3)),
    pinned=st.one_of(st.none(), st.none(), st.none(), st.integers(0, 4)),
)


def optimum(problem: ArenaProblem) -> int:
    """The smallest arena, by every order of the buffers, each as low as it can go above those
    before it. Some order of its offsets gives every plan that has nothing to fall."""
    best = 10**9
    for order in permutations(problem.buffers):
        placed: list[tuple[ArenaBuffer, int]] = []
        for buffer in order:
            met = [(b, o) for b, o in placed if b.start < buffer.end and buffer.start < b.end]
            lowest = max((o + b.occupied for b, o in met), default=0)
            lowest = -(-lowest // buffer.alignment) * buffer.alignment
            if buffer.pinned is not None:
                if lowest > buffer.pinned:
                    break
                lowest = buffer.pinned
            placed.append((buffer, lowest))
        else:
            best = min(best, max(o + b.occupied for b, o in placed))
    return best


@settings(max_examples=300, deadline=None)
@given(st.lists(BUFFERS, min_size=1, max_size=5))
def test_agrees_with_every_order(buffers: list[ArenaBuffer]) -> None:
    problem = ArenaProblem(tuple(buffers))
    best = optimum(problem)
    if best < 10**9:
        found = search_arena(problem, best, 10_000)
        assert found.offsets is not None
        plan = plan_at(problem, found.offsets)
        verify_arena(problem, plan)
        assert plan.size == best
    assert search_arena(problem, best - 1, 10_000).impossible


def random_problem(seed: int) -> ArenaProblem:
    random = np.random.default_rng(seed)
    count = int(random.integers(2, 40))
    starts = random.integers(0, 20, count)
    lives = random.integers(1, 8, count)
    sizes = random.integers(1, 30, count)
    alignments = random.choice((1, 4, 16), count)
    rows = zip(sizes, starts, starts + lives, alignments, strict=True)
    return ArenaProblem(tuple(ArenaBuffer(*map(int, row)) for row in rows))


@pytest.mark.parametrize("block", range(20))
def test_random_problems(block: int) -> None:
    """Valid, and never larger than greedy by size."""
    for seed in range(block * 100, block * 100 + 100):
        problem = random_problem(seed)
        greedy = plan_greedily(problem)
        plan = shrink(problem, greedy, problem.bound, 200, search_arena)
        verify_arena(problem, plan)
        assert problem.bound <= plan.size <= greedy.size


def full_problem(seed: int, count: int) -> ArenaProblem:
    """Rectangles of time and bytes that fill an arena of 1,000 bytes: cut at random."""
    random = np.random.default_rng(seed)
    rectangles = [(0, 1000, 0, 1000)]
    while len(rectangles) < count:
        rectangles.sort(key=lambda r: (r[1] - r[0]) * (r[3] - r[2]))
        low, high, start, end = rectangles.pop()
        cut = float(random.uniform(0.2, 0.8))
        if random.random() < 0.5 and high - low > 4:
            at = low + int(cut * (high - low))
            rectangles += [(low, at, start, end), (at, high, start, end)]
        else:
            at = start + int(cut * (end - start))
            rectangles += [(low, high, start, at), (low, high, at, end)]
    order = random.permutation(len(rectangles))
    return ArenaProblem(
        tuple(ArenaBuffer(h - l, s, e) for l, h, s, e in (rectangles[i] for i in order))
    )


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 10])
def test_full_arenas(seed: int) -> None:
    """No byte is ever free, and no greedy plan comes near."""
    problem = full_problem(seed, 120)
    assert problem.bound == 1000
    assert plan_greedily(problem).size > 1300
    plan = plan_arena(problem)
    verify_arena(problem, plan)
    assert plan.size == 1000


def test_impossible_by_load() -> None:
    problem = ArenaProblem((ArenaBuffer(8, 0, 2), ArenaBuffer(8, 1, 3)))
    assert search_arena(problem, 15, 100).impossible


def test_stops_at_its_nodes() -> None:
    result = search_arena(full_problem(0, 40), 1000, 30)
    assert result.offsets is None
    assert not result.impossible
    assert result.nodes <= 31


def test_buffers_without_room_or_time() -> None:
    problem = ArenaProblem(
        (ArenaBuffer(0, 0, 9), ArenaBuffer(8, 3, 3), ArenaBuffer(8, 0, 4), ArenaBuffer(0, 0, 1))
    )
    assert search_arena(problem, 8, 10).offsets is not None
    assert search_arena(ArenaProblem(()), 0, 10).offsets == ()


def test_shrink_keeps_a_plan_that_it_cannot_beat() -> None:
    problem = full_problem(1, 60)
    greedy = plan_greedily(problem)
    assert shrink(problem, greedy, 1000, 1, search_arena) == greedy


def test_shrink_finds_the_optimum_above_the_bound() -> None:
    """Pinned at 4 bytes: nothing larger fits below."""
    problem = ArenaProblem((ArenaBuffer(2, 0, 1, pinned=4), ArenaBuffer(6, 0, 1)))
    assert problem.bound == 8
    plan = shrink(problem, plan_at(problem, (4, 20)), 8, 1000, search_arena)
    assert plan.size == 12


DSA = Path(__file__).parents[3] / "shared" / "data" / "dsa"


@pytest.mark.parametrize("name", ["A", "C", "E", "G", "K"])
def test_minimalloc_problems(name: str) -> None:
    path = DSA / f"{name}.1048576.csv"
    if not path.exists():
        pytest.skip(f"{path} is not here: it is one of the problems of google/minimalloc")
    problem = read_plan_file(path).problem
    result = search_arena(problem, 1_048_576, 50_000)
    assert result.offsets is not None
    plan = plan_at(problem, result.offsets)
    verify_arena(problem, plan)
    assert plan.size <= 1_048_576
