"""What activations in bf16 and i8 save, and what they do to gradients and to learning.

python -m benchmarks.stash [--quick] [--json PATH]
"""

import statistics
from functools import partial
from typing import Any

import numpy as np

import niwaki
from benchmarks.common import Row, interleaved, main
from benchmarks.networks import CASES
from niwaki.passes.narrow_stash import STASHES

STEPS = 30
BATCHES = 4
"""Different batches of the problem that is learned."""
LEARNING_RATES = {"lenet": 0.01, "mobilenetv2-w0.35-128": 0.01, "resnet18-64": 0.001}
_UNIT_RATE = 2.0**20
"""A step so long that the parameters before it vanish beside it: what is left is the gradient."""

Array = np.ndarray[Any, np.dtype[Any]]
_Batch = tuple[Array, Array]


def run(quick: bool) -> list[Row]:
    """Rows for full updates: LeNet, then the larger networks."""
    sizes = {name: (1, 8) if "mobilenet" in name else (8,) for name in LEARNING_RATES}
    rows: list[Row] = []
    for name, batches in sizes.items():
        if not quick or name == "lenet":
            for batch in batches:
                rows += _compare(name, batch)
    return rows


def _compare(name: str, batch: int) -> list[Row]:
    steps = {
        stash: niwaki.compile(CASES[name].program(batch), stash=stash)
        for stash in (None, *STASHES)
    }  # fmt: skip
    problem = _problem(steps[None])
    gradients = {stash: _gradients(step, problem[0]) for stash, step in steps.items()}
    times = _milliseconds(list(steps.values()), problem[0])
    rows: list[Row] = []
    for stash, step in steps.items():
        label = f"{name}/b{batch}/{stash or 'exact'}"
        arena = step.memory.arena_bytes
        saved = steps[None].memory.arena_bytes / arena
        rows.append(Row(label, "arena.bytes", arena, "bytes", "exact", saved))
        if stash is not None:
            errors = [
                _relative_error(gradients[stash][key], exact)
                for key, exact in gradients[None].items()
            ]
            rows += [
                Row(label, "gradient.error.max", max(errors), "% of norm"),
                Row(label, "gradient.error.median", statistics.median(errors), "% of norm"),
            ]
        rows += [
            Row(label, "loss.before", _loss(step, problem), "nats"),
            Row(label, f"loss.after{STEPS}", _learn(step, problem, LEARNING_RATES[name]), "nats"),
        ]
    for stash, milliseconds in zip(steps, times, strict=True):
        label = f"{name}/b{batch}/{stash or 'exact'}"
        rows.append(Row(label, "step.ms", milliseconds, "ms", "exact", times[0] / milliseconds))
    return rows


def _milliseconds(steps: list[niwaki.TrainingStep], batch: _Batch) -> list[float]:
    """Of one step of each; nothing is learned, so that all compute on the same numbers."""
    for step in steps:
        step.lr = 0.0
    return interleaved([partial(step, *batch) for step in steps], seconds=2.0)


def _problem(step: niwaki.TrainingStep) -> list[_Batch]:
    """One pattern for each class, under noise."""
    x, y, _ = step.lowered.entries["train_step"].inputs
    (logits,) = step.lowered.entries["infer"].outputs
    random = np.random.default_rng(0)
    patterns = random.standard_normal((logits.shape[-1], *x.shape[1:]))
    batches: list[_Batch] = []
    for _ in range(BATCHES):
        labels = random.integers(0, len(patterns), y.shape)
        images = patterns[labels] + random.standard_normal(x.shape)
        batches.append((images.astype(np.float32), labels.astype(np.int32)))
    return batches


def _gradients(step: niwaki.TrainingStep, batch: _Batch) -> dict[str, Array]:
    """Of each parameter; the step is left as it was."""
    before = dict(step.parameters)
    step.lr = _UNIT_RATE
    step(*batch)
    gradients = {
        name: np.subtract(before[name], value, dtype=np.float32) / _UNIT_RATE
        for name, value in step.parameters.items()
    }
    for name, value in before.items():
        step.parameters.assign(name, value)
    return gradients


def _relative_error(actual: Array, exact: Array) -> float:
    """In per cent of the norm."""
    return 100 * float(np.linalg.norm(actual - exact) / np.linalg.norm(exact))


def _learn(step: niwaki.TrainingStep, problem: list[_Batch], rate: float) -> float:
    """The loss after training on the batches in turn."""
    step.lr = rate
    for number in range(STEPS):
        step(*problem[number % len(problem)])
    return _loss(step, problem)


def _loss(step: niwaki.TrainingStep, problem: list[_Batch]) -> float:
    return statistics.mean(step.evaluate(*batch)[0] for batch in problem)


if __name__ == "__main__":
    main(__doc__, run)
