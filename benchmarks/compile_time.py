"""Seconds to compile a MobileNetV2 training step, and how they grow with depth.

python -m benchmarks.compile_time [--quick] [--json PATH]
"""

import time

import niwaki
from benchmarks.common import Row, main
from tests.networks import mobilenet_v2


def run(quick: bool) -> list[Row]:
    """Cold compilation at 1x, 2x and 4x depth, with the seconds of each phase."""
    niwaki.compile(mobilenet_v2(1, size=32), target="host")  # imports and LLVM's start-up
    rows: list[Row] = []
    previous = None
    for depth in (1, 2) if quick else (1, 2, 4):
        program = mobilenet_v2(1, depth=depth)
        start = time.perf_counter()
        step = niwaki.compile(program, optimizer=niwaki.SGD(lr=0.01), target="host")
        seconds = time.perf_counter() - start
        label = f"mobilenetv2-w0.35-128/full/host/b1/depth{depth}"
        growth = None if previous is None else seconds / previous
        rows.append(Row(label, "s.compile.cold", seconds, "s", "half", growth))
        rows += [
            Row(label, f"s.{phase}", value, "s") for phase, value in step.compile_seconds.items()
        ]
        previous = seconds
    return rows


if __name__ == "__main__":
    main(__doc__, run)
