"""A network trained by the interpreter, the JIT and C on every kind of machine: the same steps."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import get_target, portable_c
from niwaki.ir.interpreter import run
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Scheme, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.c_programs import need_tools
from tests.c_training import POISON, train_in_c
from tests.networks import lenet
from tests.training_programs import training_program

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 4
RTOL = 2e-5
"""Of losses and parameters: float32 sums in another order, and other libraries' exp."""
RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((2, 12, 12, 1)).astype(np.float32)
Y = np.array([3, 7], np.int32)
LR = 0.02
OPTIONS = {
    "momentum/full": TrainingOptions(optimizer=SGD(lr=LR, momentum=0.9, weight_decay=1e-3)),
    # A large epsilon: Adam divides by the gradient's size, which makes noise of tiny gradients.
    "adam/last_layers": TrainingOptions(
        optimizer=Adam(lr=LR, epsilon=1e-3), scheme=Scheme.last_layers(2)
    ),
}
BOARDS = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")


@cache
def network() -> Program:
    return lenet(2, 12)


@cache
def reference(case: str) -> tuple[list[float], dict[str, Array]]:
    """Losses and the state at the end, by the interpreter."""
    options = OPTIONS[case]
    program = training_program(network(), options.optimizer, options.scheme)
    state: dict[str, Array] = {}
    inputs = [X, Y, np.float32(LR)]
    losses = [float(run(program, "train_step", inputs, state)[0]) for _ in range(STEPS)]
    assert losses[-1] < losses[0]
    return losses, state


def compare(case: str, losses: list[float], image: Array, lowered: Lowered) -> None:
    expected, state = reference(case)
    np.testing.assert_allclose(losses, expected, rtol=RTOL)
    found: Mapping[str, Array] = {e.name: e.view(image) for e in lowered.state}
    assert set(state) <= set(found)
    for name, array in state.items():
        scale = np.abs(array).max()
        np.testing.assert_allclose(found[name], array, rtol=RTOL, atol=RTOL * scale, err_msg=name)


@pytest.mark.parametrize("case", OPTIONS)
def test_jit(case: str) -> None:
    target = get_target("host")
    lowered = compile_program(network(), OPTIONS[case], target)
    session = Session(lowered, object_code(lowered, target))
    losses: list[float] = []
    for _ in range(STEPS):
        session.arena[:] = POISON
        losses.append(float(session.run("train_step", [X, Y, np.float32(LR)])[0]))
    compare(case, losses, session.state, lowered)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        *(("momentum/full", name) for name in ("host", "aarch64", "armv7", *BOARDS)),
        ("adam/last_layers", "host"),
        ("adam/last_layers", "cortex-m7"),
    ],
)
def test_c(case: str, name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    lowered = compile_program(network(), OPTIONS[case], portable_c(target))
    losses, image = train_in_c(lowered, [X, Y], STEPS, LR, target, tmp_path)
    compare(case, losses, image, lowered)
