"""Times kernels that compute the same thing on this machine, in turn, as a step would call them."""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import MemRefType, f32

from niwaki.backends.kernels.spec import KernelSpec, buffer_bytes
from niwaki.backends.llvm.compile import LoadedObject, compile_object
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.llvm.machine_limits import entry_call
from niwaki.backends.llvm.one_call import one_call
from niwaki.backends.llvm.session import aligned_bytes
from niwaki.backends.targets import Target

_LEAST_ROUNDS = 5
_HOPELESS = 1.5
"""Times the best: what took longer in the second round is not measured again."""


class KernelTimer:
    """Times calls that find in the caches what the rest of a step leaves there."""

    def __init__(self, target: Target, step_bytes: int) -> None:
        """`step_bytes`: what a whole step reads and writes."""
        self._target = target
        # What other programs take of the core is not the kernel's.
        self._clock = time.thread_time if target.threads == 1 else time.perf_counter
        self._swept = np.zeros(max(1, min(step_bytes, 4 * target.cache_bytes) // 8), np.int64)

    def seconds(self, specs: Mapping[str, KernelSpec], limit: float) -> dict[str, float]:
        """Name -> the median time of a call, all measured within about `limit` seconds.

        `specs` have operands and results in common, but for weights that come packed.
        """
        calls = self._calls(specs)
        self._round(calls)  # Brings in the code.
        times = {name: [seconds] for name, seconds in self._round(calls).items()}
        best = min(seconds for (seconds,) in times.values())
        calls = {name: call for name, call in calls.items() if times[name][0] <= _HOPELESS * best}
        end, rounds = time.perf_counter() + limit, 1
        while len(calls) > 1 and (rounds < _LEAST_ROUNDS or time.perf_counter() < end):
            for name, seconds in self._round(calls).items():
                times[name].append(seconds)
            rounds += 1
        return {name: statistics.median(samples) for name, samples in times.items()}

    def _round(self, calls: Mapping[str, Callable[[], None]]) -> dict[str, float]:
        times: dict[str, float] = {}
        for name, call in calls.items():
            self._swept += 1
            start = self._clock()
            call()
            times[name] = self._clock() - start
        return times

    def _calls(self, specs: Mapping[str, KernelSpec]) -> dict[str, Callable[[], None]]:
        target, chosen = self._target, list(specs.values())
        kernels = [spec.build(f"kernel_{i}") for i, spec in enumerate(chosen)]
        programs = [one_call(spec, f"kernel_{i}", f"run_{i}") for i, spec in enumerate(chosen)]
        code = compile_object(emit_module(kernels, programs, target), target)
        entries = [program.sym_name.data for program in programs]
        loaded = LoadedObject(code, entries, threads=target.threads)
        arrays = {spec.operands: _arrays(spec) for spec in chosen}
        arena = aligned_bytes(max(1, *(spec.workspace for spec in chosen)))
        empty = aligned_bytes(1)
        return {
            name: entry_call(loaded, entry, [arena, empty, empty, *arrays[spec.operands]])
            for (name, spec), entry in zip(specs.items(), entries, strict=True)
        }


def _arrays(spec: KernelSpec) -> list[NDArray[np.generic]]:
    """Operands and results; results overwrite what they may, as parameters are updated."""
    rng = np.random.default_rng(0)
    operands = [_random(kind, rng) for kind in spec.operands]
    results: list[NDArray[np.generic]] = []
    overwritten: set[int] = set()
    for number, kind in enumerate(spec.results):
        pairs = (i for i, j in spec.in_place if j == number and i not in overwritten)
        operand = next(pairs, None)
        if operand is None:
            results.append(_random(kind, rng))
        else:
            overwritten.add(operand)
            results.append(operands[operand])
    return [*operands, *results]


def _random(kind: MemRefType, rng: np.random.Generator) -> NDArray[np.generic]:
    """Memory of a buffer: numbers around 0, or any bits."""
    memory = aligned_bytes(buffer_bytes(kind))
    if kind.element_type == f32:
        memory.view(np.float32)[:] = rng.standard_normal(memory.size // 4, np.float32)
    else:
        # As bf16 too these are numbers.
        memory[:] = rng.integers(0, 64, memory.size, np.uint8)
    return memory
