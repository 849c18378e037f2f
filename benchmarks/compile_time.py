"""Seconds to compile a MobileNetV2 training step, and where they go.

    python -m benchmarks.compile_time [--quick] [--json PATH]

Cold: with an empty cache of kernels; warm: with what the same compilation left in it. `s.cpu.*` are
those of all threads together, which other load on the machine changes least; ratios are to half the
depth. Then each pass and each phase of making code, alone on one thread; a memory limit; and the
order of graphs with about 10,000 operations: greedy, with the bound of every order.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from typing import TypeAlias, TypeVar

import niwaki
from benchmarks.common import Row, main
from benchmarks.orders import CASES, order_rows
from niwaki.backends.llvm.compile import LoadedObject, compile_object
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.llvm.host_code import kernel_keys, kernel_symbols
from niwaki.backends.targets import get_target
from niwaki.collector import rare_collections
from niwaki.ir.lowered import Lowered
from niwaki.object_cache import VARIABLE
from niwaki.passes.instrument import PassRunner, Timing
from tests.networks import mobilenet_v2

LARGE = ("mobilenetv2-x20-bn-96", "transformer-80")
NAME = "mobilenetv2-w1.0-224/full/host/b1"
LIMITED = "mobilenetv2-w0.35-128/full/host/b1"
T = TypeVar("T")
Clock: TypeAlias = Callable[[], float]


def run(quick: bool) -> list[Row]:
    """Cold and warm at 1x, 2x and 4x depth, then passes and phases, limits and orders."""
    os.environ[VARIABLE] = "off"
    _compiled(mobilenet_v2(1, size=32))  # imports and LLVM's start-up
    rows: list[Row] = []
    details: list[Row] = []
    previous: dict[str, float] = {}
    for depth in (1, 2, 4):
        program = mobilenet_v2(1, size=224, width=1.0, depth=depth)
        with tempfile.TemporaryDirectory() as folder:
            os.environ[VARIABLE] = folder
            times = _cold_and_warm(program)
            if depth == 1:
                details = [*_passes(program), *_phases(_compiled(program).lowered)]
        for name, value in times.items():
            growth = value / previous[name] if name in previous else None
            rows.append(Row(f"{NAME}/depth{depth}", name, value, "s", "half", growth))
        previous = times
    os.environ[VARIABLE] = "off"
    rows += [*details, *_limits((0.8,) if quick else (0.8, 0.5, 0.25))]
    for name in LARGE:
        rows += [row for row in order_rows(name, CASES[name](), 0) if row.metric == "greedy.time"]
    return rows


def _cold_and_warm(program: niwaki.Program) -> dict[str, float]:
    """Once with the cache as it is, empty, and the median of three times after that."""
    cold, *warm = (_both_clocks(program) for _ in range(4))
    wall, processor = (statistics.median(values) for values in zip(*warm, strict=True))
    return {
        "s.compile.cold": cold[0],
        "s.cpu.cold": cold[1],
        "s.compile.warm": wall,
        "s.cpu.warm": processor,
    }


def _both_clocks(program: niwaki.Program) -> tuple[float, float]:
    """Seconds of the wall clock, and of all threads."""
    work = partial(_timed, partial(_compiled, program))
    processor, (wall, _) = _timed(work, time.process_time)
    return wall, processor


def _passes(program: niwaki.Program) -> list[Row]:
    """Of each pass, where it takes a hundredth of a second or more, and of all."""
    timing = Timing()
    _compiled(program, instrument=PassRunner([timing]))
    totals: dict[str, float] = {}
    for name, seconds in timing.seconds:
        totals[name] = totals.get(name, 0.0) + seconds
    shown = {name: seconds for name, seconds in totals.items() if seconds >= 0.01}
    return [
        *(Row(NAME, f"s.pass.{name}", seconds, "s") for name, seconds in shown.items()),
        Row(NAME, "s.passes", sum(totals.values()), "s"),
    ]


def _phases(lowered: Lowered) -> list[Row]:
    """Of making code, one after the other on one thread: its own seconds."""
    target = get_target("host")
    symbols = kernel_symbols(kernel_keys(lowered.kernels, target))
    with rare_collections():
        build, functions = _processor(lambda: [kernel.build() for kernel in lowered.kernels])
        emit, texts = _processor(lambda: [emit_module([f], [], target, symbols) for f in functions])
    llvm, objects = _processor(lambda: [compile_object(text, target) for text in texts])
    program = emit_module([], lowered.programs, target, symbols)
    entry, code = _processor(lambda: compile_object(program, target))
    link, _ = _processor(lambda: LoadedObject(code, list(lowered.entries), objects))
    slowest = max(_processor(partial(compile_object, text, target))[0] for text in texts)
    seconds = {
        "s.code.build": build,
        "s.code.text": emit,
        "s.code.llvm": llvm,
        "s.code.slowest": slowest,
        "s.code.entries": entry,
        "s.code.link": link,
    }
    counts = {
        "kernels": len(functions),
        "operations": sum(1 for function in functions for _ in function.walk()),
        "text": sum(map(len, texts)),
        "objects": sum(map(len, objects)),
    }
    units = {"text": "bytes", "objects": "bytes"}
    return [
        *(Row(NAME, metric, value, "s") for metric, value in seconds.items()),
        *(Row(NAME, f"code.{name}", n, units.get(name, name)) for name, n in counts.items()),
    ]


def _limits(parts: tuple[float, ...]) -> list[Row]:
    """With a memory limit that is a part of what the step needs without one."""
    program = mobilenet_v2(1)
    plain, step = _timed(partial(_compiled, program))
    rows: list[Row] = []
    for part in parts:
        limit = int(part * (step.memory.arena_bytes + step.memory.state_bytes))
        try:
            seconds, _ = _timed(partial(_compiled, program, limit))
        except niwaki.DoesNotFitError:
            continue
        case = f"{LIMITED}/limit {part:.0%}"
        rows.append(Row(case, "s.compile.limit", seconds, "s", "plain", seconds / plain))
    return rows


def _compiled(
    program: niwaki.Program,
    memory_limit: int | None = None,
    instrument: PassRunner | None = None,
) -> niwaki.TrainingStep:
    return niwaki.compile(
        program,
        optimizer=niwaki.SGD(lr=0.01),
        target="host",
        memory_limit=memory_limit,
        instrument=instrument,
    )


def _timed(work: Callable[[], T], clock: Clock = time.perf_counter) -> tuple[float, T]:
    start = clock()
    result = work()
    return clock() - start, result


_processor = partial(_timed, clock=time.thread_time)


if __name__ == "__main__":
    main(__doc__, run)
