"""A trained network, quantised with some of its data: accuracy, the compiled step, training."""

from pathlib import Path

import numpy as np
import pytest

import niwaki
from niwaki.ir.interpreter import run
from niwaki.passes.calibration import METHODS

EXAMPLES = Path(__file__).parents[2] / "examples"
BATCH = 16


class Digits:
    """The example's network and data; the network has seen the digits 0 to 4 only."""

    def __init__(self) -> None:
        self.program = niwaki.load(EXAMPLES / "digits.pt2")
        with np.load(EXAMPLES / "digits.npz") as data:
            self.splits = {name: data[name] for name in data.files}

    def of(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Whole batches of images and labels."""
        chosen = self.splits[split]
        chosen = chosen[: len(chosen) // BATCH * BATCH]
        images = self.splits["images"][chosen].astype(np.float32)[:, None] / 16
        return images, self.splits["labels"][chosen]


@pytest.fixture(scope="module", name="digits")
def fixture_digits() -> Digits:
    return Digits()


def accuracy(step: niwaki.TrainingStep, x: np.ndarray, y: np.ndarray) -> float:
    correct = [
        step.evaluate(x[i : i + BATCH], y[i : i + BATCH])[1] or 0 for i in range(0, len(x), BATCH)
    ]
    return sum(correct) / len(x)


@pytest.mark.parametrize("method", METHODS)
def test_quantised_digits(digits: Digits, method: str) -> None:
    """Less than 2 points of accuracy are lost; compiled and interpreted logits are the same."""
    calibration, _ = digits.of("pretrain_train")
    x, y = digits.of("pretrain_test")
    quantized = niwaki.quantize(digits.program, calibration[:64], method)
    steps = [niwaki.compile(p, batch=BATCH) for p in (digits.program, quantized)]

    before, after = (accuracy(step, x, y) for step in steps)
    assert before > 0.95
    assert after > before - 0.02
    for i in range(4):
        (expected,) = run(quantized, "forward", [x[i : i + 1]])
        np.testing.assert_array_equal(steps[1].infer(x[:BATCH])[i], expected[0])
    names = [name for name in quantized.weights if name.endswith("weight")]
    assert len(names) == 4
    assert all(quantized.weights[name].dtype == np.int8 for name in names)


def test_quantised_digits_learn(digits: Digits) -> None:
    """Digits that the network has never seen."""
    calibration, _ = digits.of("pretrain_train")
    x, y = digits.of("finetune_train")
    quantized = niwaki.quantize(digits.program, calibration[:64])
    step = niwaki.compile(quantized, optimizer=niwaki.SGD(lr=0.02), batch=BATCH)

    losses = [step(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, 30 * BATCH, BATCH)]
    assert np.mean(losses[-5:]) < 0.1 * losses[0]
    assert accuracy(step, *digits.of("finetune_test")) > 0.5


def test_a_path_will_do(digits: Digits) -> None:
    calibration, _ = digits.of("pretrain_train")

    program = niwaki.quantize(EXAMPLES / "digits.pt2", calibration[:2], input="codes")
    assert "nn.quantize " not in str(program.module)
    step = niwaki.compile(program, batch=2)
    assert np.shape(step.infer(np.zeros((2, 1, 8, 8), np.int8))) == (2, 10)
