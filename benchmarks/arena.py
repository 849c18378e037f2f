"""Arenas: the hard problems of google/minimalloc at their capacity, and many random ones.

python -m benchmarks.arena [--quick] [--json PATH]

The problems (A.1048576.csv and so on) are looked for in ../shared/data/dsa beside the repository.
"""

import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.common import Row, main
from niwaki.ir.errors import UsageError
from niwaki.passes.arena import Solver, greedy_plan, plan_greedily, shrink
from niwaki.passes.arena_cpsat import cpsat_arena
from niwaki.passes.arena_problem import ArenaBuffer, ArenaProblem, plan_at
from niwaki.passes.arena_search import search_arena
from niwaki.passes.verify_arena import verify_arena
from niwaki.tools.plan_problem import read_plan_file

DSA = Path(__file__).parents[2] / "shared" / "data" / "dsa"
NODES = 2_000_000


def by_size(problem: ArenaProblem) -> int:
    """The arena of TFLite Micro's planner: the largest first, each at the lowest free place."""
    numbers = range(len(problem.buffers))
    order = sorted(numbers, key=lambda i: (-problem.buffers[i].occupied, problem.buffers[i].start))
    return greedy_plan(problem, order, best_fit=False).size


def hard(path: Path) -> list[Row]:
    """One problem at the capacity that its name says, by the search and with CP-SAT."""
    problem = read_plan_file(path).problem
    name, capacity = path.name.split(".")[0], int(path.name.split(".")[1])
    bound, greedy, best = problem.bound, by_size(problem), plan_greedily(problem)
    rows = [
        Row(f"{name}/greedy by size", "arena.bytes", greedy, "bytes", "bound", greedy / bound),
        Row(f"{name}/best greedy", "arena.bytes", best.size, "bytes", "bound", best.size / bound),
    ]
    solvers: dict[str, Solver] = {"search": search_arena, "cpsat": cpsat_arena}
    for solver, solve in solvers.items():
        start = time.perf_counter()
        try:
            result = solve(problem, capacity, NODES)
        except UsageError as error:
            print(f"{name}: {error}", file=sys.stderr)
            continue
        seconds = time.perf_counter() - start
        plan = best if result.offsets is None else plan_at(problem, result.offsets)
        verify_arena(problem, plan)
        case = f"{name}/{solver}"
        rows += [
            Row(case, "arena.bytes", plan.size, "bytes", "bound", plan.size / bound),
            Row(case, "plan.seconds", seconds, "s"),
            Row(case, "plan.nodes", result.nodes, "nodes"),
            Row(case, "plan.fits", plan.size <= capacity, "of 1"),
        ]
    return rows


def random_problem(random: np.random.Generator) -> ArenaProblem:
    """Up to 40 buffers, half of the problems with alignments."""
    count = int(random.integers(2, 40))
    starts = random.integers(0, 20, count)
    ends = starts + random.integers(1, 8, count)
    sizes = random.integers(1, 30, count)
    alignments = random.choice((1, 4, 16), count) if random.random() < 0.5 else [1] * count
    rows = zip(sizes, starts, ends, alignments, strict=True)
    return ArenaProblem(tuple(ArenaBuffer(*map(int, row)) for row in rows))


def many(count: int) -> list[Row]:
    """Verified plans of `count` random problems: how many reach the bound, are over greedy."""
    random = np.random.default_rng(0)
    at_bound = at_bound_greedily = over = 0
    for _ in range(count):
        problem = random_problem(random)
        greedy = plan_greedily(problem)
        plan = shrink(problem, greedy, problem.bound, 300, search_arena)
        verify_arena(problem, plan)
        at_bound += plan.size == problem.bound
        at_bound_greedily += greedy.size == problem.bound
        over += plan.size > by_size(problem)
    return [
        Row("random", "plan.verified", count, "problems"),
        Row("random", "plan.over_by_size", over, "problems"),
        Row(
            "random", "plan.at_bound", at_bound, "problems", "greedy", at_bound / at_bound_greedily
        ),
    ]


def run(quick: bool) -> list[Row]:
    """The hard problems, then random ones: 2,000, or 100,000 without `quick`."""
    paths = sorted(DSA.glob("?.*.csv"))
    if not paths:
        print(f"no hard problems: {DSA} does not exist or holds none", file=sys.stderr)
    return [row for path in paths for row in hard(path)] + many(2_000 if quick else 100_000)


if __name__ == "__main__":
    main(__doc__, run)
