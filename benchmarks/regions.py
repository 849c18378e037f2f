"""Several memories: what accesses cost with our placement, and with simpler ones.

python -m benchmarks.regions [--quick] [--json PATH]

A unit is an access to one byte of the fastest memory. Accesses are those of kernels to buffers and
state, counted in their loops, over one training step, one inference and one evaluation. Peers:
everything in the slowest memory, and the largest buffers first, each in the fastest memory that
has room.
"""

import time
from dataclasses import replace

import numpy as np

from benchmarks.common import Row, main
from benchmarks.networks import CASES
from niwaki.backends.regions import MemoryRegion
from niwaki.backends.targets import Target, get_target
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.arenas.region_assignment import AssignmentProblem
from niwaki.passes.arenas.regions import assignment_problem
from niwaki.passes.pipelines import Techniques
from niwaki.passes.planner import Planner

BOARDS = {
    "dtcm64k+psram": (
        MemoryRegion("dtcm", 64 << 10),
        MemoryRegion("psram", 16 << 20, cost=8.0),
    ),
    "dtcm128k+sram320k+psram": (
        MemoryRegion("dtcm", 128 << 10),
        MemoryRegion("sram", 320 << 10, cost=2.0),
        MemoryRegion("psram", 16 << 20, cost=8.0),
    ),
}
NETWORKS = (
    ("lenet", "full", 8),
    ("lenet", "channels", 8),
    ("mobilenetv2-w0.35-128", "channels", 1),
    ("mobilenetv2-w0.35-128", "full", 1),
)


def on_board(name: str) -> Target:
    """A Cortex-M7 with the memories of a board."""
    return replace(get_target("cortex-m7"), name=name, regions=BOARDS[name])


def first_fit_by_size(problem: AssignmentProblem) -> float:
    """The cost of taking the largest first, each to the fastest region with room while it lives."""
    times = max(item.end for item in problem.items)
    free = np.array([[capacity] * times for capacity in problem.capacities], np.int64)
    cost = 0.0
    for item in sorted(problem.items, key=lambda i: -i.size):
        rooms = free[:, item.start : item.end].min(axis=1)
        region = next(n for n, room in enumerate(rooms) if room >= item.size)
        free[region, item.start : item.end] -= item.size
        cost += item.traffic * problem.costs[region]
    return cost


def measure(network: str, scheme: str, batch: int, board: str) -> list[Row]:
    """Our cost beside the others, and the time that planning took."""
    case, target = CASES[network], on_board(board)
    options = TrainingOptions(optimizer=SGD(lr=0.01), scheme=case.schemes[scheme])
    start = time.perf_counter()
    plan = Planner(case.program(batch), options, target).plan(Techniques()).program
    seconds = time.perf_counter() - start
    problem = assignment_problem(*plan.buffers(), target.writable)
    ours = plan.access_cost
    label = f"{network}/{scheme}/b{batch}/{board}"
    slowest = sum(item.traffic for item in problem.items) * problem.costs[-1]
    by_size = first_fit_by_size(problem)
    return [
        Row(label, "access.cost", ours, "units", "slowest", slowest / ours),
        Row(label, "access.cost", ours, "units", "by size", by_size / ours),
        *(
            Row(label, f"{use.name}.bytes", use.arena_bytes + use.state_bytes, "bytes")
            for use in plan.regions
        ),
        Row(label, "plan.seconds", seconds, "s"),
    ]


def run(quick: bool) -> list[Row]:
    """Every network on every board."""
    networks = NETWORKS[:2] if quick else NETWORKS
    return [row for network in networks for board in BOARDS for row in measure(*network, board)]


if __name__ == "__main__":
    main(__doc__, run)
