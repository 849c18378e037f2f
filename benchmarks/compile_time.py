"""Seconds to compile a MobileNetV2 training step: by depth, to keep a memory limit, to order it.

    python -m benchmarks.compile_time [--quick] [--json PATH]

The order is that of graphs with about 10,000 operations: greedy, with the bound of every order.
"""

import time

import niwaki
from benchmarks.common import Row, main
from benchmarks.orders import CASES, order_rows
from tests.networks import mobilenet_v2

LARGE = ("mobilenetv2-x20-bn-96", "transformer-80")
NAME = "mobilenetv2-w0.35-128/full/host/b1"


def run(quick: bool) -> list[Row]:
    """Cold compilation at 1x, 2x and 4x depth, with the seconds of each phase, and the rest."""
    niwaki.compile(mobilenet_v2(1, size=32), target="host")  # imports and LLVM's start-up
    rows: list[Row] = []
    previous = None
    for depth in (1, 2) if quick else (1, 2, 4):
        seconds, step = _compiled(mobilenet_v2(1, depth=depth))
        label = f"{NAME}/depth{depth}"
        growth = None if previous is None else seconds / previous
        rows.append(Row(label, "s.compile.cold", seconds, "s", "half", growth))
        rows += [
            Row(label, f"s.{phase}", value, "s") for phase, value in step.compile_seconds.items()
        ]
        previous = seconds
    rows += _limits((0.8,) if quick else (0.8, 0.5, 0.25))
    for name in LARGE:
        rows += [row for row in order_rows(name, CASES[name](), 0) if row.metric == "greedy.time"]
    return rows


def _limits(parts: tuple[float, ...]) -> list[Row]:
    """With a memory limit that is a part of what the step needs without one."""
    program = mobilenet_v2(1)
    plain, step = _compiled(program)
    rows: list[Row] = []
    for part in parts:
        limit = int(part * (step.memory.arena_bytes + step.memory.state_bytes))
        try:
            seconds, _ = _compiled(program, limit)
        except niwaki.DoesNotFitError:
            continue
        case = f"{NAME}/limit {part:.0%}"
        rows.append(Row(case, "s.compile.limit", seconds, "s", "plain", seconds / plain))
    return rows


def _compiled(
    program: niwaki.Program, memory_limit: int | None = None
) -> tuple[float, niwaki.TrainingStep]:
    start = time.perf_counter()
    step = niwaki.compile(
        program, optimizer=niwaki.SGD(lr=0.01), target="host", memory_limit=memory_limit
    )
    return time.perf_counter() - start, step


if __name__ == "__main__":
    main(__doc__, run)
