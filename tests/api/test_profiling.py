"""Profiles: their structure. What is fast is not asserted."""

import numpy as np
import pytest

import niwaki
from niwaki.backends.llvm.host_code import host_code
from niwaki.backends.llvm.machine_limits import MachineLimits, measure_limits
from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.llvm.timed_session import TimedSession
from niwaki.backends.targets import get_target
from niwaki.profiling import CallProfile, Profile
from tests.conv_chains import conv_chain

HOST = get_target("host")
LIMITS = MachineLimits(100.0, {10: 50.0, 100: 20.0})


def compiled(threads: int = 1) -> niwaki.TrainingStep:
    optimizer = niwaki.SGD(lr=0.1)
    return niwaki.compile(conv_chain(2, 2), loss="mse", optimizer=optimizer, threads=threads)


def batch(step: niwaki.TrainingStep) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    *ports, _ = step.lowered.entries["train_step"].inputs
    return [random.standard_normal(p.shape).astype(p.dtype) for p in ports]


@pytest.mark.parametrize("threads", [1, 2])
def test_every_call_of_the_step_has_a_time_and_the_rest_is_what_is_left(threads: int) -> None:
    step = compiled(threads)
    profile = step.profile(*batch(step), repetitions=3)
    calls = step.lowered.entries["train_step"].calls
    assert [(c.kernel, c.flops, c.bytes) for c in profile.calls] == [
        (c.kernel, c.flops, c.bytes) for c in calls
    ]
    assert all(call.seconds > 0 and call.bytes > 0 for call in profile.calls)
    parts = sum(call.seconds for call in profile.calls) + profile.rest_seconds
    assert parts == pytest.approx(profile.step_seconds, rel=1e-9)


def test_profiling_changes_no_parameter() -> None:
    step = compiled()
    before = {name: array.copy() for name, array in step.parameters.items()}
    step.profile(*batch(step), repetitions=1)
    for name, array in step.parameters.items():
        np.testing.assert_array_equal(array, before[name])


def test_timed_code_computes_the_same_and_times_every_entry_point() -> None:
    step = compiled()
    lowered, inputs = step.lowered, [*batch(step), np.array(0.1, np.float32)]
    code = host_code(lowered, HOST, None, timed=True)
    timed = TimedSession(lowered, code.program, code.kernels)
    (loss,) = timed.run("train_step", inputs)
    (expected,) = Session(lowered, object_code(lowered, HOST)).run("train_step", inputs)
    assert loss == expected
    first = timed.call_nanoseconds("train_step")
    assert len(first) == len(lowered.entries["train_step"].calls)
    assert first.min() >= 0 < first.sum()
    assert timed.call_nanoseconds("infer").sum() == 0
    timed.run("infer", inputs[:1])
    assert timed.call_nanoseconds("infer").sum() > 0
    np.testing.assert_array_equal(timed.call_nanoseconds("train_step"), first)


def test_untimed_code_reads_no_clock() -> None:
    lowered = compiled().lowered
    plain, timed = (host_code(lowered, HOST, None, timed=timed) for timed in (False, True))
    assert b"clock_gettime" in timed.program
    assert b"clock_gettime" not in plain.program
    assert plain.kernels == timed.kernels


def test_a_step_for_another_machine_has_no_profile() -> None:
    step = niwaki.compile(conv_chain(1, 1), loss="mse", target="cortex-m7")
    with pytest.raises(niwaki.UsageError, match="cannot run here"):
        step.profile()


def test_arguments_are_checked() -> None:
    step = compiled()
    with pytest.raises(niwaki.UsageError, match="the training step"):
        step.profile(np.zeros(3, np.float32))
    with pytest.raises(niwaki.UsageError, match="repetitions must be >= 1"):
        step.profile(*batch(step), repetitions=0)


def test_the_roofline_is_the_slower_of_operations_and_bytes() -> None:
    assert LIMITS.least_seconds(200, 10) == 2.0
    assert LIMITS.least_seconds(0, 99) == 99 / 50
    assert LIMITS.least_seconds(0, 1000) == 1000 / 20
    assert LIMITS.bandwidth(1) == 50.0


def test_shares_follow_from_times() -> None:
    call = CallProfile("k_0", "k", "", seconds=4.0, flops=200, bytes=10, least_seconds=2.0)
    profile = Profile((call, call), 10.0, LIMITS, 1)
    assert (call.flops_per_second, call.bytes_per_second, call.roofline_share) == (50.0, 2.5, 0.5)
    assert (profile.call_seconds, profile.rest_seconds, profile.roofline_share) == (8.0, 2.0, 0.5)


def test_this_machine_has_limits() -> None:
    limits = measure_limits(HOST)
    assert limits.flops_per_second > 0
    assert list(limits.bytes_per_second) == sorted(limits.bytes_per_second)
    assert all(rate > 0 for rate in limits.bytes_per_second.values())
