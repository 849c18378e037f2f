"""Arenas: the hard problems of google/minimalloc at their capacity, and many random ones.

python -m benchmarks.arena [--quick] [--json PATH]

The problems (A.1048576.csv and so on) are looked for in ../shared/data/dsa beside the repository.
`search` needs NumPy alone, `cpsat` is CP-SAT of OR-Tools alone; both run on one thread. Nodes of
`cpsat` are its conflicts times 100.
"""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.common import Row, main
from niwaki.ir.errors import UsageError
from niwaki.passes.arenas.cpsat import cpsat_arena
from niwaki.passes.arenas.plan_arena import Solver, greedy_plan, plan_greedily, shrink
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem, plan_at
from niwaki.passes.arenas.search import search_arena
from niwaki.passes.arenas.verify import verify_arena
from niwaki.tools.plan_problem import read_plan_file

DSA = Path(__file__).parents[2] / "shared" / "data" / "dsa"
SOLVERS: dict[str, tuple[Solver, int]] = {
    "search": (search_arena, 400_000),
    "cpsat": (cpsat_arena, 2_000_000),
}
"""With the nodes of an attempt: half a minute or so."""
GRAIN = 256
SEEDS, VARIANTS = 16, 4
"""Orders of each problem's rows, and problems made out of each."""


def by_size(problem: ArenaProblem) -> int:
    """The arena of TFLite Micro's planner: the largest first, each at the lowest free place."""
    numbers = range(len(problem.buffers))
    order = sorted(numbers, key=lambda i: (-problem.buffers[i].occupied, problem.buffers[i].start))
    return greedy_plan(problem, order, best_fit=False).size


def shuffled(problem: ArenaProblem, seed: int) -> ArenaProblem:
    """The same buffers in another order; as they are for seed 0."""
    order = np.random.default_rng(seed).permutation(len(problem.buffers)) if seed else None
    numbers = range(len(problem.buffers)) if order is None else order.tolist()
    return ArenaProblem(tuple(problem.buffers[i] for i in numbers))


def stretched(problem: ArenaProblem, plan: ArenaPlan, capacity: int, seed: int) -> ArenaProblem:
    """Another problem that fits: the addresses of a plan, each stretch of them resized at random.

    Resizes what lies between neighbouring edges of buffers by 0.4 to 1.6, in whole GRAIN bytes.
    """
    bottoms = np.array(plan.offsets)
    tops = bottoms + np.array([b.occupied for b in problem.buffers])
    edges = np.unique(np.concatenate(([0, capacity], bottoms, tops)))
    room = capacity // GRAIN - (len(edges) - 1)
    lengths = np.diff(edges) * np.random.default_rng(seed).uniform(0.4, 1.6, len(edges) - 1)
    moved = np.concatenate(([0], np.cumsum(lengths))) * room / lengths.sum()
    addresses = GRAIN * (moved.astype(np.int64) + np.arange(len(edges)))
    sizes = addresses[np.searchsorted(edges, tops)] - addresses[np.searchsorted(edges, bottoms)]
    pairs = zip(problem.buffers, sizes.tolist(), strict=True)
    return ArenaProblem(tuple(replace(buffer, size=size) for buffer, size in pairs))


def spread(case: str, problems: Sequence[ArenaProblem], capacity: int, solver: str) -> list[Row]:
    """How many of `problems` fit, with the least, median and most nodes and CPU seconds."""
    solve, most = SOLVERS[solver]
    seconds: list[float] = []
    nodes: list[int] = []
    fits = 0
    for problem in problems:
        start = time.process_time()
        result = solve(problem, capacity, most)
        seconds.append(time.process_time() - start)
        nodes.append(result.nodes)
        if result.offsets is not None:
            plan = plan_at(problem, result.offsets)
            verify_arena(problem, plan)
            fits += plan.size <= capacity
    rows = [Row(case, "plan.fits", fits, f"of {len(problems)}")]
    for name, of in (("min", min), ("median", statistics.median), ("max", max)):
        rows.append(Row(case, f"plan.cpu.{name}", of(seconds), "s"))
        rows.append(Row(case, f"plan.nodes.{name}", of(nodes), "nodes"))
    return rows


def hard(path: Path, seeds: int, variants: int) -> list[Row]:
    """One problem at the capacity that its name says, by each solver alone.

    Its rows in `seeds` orders, and `variants` stretched problems (see `stretched`).
    """
    given = read_plan_file(path).problem
    name, capacity = path.name.split(".")[0], int(path.name.split(".")[1])
    bound, greedy, best = given.bound, by_size(given), plan_greedily(given).size
    rows = [
        Row(f"{name}/greedy by size", "arena.bytes", greedy, "bytes", "bound", greedy / bound),
        Row(f"{name}/best greedy", "arena.bytes", best, "bytes", "bound", best / bound),
    ]
    cases = {"": [shuffled(given, seed) for seed in range(seeds)]}
    offsets = search_arena(given, capacity, SOLVERS["search"][1]).offsets if variants else None
    if offsets is not None:
        plan = plan_at(given, offsets)
        cases[" stretched"] = [stretched(given, plan, capacity, seed) for seed in range(variants)]
    for solver in SOLVERS:
        try:
            for case, problems in cases.items():
                rows += spread(f"{name}{case}/{solver}", problems, capacity, solver)
        except UsageError as error:
            print(f"{name}: {error}", file=sys.stderr)
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
    seeds, variants = (1, 0) if quick else (SEEDS, VARIANTS)
    rows = [row for path in paths for row in hard(path, seeds, variants)]
    return rows + many(2_000 if quick else 100_000)


if __name__ == "__main__":
    main(__doc__, run)
