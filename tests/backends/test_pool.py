"""The threads of a program: started once, asleep between steps, gone when it is closed."""

import gc
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from niwaki.backends.llvm.compile import compile_object
from niwaki.backends.llvm.object import llvm_text
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import get_target, with_threads
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered
from niwaki.passes.lower_to_plan import lower
from tests.compiled import HOST, scheduled

THREADS = 3
TARGET = with_threads(HOST, THREADS)
SHAPE = (64, 256)
X = np.random.default_rng(0).standard_normal(SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def lowered() -> Lowered:
    """Large enough to be divided: the values doubled, then their sums along rows."""
    b = ProgramBuilder()
    doubled = b.scale(b.input(SHAPE), 2.0)
    return lower(scheduled(b.finish(doubled, b.reduce_sum(doubled, [1]))), TARGET)


@pytest.fixture(scope="module")
def text(lowered: Lowered) -> str:
    found = llvm_text(lowered, TARGET)
    assert "call void @pool.run" in found
    return found


@pytest.fixture(scope="module")
def code(text: str) -> bytes:
    return compile_object(text, TARGET)


_REFUSING = """
define internal i32 @refusing(ptr %a, ptr %b, ptr %c, ptr %d) {{
  %started = load i32, ptr @pool.workers
  %enough = icmp eq i32 %started, {}
  br i1 %enough, label %no, label %yes
yes:
  %r = call i32 @pthread_create(ptr %a, ptr %b, ptr %c, ptr %d)
  ret i32 %r
no:
  ret i32 11
}}
"""


def _threads() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


def _check(session: Session) -> None:
    doubled, sums = session.run("forward", [X])
    np.testing.assert_array_equal(doubled, 2 * X)
    np.testing.assert_allclose(sums.astype(np.float32).ravel(), (2 * X).sum(1), atol=1e-4)


def test_threads_start_with_the_first_run_and_end_with_close(lowered: Lowered, code: bytes) -> None:
    before = _threads()
    session = Session(lowered, code, threads=THREADS)
    assert _threads() == before
    _check(session)
    started = _threads()
    assert len(started - before) == THREADS - 1
    _check(session)
    assert _threads() == started
    session.close()
    assert _threads() == before
    session.close()
    _check(session)
    assert len(_threads() - before) == THREADS - 1
    session.close()
    assert _threads() == before


def test_threads_end_with_the_session(lowered: Lowered, code: bytes) -> None:
    before = _threads()
    session = Session(lowered, code, threads=THREADS)
    _check(session)
    assert len(_threads()) > len(before)
    del session
    gc.collect()
    assert _threads() == before


def test_many_sessions(lowered: Lowered, code: bytes) -> None:
    before = _threads()
    sessions = [Session(lowered, code, threads=THREADS) for _ in range(6)]
    for session in [*sessions, *sessions]:
        _check(session)
    assert len(_threads() - before) == 6 * (THREADS - 1)
    for session in sessions:
        session.close()
    assert _threads() == before


def test_many_runs(lowered: Lowered, code: bytes) -> None:
    """Threads that spin, sleep and come late: every run waits for all of its parts."""
    session = Session(lowered, code, threads=THREADS)
    for number in range(300):
        x = X + np.float32(number)
        np.testing.assert_array_equal(session.run("forward", [x])[0], 2 * x)
        if number % 100 == 0:
            time.sleep(0.01)
    session.close()


def _cpu_ticks(thread: str) -> int:
    """User and system time of a thread of this process."""
    fields = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _asleep(thread: str) -> bool:
    status = Path(f"/proc/self/task/{thread}/stat").read_text().rpartition(")")[2].split()
    return status[0] == "S"


def test_idle_threads_sleep(lowered: Lowered, code: bytes) -> None:
    before = _threads()
    session = Session(lowered, code, threads=THREADS)
    _check(session)
    own = sorted(_threads() - before)
    for _ in range(1000):
        if all(map(_asleep, own)):
            break
        time.sleep(0.01)
    ticks = [_cpu_ticks(thread) for thread in own]
    time.sleep(0.3)
    assert [_cpu_ticks(thread) for thread in own] == ticks
    assert all(map(_asleep, own))
    session.close()


def test_forked_child_has_threads_of_its_own(lowered: Lowered, code: bytes) -> None:
    session = Session(lowered, code, threads=THREADS)
    _check(session)
    child = os.fork()
    if child == 0:
        # Whatever happens, the child must not go on as a second test run.
        try:
            alone = len(_threads()) == 1
            _check(session)
            started = len(_threads()) == THREADS
            session.close()
            os._exit(0 if alone and started and len(_threads()) == 1 else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    _check(session)
    session.close()


def test_child_that_closes_without_a_run(lowered: Lowered, code: bytes) -> None:
    session = Session(lowered, code, threads=THREADS)
    _check(session)
    child = os.fork()
    if child == 0:
        try:
            session.close()
            os._exit(0)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    _check(session)
    session.close()


@pytest.mark.parametrize("allowed", range(THREADS - 1))
def test_refused_threads(lowered: Lowered, text: str, allowed: int) -> None:
    """The system starts `allowed` threads and no more: the others' parts run all the same."""
    call = "call i32 @pthread_create(ptr %thread"
    assert text.count(call) == 1
    refusing = text.replace(call, "call i32 @refusing(ptr %thread") + _REFUSING.format(allowed)
    before = _threads()
    session = Session(lowered, compile_object(refusing, TARGET), threads=THREADS)
    _check(session)
    assert len(_threads() - before) == allowed
    session.close()
    assert _threads() == before


def test_one_thread_has_no_pool(lowered: Lowered) -> None:
    b = ProgramBuilder()
    program = b.finish(b.scale(b.input(SHAPE), 2.0))
    assert "pool" not in llvm_text(lower(scheduled(program), HOST), HOST)


@pytest.mark.parametrize("target", ["armv7", "cortex-m4"])
def test_targets_without_threads(target: str) -> None:
    with pytest.raises(UsageError, match=f"{target} run on one thread"):
        with_threads(get_target(target), 2)
    assert with_threads(get_target(target), 1) == get_target(target)


def test_number_of_threads() -> None:
    with pytest.raises(UsageError, match="threads must be >= 1, got 0"):
        with_threads(HOST, 0)
    assert replace(TARGET, threads=1) == HOST
