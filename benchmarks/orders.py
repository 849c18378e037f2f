"""Orders of training steps: peak of live bytes against what is proven about every order.

python -m benchmarks.orders [--quick] [--json PATH]

The ratio is that of a peak to the lower bound; 1 is the best there is, and so is "exact" where the
row "exact.proven" says 1. Times are in seconds of one run.
"""

import time
from collections.abc import Callable, Mapping

from benchmarks.common import Row, main
from benchmarks.order_networks import mobilenet_v2, randwire, transformer, unet
from niwaki.passes.orders.bound import lower_bound
from niwaki.passes.orders.exact import exact_order
from niwaki.passes.orders.greedy import greedy_order
from niwaki.passes.orders.problem import ScheduleProblem, live_bytes
from niwaki.passes.schedule import SEARCH_NODES

CASES: Mapping[str, Callable[[], ScheduleProblem]] = {
    "mobilenetv2-1.0-bn-96": lambda: mobilenet_v2(1.0, 96, folded=False).training(),
    "mobilenetv2-1.0-96": lambda: mobilenet_v2(1.0, 96, folded=True).training(),
    "mobilenetv2-0.35-96": lambda: mobilenet_v2(0.35, 96, folded=True).training(),
    "mobilenetv2-0.35-96-last5": lambda: mobilenet_v2(
        0.35, 96, folded=True, frozen_blocks=12
    ).training(),
    "unet-64": lambda: unet(64).training(),
    "transformer-4": lambda: transformer(4).training(),
    "randwire-32x1": lambda: randwire(32, 1).training(),
    "randwire-16x2": lambda: randwire(16, 2).training(),
    "randwire-32x3": lambda: randwire(32, 3).training(),
    "randwire-32x3-inference": lambda: randwire(32, 3).inference(),
    "mobilenetv2-x20-bn-96": lambda: mobilenet_v2(1.0, 96, folded=False, repeats=20).training(),
    "transformer-80": lambda: transformer(80).training(),
}
QUICK_NODES = 20_000


def run(quick: bool) -> list[Row]:
    """Rows for every graph."""
    rows: list[Row] = []
    for name, problem in CASES.items():
        rows += order_rows(name, problem(), QUICK_NODES if quick else 10 * SEARCH_NODES)
    return rows


def order_rows(name: str, problem: ScheduleProblem, max_nodes: int) -> list[Row]:
    """Peaks, bounds and times of one graph."""
    start = time.perf_counter()
    source = list(range(len(problem.nodes)))
    greedy = greedy_order(problem)
    source_peak, greedy_peak = (live_bytes(problem, order).peak for order in (source, greedy))
    first = greedy if greedy_peak < source_peak else source
    bound = lower_bound(problem, first)
    greedy_seconds = time.perf_counter() - start
    best = exact_order(problem, first, bound, max_nodes)
    exact_seconds = time.perf_counter() - start - greedy_seconds
    label = f"{name} ({len(problem.nodes)})"
    return [
        Row(label, "bound", bound, "bytes"),
        Row(label, "source.peak", source_peak, "bytes", "bound", source_peak / bound),
        Row(label, "greedy.peak", greedy_peak, "bytes", "bound", greedy_peak / bound),
        Row(label, "exact.peak", best.peak, "bytes", "bound", best.peak / bound),
        Row(label, "exact.bound", best.bound, "bytes", "bound", best.bound / bound),
        Row(label, "exact.proven", best.proven, "yes/no"),
        Row(label, "exact.nodes", best.nodes, "nodes"),
        Row(label, "greedy.time", greedy_seconds, "s"),
        Row(label, "exact.time", exact_seconds, "s"),
    ]


if __name__ == "__main__":
    main(__doc__, run)
