"""What recomputation costs: extra arithmetic by budget, and the distance to the optimum.

python -m benchmarks.recompute [--quick] [--json PATH]
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.common import Row, main
from benchmarks.recompute_milp import optimum, without_sharing
from benchmarks.recompute_networks import mobilenet_v2, resnet50
from niwaki.backends.targets import get_target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.program import Program
from niwaki.ir.training import TrainingOptions
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.orders.greedy import best_greedy_order
from niwaki.passes.pipelines import training_pipeline
from niwaki.passes.recomputation.problem import RecomputeProblem, Trace
from niwaki.passes.recomputation.search import cheapest_within, frontier
from niwaki.passes.recompute import recompute_problem
from niwaki.passes.schedule import schedule_problem
from niwaki.passes.storage_layout import StorageLayout
from tests.conv_chains import conv_chain
from tests.recompute_problems import (
    least_budget,
    least_cost,
    random_chain,
    random_graph,
    source_order,
)

NETWORKS: Mapping[str, Callable[[], Program]] = {
    "mobilenetv2-224": lambda: mobilenet_v2(32),
    "resnet50-224": lambda: resnet50(32),
}
PERCENTS = (90, 80, 70, 60, 50, 40, 30)
SOLVER_SECONDS = 30
"""For each budget of the mixed integer program."""


def run(quick: bool) -> list[Row]:
    """Rows for the training steps of two networks, batch 32, and for problems with optima."""
    rows: list[Row] = []
    for name, program in NETWORKS.items():
        rows += _curve(name, *_training_problem(program()), (80, 50) if quick else PERCENTS)
    for name, make in (("chains", random_chain), ("graphs", random_graph)):
        rows += _exhaustive(name, make, 3 if quick else 30)
    return rows + _linear(quick)


def _training_problem(program: Program) -> tuple[RecomputeProblem, list[int], list[int]]:
    """The problem of the training step, the order without recomputation, flops of each node."""
    target = get_target("x86-64")
    for step in training_pipeline(TrainingOptions(), target)[:-1]:
        step.apply(NiwakiContext(program.weights), program.module)
    library = KernelLibrary(target)
    layout = StorageLayout(program.module, library)
    schedule, calls = schedule_problem(program.function("train_step"), layout, library)
    flops = [call.kernel.spec.flops for call in calls]
    return recompute_problem(schedule, calls), best_greedy_order(schedule), flops


def _curve(
    name: str,
    problem: RecomputeProblem,
    order: list[int],
    flops: list[int],
    percents: tuple[int, ...],
) -> list[Row]:
    """Extra floating-point operations at each part of the peak without recomputation."""
    base = Trace(problem, order)
    start = time.process_time()
    found = frontier(base)
    seconds = time.process_time() - start
    rows = [
        Row(name, "nodes", len(order), "kernels"),
        Row(name, "peak.bytes", base.peak, "bytes"),
        Row(name, "search.seconds", seconds, "CPU s"),
        Row(name, "least.peak", 100 * found[-1].peak / base.peak, "%"),
        Row(name, "least.possible", 100 * _least_possible(problem) / base.peak, "%"),
        Row(name, "curve.points", len(found), "budgets"),
    ]
    for percent in percents:
        trace = cheapest_within(found, base.peak * percent // 100)
        extra = 100 * (sum(flops[n] for n in trace.runs.tolist()) / sum(flops) - 1)
        rows += [
            Row(f"{name}/{percent}%", "extra.flops", extra, "%"),
            Row(f"{name}/{percent}%", "peak.part", 100 * trace.peak / base.peak, "%"),
        ]
    return rows


def _least_possible(problem: RecomputeProblem) -> int:
    """Bytes that some node needs whatever is made again: its operands and results."""
    schedule = problem.schedule
    return max(
        sum(schedule.sizes[b] for b in (*node.reads, *node.writes))
        - sum(schedule.sizes[b] for b in {w for _, w in node.in_place})
        + node.workspace
        for node in schedule.nodes
    )


def _exhaustive(
    name: str, make: Callable[[np.random.Generator, int], RecomputeProblem], count: int
) -> list[Row]:
    """Cost over the least possible one, whatever the order, of training graphs of 16 nodes."""
    ratios: list[float] = []
    tried = 0
    for seed in range(count):
        problem = make(np.random.default_rng(seed), 6)
        base = Trace(problem, source_order(problem))
        found, least = frontier(base), least_budget(problem)
        for budget in sorted({least, (2 * least + base.peak) // 3, (least + 2 * base.peak) // 3}):
            trace, best = cheapest_within(found, budget), least_cost(problem, budget)
            tried += 1
            if trace.peak <= budget and best is not None:
                ratios.append(trace.cost / best)
    return [
        Row(f"all plans, 16 ops, {name}", "met.budgets", 100 * len(ratios) / tried, "%"),
        *_distance(f"all plans, 16 ops, {name}", ratios),
    ]


def _linear(quick: bool) -> list[Row]:
    """Cost over that of Checkmate's mixed integer program in the same order of first runs."""
    cases: list[tuple[str, RecomputeProblem, list[int]]] = []
    for layers, seeds in ((8, 1),) if quick else ((8, 2), (12, 1), (16, 1), (19, 1)):
        for name, make in (("chains", random_chain), ("graphs", random_graph)):
            for seed in range(seeds):
                problem = make(np.random.default_rng(seed), layers)
                order = source_order(problem)
                cases.append((f"checkmate, {len(order)} ops, {name}", problem, order))
    for layers, norm in ((5, False),) if quick else ((5, False), (8, False), (2, True)):
        problem, order, _ = _training_problem(conv_chain(2, layers, norm))
        name = "batch norm" if norm else "plain"
        cases.append((f"checkmate, {len(order)} ops, {name}", without_sharing(problem), order))
    ratios: dict[str, list[float]] = {}
    unsolved: Counter[str] = Counter()
    for name, problem, order in cases:
        base = Trace(problem, order)
        found = frontier(base)
        least = found[-1].peak
        for part in (0.6, 0.2):
            budget = int(least + part * (base.peak - least))
            trace = cheapest_within(found, budget)
            best = optimum(problem, order, budget, trace.cost, SOLVER_SECONDS)
            if best is None:
                unsolved[name] += 1
            else:
                ratios.setdefault(name, []).append(trace.cost / min(best, trace.cost))
    rows: list[Row] = []
    for name in dict.fromkeys(name for name, *_ in cases):
        solved = len(ratios.get(name, []))
        rows.append(Row(name, "solved", 100 * solved / (solved + unsolved[name]), "%"))
        rows += _distance(name, ratios.get(name, []))
    return rows + _distance("checkmate, all", [r for found in ratios.values() for r in found])


def _distance(name: str, ratios: list[float]) -> list[Row]:
    if not ratios:
        return []
    return [
        Row(name, "mean.ratio", float(np.mean(ratios)), "x optimum"),
        Row(name, "worst.ratio", max(ratios), "x optimum"),
    ]


if __name__ == "__main__":
    main(__doc__, run)
