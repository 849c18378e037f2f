"""Measured kernel choice: times the alternatives of every kernel of a step on this machine."""

import time
from collections.abc import Callable, Sequence

from niwaki.backends.kernels.threads.on_threads import on_threads
from niwaki.backends.llvm.kernel_timer import KernelTimer
from niwaki.backends.targets import Target
from niwaki.passes.kernel_library import Kernel

_CLEARLY = 0.97
"""Of the time of the model's choice: what gains less than that may be noise."""
_SECONDS = 0.25
"""For one kernel at most."""

Report = Callable[[int, int], None]
"""(kernels measured, kernels in all): progress."""


def no_report(done: int, total: int) -> None:
    """Tells nobody."""


def fastest_choices(
    kernels: Sequence[Kernel],
    target: Target,
    step_bytes: int,
    seconds: float,
    report: Report = no_report,
) -> dict[str, str]:
    """Label of each kernel -> its fastest alternative; the model's unless another clearly wins.

    `step_bytes`: what a step reads and writes. `seconds`: of all measurements, about; the kernels
    of most operations come first, and those that time does not suffice for are left out. Of
    kernels of one label, which differ in layouts, one stands for all.
    """
    timer = KernelTimer(target, step_bytes)
    end = time.perf_counter() + seconds
    choices: dict[str, str] = {}
    dearest: dict[str, Kernel] = {}
    for kernel in sorted(kernels, key=lambda kernel: kernel.spec.cost, reverse=True):
        dearest.setdefault(kernel.label, kernel)
    ordered = list(dearest.values())
    for number, kernel in enumerate(ordered):
        report(number, len(ordered))
        rest = end - time.perf_counter()
        if rest <= 0:
            break
        limit = min(_SECONDS, rest / (len(ordered) - number))
        specs = {a.name: on_threads(a.spec(), target) for a in kernel.alternatives}
        choices[kernel.label] = fastest(kernel, timer.seconds(specs, limit))
    return choices


def fastest(kernel: Kernel, seconds: dict[str, float]) -> str:
    """The alternative that took least, or the model's if that took hardly longer."""
    preferred = kernel.alternatives[0].name
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < _CLEARLY * seconds[preferred] else preferred
