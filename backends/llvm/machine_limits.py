"""What this machine can do at most, measured by loops of our own: multiply-adds and memory."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from threading import Barrier

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import MemRefType, f32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.backends.llvm.compile import LoadedObject, compile_object, pointer_block
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.targets import Target

_CHAINS = 12
"""Independent sums: more than the latency of two units times their number."""
_UNROLL = 4
_TRIPS = 10_000
_SIZES = tuple(1 << n for n in range(14, 28, 2))
"""Bytes that a copy moves: from what fits the smallest cache to what fits none."""
_CALL_BYTES = 8 << 20
"""That one timed call moves at least, so that calling it costs nothing beside."""
_SECONDS = 0.03


@dataclass(frozen=True)
class MachineLimits:
    """The roofline of a machine: its peak, and the bandwidth of each level of its memory."""

    flops_per_second: float
    bytes_per_second: Mapping[int, float]
    """By the bytes that are moved again and again, ascending."""

    def bandwidth(self, size: int) -> float:
        """Of moving `size` bytes at best: as if they were in the smallest cache that holds them."""
        below = [s for s in self.bytes_per_second if s <= size]
        return self.bytes_per_second[max(below, default=min(self.bytes_per_second))]

    def least_seconds(self, flops: int, size: int) -> float:
        """What `flops` operations on `size` bytes take at least."""
        return max(flops / self.flops_per_second, size / self.bandwidth(size))


def measure_limits(target: Target) -> MachineLimits:
    """The limits of this machine with the vectors and the threads of `target`; takes a second."""
    peak = _rate(target.threads, lambda: peak_loop(target))
    return MachineLimits(
        peak, {size: _rate(target.threads, partial(_copies, size, target)) for size in _SIZES}
    )


def _copies(size: int, target: Target) -> tuple[Callable[[], None], int]:
    # A core's share of the memory that all of them work on.
    own = size // target.threads
    repeats = max(1, _CALL_BYTES // own)
    return copy_loop(own, target, repeats), own * repeats


def _rate(threads: int, make: Callable[[], tuple[Callable[[], None], int]]) -> float:
    """What the calls that `make` gives do in a second, in `threads` threads at once."""
    start = Barrier(threads)

    def best(number: int) -> float:
        run, work = make()
        run()
        start.wait()
        end, least = time.perf_counter() + _SECONDS, float("inf")
        while time.perf_counter() < end:
            before = time.perf_counter()
            run()
            least = min(least, time.perf_counter() - before)
        return work / least

    with ThreadPoolExecutor(threads) as pool:
        return sum(pool.map(best, range(threads)))


def peak_loop(target: Target) -> tuple[Callable[[], None], int]:
    """A call that only multiplies and adds in registers, and its floating-point operations."""
    lanes = target.lanes
    kind = MemRefType(f32, [_CHAINS * lanes])
    k = KernelBuilder("limit", [kind])
    (memory,) = k.args
    factor = k.load(memory, [0], lanes)
    sums = [k.load(memory, [i * lanes], lanes) for i in range(_CHAINS)]

    def step(_i: Value, totals: Sequence[Value]) -> Sequence[Value]:
        for _ in range(_UNROLL):
            totals = [k.fma(factor, factor, total) for total in totals]
        return totals

    for i, total in enumerate(k.loop(0, _TRIPS, 1, step, sums)):
        k.store(total, memory, [i * lanes])
    run = _call(k.finish(), [np.zeros(_CHAINS * lanes, np.float32)], target)
    return run, 2 * _TRIPS * _UNROLL * _CHAINS * lanes


def copy_loop(size: int, target: Target, repeats: int = 1) -> Callable[[], None]:
    """A call that moves `size` bytes: reads one half of them and writes the other half.

    `repeats`: how often it does so.
    """
    lanes = target.lanes
    count = max(size // 8 // (4 * lanes), 1) * 4 * lanes
    kind = MemRefType(f32, [count])
    k = KernelBuilder("limit", [kind, kind])
    source, goal = k.args

    def step(i: Value) -> None:
        for offset in range(0, 4 * lanes, lanes):
            place = [k.iadd(i, offset)]
            k.store(k.load(source, place, lanes), goal, place)

    k.each(0, repeats, 1, lambda _: k.each(0, count, 4 * lanes, step))
    return _call(k.finish(), [np.zeros(count, np.float32), np.ones(count, np.float32)], target)


def _call(
    kernel: FuncOp, arrays: Sequence[NDArray[np.generic]], target: Target
) -> Callable[[], None]:
    loads = [
        f"  %slot{i} = getelementptr ptr, ptr %block, i32 {i}\n  %a{i} = load ptr, ptr %slot{i}"
        for i in range(len(arrays))
    ]
    arguments = ", ".join(f"ptr %a{i}" for i in range(len(arrays)))
    entry = "\n".join(
        ["define void @run(ptr %block) {", *loads, f"  call void @limit({arguments})", "  ret void"]
    )
    code = compile_object(f"{emit_module([kernel], [], target)}\n{entry}\n}}\n", target)
    loaded = LoadedObject(code, ["run"])
    return entry_call(loaded, "run", arrays)


def entry_call(
    loaded: LoadedObject, name: str, arrays: Sequence[NDArray[np.generic]]
) -> Callable[[], None]:
    """A call of an entry point with nothing around it; keeps `arrays` alive."""
    block = pointer_block(arrays)
    function, address, kept = loaded.functions[name], block.ctypes.data, (loaded, block, *arrays)
    return lambda kept=kept: function(address)
