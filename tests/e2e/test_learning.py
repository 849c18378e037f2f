"""Models learn on real data: a network that knows the digits 0-4 is taught 5-9.

The data are the scanned digits of examples/digits.npz, 627 to learn from and 269 to be judged by.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import niwaki
from niwaki import SGD, Adam, Scheme, TrainingStep

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH = 16
EPOCHS = 10

Array = NDArray[Any]


def digits(split: str) -> tuple[Array, Array]:
    """Images [N, 1, 8, 8] in [0, 1] and labels [N] of one part of the data; N is cut to batches."""
    with np.load(EXAMPLES / "digits.npz") as data:
        chosen = data[split][: len(data[split]) // BATCH * BATCH]
        images = data["images"][chosen, None].astype(np.float32) / np.float32(16)
        return images, data["labels"][chosen]


def accuracy(step: TrainingStep, split: str) -> float:
    """Share of right answers."""
    images, labels = digits(split)
    correct = 0
    for start in range(0, len(labels), BATCH):
        chosen = slice(start, start + BATCH)
        _, right = step.evaluate(images[chosen], labels[chosen])
        assert right is not None
        assert right == (step.infer(images[chosen]).argmax(1) == labels[chosen]).sum()
        correct += right
    return correct / len(labels)


def train(step: TrainingStep) -> list[float]:
    """Mean loss of each epoch."""
    images, labels = digits("finetune_train")
    random = np.random.default_rng(0)
    means: list[float] = []
    for _ in range(EPOCHS):
        order = random.permutation(len(labels)).reshape(-1, BATCH)
        means.append(float(np.mean([step(images[c], labels[c]) for c in order])))
    return means


@pytest.mark.parametrize(
    ("update", "optimizer", "threshold"),
    [
        pytest.param("full", SGD(lr=0.02), 0.93, id="full"),
        pytest.param("full", Adam(lr=2e-3), 0.94, id="adam"),
        pytest.param("last_layers(2)", SGD(lr=0.01, momentum=0.9), 0.94, id="last_layers"),
        pytest.param("bias", SGD(lr=0.01, momentum=0.9), 0.92, id="bias"),
        pytest.param(
            Scheme.channels({"conv2.weight": 0.5, "conv3.weight": 0.25}, biases=3),
            SGD(lr=0.01, momentum=0.9),
            0.93,
            id="channels",
        ),
    ],
)
def test_a_network_learns_new_digits(
    update: str | Scheme, optimizer: SGD | Adam, threshold: float
) -> None:
    step = niwaki.compile(EXAMPLES / "digits.pt2", optimizer=optimizer, update=update, batch=BATCH)
    assert accuracy(step, "pretrain_test") > 0.95
    assert accuracy(step, "finetune_test") < 0.1
    losses = train(step)
    assert losses[-1] < 0.1 * losses[0]
    assert accuracy(step, "finetune_test") > threshold


def test_a_learning_rate_of_zero_teaches_nothing() -> None:
    step = niwaki.compile(EXAMPLES / "digits.pt2", optimizer=SGD(lr=0.0), batch=BATCH)
    before = {name: array.copy() for name, array in step.parameters.items()}
    train(step)
    assert all(np.array_equal(array, before[name]) for name, array in step.parameters.items())
    assert accuracy(step, "finetune_test") < 0.1
