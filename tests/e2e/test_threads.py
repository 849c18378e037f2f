"""Training steps on several threads leave the same bits behind as on one.

Everything that can be divided is, however small, and parts run at once as well as one after the
other in the opposite order, which finds what a race would seldom show.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from niwaki.backends.kernels.threads import on_threads
from niwaki.backends.llvm.compile import compile_object
from niwaki.backends.llvm.object import llvm_text
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import with_threads
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.compiled import HOST
from tests.networks import Net, program_of
from tests.random_networks import LAYERS, SPECS, Spec, build, inputs

STEPS = 2
OPTIONS = TrainingOptions("cross_entropy", SGD(0.05, momentum=0.5))


@pytest.fixture(autouse=True, scope="module")
def divide_everything() -> Iterator[None]:
    """Kernels of any size."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(on_threads, "LEAST_NS", 1e-3)
        yield


def _session(lowered: Lowered, text: str, number: int) -> Session:
    target = with_threads(HOST, number)
    return Session(lowered, compile_object(text, target), threads=number)


def _sessions(program: Program, parts: int) -> list[Session]:
    """One thread, then `parts` of them, then as many parts from the last one to the first."""
    lowered = compile_program(program, OPTIONS, HOST)
    divided = compile_program(program, OPTIONS, with_threads(HOST, parts))
    text = llvm_text(divided, with_threads(HOST, parts))
    assert "call void @pool.run" in text
    order = "%number = zext i32 %part to i64"
    assert text.count(order) == 1
    reverse = f"%up = zext i32 %part to i64\n  %number = sub i64 {parts - 1}, %up"
    # Also without threads, so that the order is certain.
    alone = text.replace(order, reverse).replace(
        f"icmp ult i64 %n, {parts - 1}", "icmp eq i64 0, 1"
    )
    return [
        _session(lowered, llvm_text(lowered, HOST), 1),
        _session(divided, text, parts),
        _session(divided, alone, parts),
    ]


def _train(session: Session, arrays: list[NDArray[np.generic]]) -> dict[str, bytes]:
    """All that steps and inference leave behind."""
    found: dict[str, bytes] = {}
    for number in range(STEPS):
        session.arena[:] = 0xFF
        (loss,) = session.run("train_step", [*arrays, np.asarray(np.float32(0.05))])
        found[f"loss {number}"] = loss.tobytes()
    for number, output in enumerate(session.run("infer", arrays[:-1])):
        found[f"output {number}"] = output.tobytes()
    for entry in session.lowered.state:
        found[entry.name] = entry.view(session.state).tobytes()
    session.close()
    return found


def _check(program: Program, arrays: list[NDArray[np.generic]], parts: int) -> None:
    single, *others = (_train(s, arrays) for s in _sessions(program, parts))
    for other in others:
        assert other == single


@pytest.mark.parametrize("kind", range(len(LAYERS)))
def test_layers(kind: int) -> None:
    _check(build([(kind, kind)]), list(inputs("cross_entropy")), 3)


@settings(max_examples=5)
@given(SPECS, st.integers(2, 5))
def test_networks(spec: Spec, parts: int) -> None:
    _check(build(spec), list(inputs("cross_entropy")), parts)


def _images(*shape: int) -> list[NDArray[np.generic]]:
    random = np.random.default_rng(1)
    x = random.standard_normal(shape).astype(np.float32)
    return [x, random.integers(0, 10, shape[0]).astype(np.int32)]


def test_strides_and_shortcuts() -> None:
    """Several samples, at sizes that register tiles do not divide."""

    def network(net: Net, x: Any) -> Any:
        x = net.relu(net.conv("stem", x, 20, 3, 2, 1))
        y = net.relu(net.conv("wide", x, 37, 3, 2, 1))
        return net.dense("head", net.global_avg_pool(net.conv("last", y, 37, 1, 2)), 10)

    _check(program_of(network, (3, 27, 22, 3)), _images(3, 27, 22, 3), 2)
