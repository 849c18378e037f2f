"""A quantised network trained by the interpreter, the JIT, C and emulated cores: bit for bit."""

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
from niwaki.passes.pipelines import compile_program
from tests.c_programs import need_tools
from tests.c_training import POISON, train_in_c
from tests.small_quantized_network import LR, OPTIONS, samples, small_network, trained

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 6


@cache
def reference(case: str) -> tuple[list[float], dict[str, Array]]:
    """Losses and the state at the end, by the interpreter."""
    program = trained(small_network(), OPTIONS[case], upto="integer-backward")
    x, labels = samples()
    state: dict[str, Array] = {}
    losses = [
        float(run(program, "train_step", [x, labels, np.array(LR, np.float32)], state)[0])
        for _ in range(STEPS)
    ]
    return losses, state


def compare(case: str, losses: list[float], image: Array, lowered: Lowered) -> None:
    """Losses and everything that training leaves are equal."""
    expected, state = reference(case)
    assert losses == expected
    found = {e.name: e.view(image) for e in lowered.state}
    assert set(state) <= set(found)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("case", OPTIONS)
def test_every_parameter_learns(case: str) -> None:
    losses, state = reference(case)
    weights = small_network().weights

    assert losses[-1] < losses[0]
    for name in weights:
        assert np.any(state[name] != weights[name]), name


@pytest.mark.parametrize("case", OPTIONS)
def test_jit(case: str) -> None:
    target = get_target("host")
    lowered = compile_program(small_network(), OPTIONS[case], target)
    session = Session(lowered, object_code(lowered, target))
    x, labels = samples()
    losses: list[float] = []
    for _ in range(STEPS):
        session.arena[:] = POISON
        losses.append(float(session.run("train_step", [x, labels, np.array(LR, np.float32)])[0]))
    compare(case, losses, session.state, lowered)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        *(("sgd", name) for name in ("host", "armv7", "cortex-m4", "cortex-m7", "cortex-m55")),
        ("momentum", "host"),
        ("momentum", "cortex-m7"),
        ("adam", "host"),
        ("adam", "cortex-m7"),
    ],
)
def test_c(case: str, name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    lowered = compile_program(small_network(), OPTIONS[case], portable_c(target))
    losses, image = train_in_c(lowered, samples(), STEPS, LR, target, tmp_path)
    compare(case, losses, image, lowered)
