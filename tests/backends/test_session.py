"""Sessions: memory, and what resetting brings back."""

import gc
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

import niwaki
from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import get_target
from niwaki.ir.image import Image
from niwaki.ir.lowered import Lowered
from tests.c_small_model import small_model
from tests.networks import lenet

MEBIBYTE = 1 << 20


def anonymous_bytes() -> int:
    """Resident memory of this process that no file stands for."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("RssAnon:"))
    return 1024 * int(value)


def loaded(lowered: Lowered) -> Session:
    return Session(lowered, object_code(lowered, get_target("host")))


def test_a_state_is_in_memory_once() -> None:
    small = small_model()
    size = 64 * MEBIBYTE
    loaded(small)  # what LLVM loads once
    gc.collect()
    before = anonymous_bytes()
    content = bytes(small.state_image)
    lowered = replace(small, state_image=Image(size, lambda file: file.write(content)))
    session = loaded(lowered)
    session.state[:] = 1
    assert size <= anonymous_bytes() - before < 1.25 * size
    session.reset()
    assert session.state.tobytes() == bytes(lowered.state_image)
    assert anonymous_bytes() - before < 1.25 * size


def test_resets_are_exact_and_sessions_independent() -> None:
    step = niwaki.compile(lenet(2, 12), optimizer=niwaki.SGD(0.1, momentum=0.9))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(step.lowered.entries["infer"].inputs[0].shape, np.float32)
    y = np.array([1, 7], np.int32)
    initial = bytes(step.lowered.state_image)
    first, second = loaded(step.lowered), loaded(step.lowered)
    for _ in range(20):
        first.run("train_step", [x, y, np.array(0.1, np.float32)])
    assert first.state.tobytes() != initial
    assert second.state.tobytes() == initial
    first.reset()
    assert first.state.tobytes() == initial


def test_a_forked_process_has_a_state_of_its_own() -> None:
    session = loaded(small_model())
    initial = session.state.tobytes()
    session.state[:] = 7
    child = os.fork()
    if child == 0:
        session.reset()
        os._exit(session.state.tobytes() != initial)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert set(session.state.tolist()) == {7}
