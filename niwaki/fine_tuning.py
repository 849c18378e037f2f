"""Training on data in whole batches, and how well an update scheme does at it."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.func import FuncOp

from niwaki.compilation import compile
from niwaki.ir.context import NiwakiContext
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import Scheme
from niwaki.ir.weights import Array, content_hash
from niwaki.passes.instrument import PassRunner
from niwaki.passes.pipelines import forward_pipeline
from niwaki.step import TrainingStep

Dataset: TypeAlias = tuple[Array, Array]
"""(x, y), with as many samples each."""


@dataclass(frozen=True)
class Score:
    """How well a model does on data; the accuracy is None where the loss counts no answers."""

    loss: float
    accuracy: float | None


@dataclass(frozen=True)
class FineTuning:
    """Short trainings that compare update schemes: all of them see the same batches."""

    program: Program
    train: Dataset
    held_out: Dataset
    steps: int
    repeats: int
    """Trainings with other batches; one alone may rank schemes by luck."""
    seed: int
    options: Mapping[str, Any]
    """More arguments of `niwaki.compile`."""

    def forward(self) -> FuncOp:
        """The model's function, with the layers that schemes count."""
        program = self.program.clone()
        batch, batch_norm = self.options.get("batch"), self.options.get("batch_norm", "as_is")
        passes = forward_pipeline(batch, batch_norm)
        PassRunner().run(NiwakiContext(program.weights), program.module, passes)
        return program.function("forward")

    def score(self, scheme: Scheme) -> Score:
        """The mean on the held-out data over the trainings with `scheme` on this machine.

        Raises UsageError if a data set is smaller than a batch, and what `niwaki.compile` raises.
        """
        step = compile(self.program, update=scheme, seed=self.seed, **self.options)
        return _mean([self._score(step, self.seed + i) for i in range(self.repeats)])

    def _score(self, step: TrainingStep, seed: int) -> Score:
        step.reset()
        x, y = self.train
        for chosen in islice(shuffled_batches(len(x), batch_of(step), seed), self.steps):
            step(x[chosen], y[chosen])
        return evaluate(step, *self.held_out)

    def identity(self) -> dict[str, Any]:
        """Hashes of model and data, and everything else that scores depend on."""
        arrays = (*self.train, *self.held_out)
        return {
            "model": hashlib.sha256(str(self.program.module).encode()).hexdigest()[:16],
            "data": " ".join(content_hash(array) for array in arrays),
            "steps": self.steps,
            "repeats": self.repeats,
            "seed": self.seed,
            "options": {name: str(value) for name, value in sorted(self.options.items())},
        }


def batch_of(step: TrainingStep) -> int:
    """Samples per step."""
    return step.lowered.entries["train_step"].inputs[0].shape[0]


def shuffled_batches(samples: int, batch: int, seed: int) -> Iterator[NDArray[np.intp]]:
    """Indices of whole batches without end, reshuffled each time that the samples run out.

    Raises UsageError if there are fewer samples than a batch.
    """
    _check_samples(samples, batch)
    return _endless_batches(samples, batch, np.random.default_rng(seed))


def _endless_batches(
    samples: int, batch: int, random: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    while True:
        order = random.permutation(samples)
        for start in range(0, samples - batch + 1, batch):
            yield order[start : start + batch]


def evaluate(step: TrainingStep, x: Array, y: Array) -> Score:
    """Over whole batches; samples beyond the last one are left out.

    Raises UsageError if there are fewer samples than a batch.
    """
    batch = batch_of(step)
    _check_samples(len(x), batch)
    scores: list[Score] = []
    for start in range(0, len(x) - batch + 1, batch):
        loss, right = step.evaluate(x[start : start + batch], y[start : start + batch])
        scores.append(Score(loss, None if right is None else right / batch))
    return _mean(scores)


def _mean(scores: Sequence[Score]) -> Score:
    accuracies = [score.accuracy for score in scores if score.accuracy is not None]
    loss = float(np.mean([score.loss for score in scores]))
    return Score(loss, float(np.mean(accuracies)) if accuracies else None)


def _check_samples(samples: int, batch: int) -> None:
    if samples < batch:
        raise UsageError(f"the data has {samples} sample(s), fewer than a batch of {batch}")
