"""The model's choice of kernels against measured choice.

    python -m benchmarks.tuning [--quick] [--json PATH]

One thread. The step as the model chooses and the tuned step run in turn, and time is the thread's
own; `ratio` is untuned / tuned. `kernels.changed` is how many kernels a measurement chose
otherwise, of those that have alternatives. Of the kernels by themselves, measured again after
tuning: `model.loss` is what the model's choices take over the fastest alternatives', all calls of a
step together; `model.loss.worst` that of the worst kernel.
"""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import niwaki
from benchmarks.common import Row, interleaved, main
from benchmarks.peers.frameworks.niwaki_step import LAYOUT, program
from benchmarks.peers.networks import MODELS
from niwaki.backends.llvm.kernel_timer import KernelTimer
from niwaki.passes.kernel_library import Kernel

CASES = (
    ("mlp", 32),
    ("lenet", 8),
    ("mobilenetv2-w0.35-128", 8),
    ("resnet18-224", 1),
    ("encoder-6x384", 1),
)
KERNEL_SECONDS = 0.1


@dataclass(frozen=True)
class Measured:
    """A kernel's alternatives by name: seconds."""

    calls: int
    preferred: str
    seconds: Mapping[str, float]

    @property
    def loss(self) -> float:
        """What the model's choice takes over the fastest one, less 1."""
        return self.seconds[self.preferred] / min(self.seconds.values()) - 1


def measurements(step: niwaki.TrainingStep, seconds: float) -> list[Measured]:
    """Of the kernels that a training step calls, those of most operations first."""
    calls = Counter(call.kernel for call in step.lowered.entries["train_step"].calls)
    called = {kernel.identity: calls[kernel.name] for kernel in step.lowered.kernels}
    timer = KernelTimer(step.target, step.lowered.arena_bytes + step.lowered.state_bytes)
    end = time.perf_counter() + seconds

    def measured(kernel: Kernel) -> Measured:
        found = kernel.alternatives
        times = timer.seconds({a.name: a.spec() for a in found}, KERNEL_SECONDS)
        return Measured(called[kernel.identity], found[0].name, times)

    ordered = sorted(step.choices, key=lambda kernel: kernel.spec.cost, reverse=True)
    return [
        measured(kernel)
        for kernel in ordered
        if called[kernel.identity] and time.perf_counter() < end
    ]


def run_case(name: str, batch: int, quick: bool) -> list[Row]:
    """All rows of one network."""
    model = MODELS[name]
    network, data = program(model, batch), model.data(batch, LAYOUT)
    optimizer = niwaki.SGD(lr=model.lr)
    untuned = niwaki.compile(network, optimizer=optimizer)
    tuning = untuned.tune(10 if quick else 60)
    tuned = niwaki.compile(network, optimizer=optimizer, tuning=tuning)
    steps = [lambda: untuned(*data), lambda: tuned(*data)]
    before, after = interleaved(steps, 2 if quick else 15, 7, time.thread_time)
    ranked = measurements(untuned, 10 if quick else 60)
    chosen = sum(r.calls * r.seconds[r.preferred] for r in ranked)
    best = sum(r.calls * min(r.seconds.values()) for r in ranked)
    case = f"{name}/b{batch}"
    return [
        Row(case, "ms.untuned", before, "ms"),
        Row(case, "ms.tuned", after, "ms", "model", before / after),
        Row(case, "kernels.changed", tuned.tuned_kernels, f"of {len(untuned.choices)}"),
        Row(case, "model.loss", 100 * (chosen / best - 1), "%"),
        Row(case, "model.loss.worst", 100 * max(r.loss for r in ranked), "%"),
    ]


def run(quick: bool) -> list[Row]:
    """Every case; quick: the first and the third."""
    return [row for case in (CASES[:3:2] if quick else CASES) for row in run_case(*case, quick)]


if __name__ == "__main__":
    main(__doc__, run)
