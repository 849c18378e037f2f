"""What recomputation costs: extra arithmetic by budget, and the distance to the optimum.

python -m benchmarks.recompute [--quick] [--json PATH]
"""

from collections.abc import Callable, Mapping

import numpy as np

from benchmarks.common import Row, main
from benchmarks.recompute_networks import mobilenet_v2, resnet50
from niwaki.backends.targets import get_target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.program import Program
from niwaki.ir.training import TrainingOptions
from niwaki.passes.greedy_order import best_greedy_order
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.pipelines import training_pipeline
from niwaki.passes.recompute import recompute_problem
from niwaki.passes.recompute_problem import RecomputeProblem, Trace
from niwaki.passes.recompute_search import cheapest_runs
from niwaki.passes.schedule import schedule_problem
from niwaki.passes.storage_layout import StorageLayout
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


def run(quick: bool) -> list[Row]:
    """Rows for the training steps of two networks, batch 32, and for small random problems."""
    rows: list[Row] = []
    for name, program in NETWORKS.items():
        rows += _curve(name, program(), (80, 50) if quick else PERCENTS)
    for name, make in (("chains", random_chain), ("graphs", random_graph)):
        rows += _distance(name, make, 5 if quick else 30)
    return rows


def _curve(name: str, program: Program, percents: tuple[int, ...]) -> list[Row]:
    """Extra floating-point operations at each part of the peak without recomputation."""
    target = get_target("x86-64")
    for step in training_pipeline(TrainingOptions(), target)[:-1]:
        step.apply(NiwakiContext(program.weights), program.module)
    layout = StorageLayout(program.module, target.alignment)
    schedule, calls = schedule_problem(
        program.function("train_step"), layout, KernelLibrary(target)
    )
    problem, order = recompute_problem(schedule, calls), best_greedy_order(schedule)
    flops = [call.kernel.spec.flops for call in calls]
    base, peak = sum(flops), Trace(problem, order).peak
    rows = [Row(name, "peak.bytes", peak, "bytes")]
    for percent in percents:
        found = cheapest_runs(problem, order, peak * percent // 100)
        extra = 100 * (sum(flops[node] for node in found.runs) / base - 1)
        rows += [
            Row(f"{name}/{percent}%", "extra.flops", extra, "%"),
            Row(f"{name}/{percent}%", "peak.part", 100 * found.peak / peak, "%"),
        ]
    return rows


def _distance(
    name: str, make: Callable[[np.random.Generator, int], RecomputeProblem], count: int
) -> list[Row]:
    """Cost over the least possible one, of random training graphs of 17 nodes."""
    ratios: list[float] = []
    met = tried = 0
    for seed in range(count):
        problem = make(np.random.default_rng(seed), 6)
        order = source_order(problem)
        least, peak = least_budget(problem), Trace(problem, order).peak
        for budget in sorted({least, (2 * least + peak) // 3, (least + 2 * peak) // 3}):
            found, optimum = cheapest_runs(problem, order, budget), least_cost(problem, budget)
            tried += 1
            if found.peak <= budget and optimum is not None:
                met += 1
                ratios.append(found.cost / optimum)
    return [
        Row(f"random {name}", "met.budgets", 100 * met / tried, "%"),
        Row(f"random {name}", "mean.ratio", float(np.mean(ratios)), "x optimum"),
        Row(f"random {name}", "worst.ratio", max(ratios), "x optimum"),
    ]


if __name__ == "__main__":
    main(__doc__, run)
