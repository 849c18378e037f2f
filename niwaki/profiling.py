"""Where the time of a training step goes: every kernel call, against the limits of the machine."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niwaki.backends.llvm.machine_limits import MachineLimits
from niwaki.backends.llvm.timed_session import TimedSession
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import CallInfo
from niwaki.ir.weights import Array
from niwaki.memory import readable

_WARM_UP = 3
"""Steps before those that count."""


@dataclass(frozen=True)
class CallProfile:
    """One kernel call of the step, in the order of execution."""

    kernel: str
    op: str
    """The main operation of the kernel, as in "conv2d"."""
    place: str
    """Where it comes from in the user's model, for people."""
    seconds: float
    """Median."""
    flops: int
    bytes: int
    """Of operands and results, each once."""
    least_seconds: float
    """What the machine needs at least: for the operations, or to move the bytes."""

    @property
    def flops_per_second(self) -> float:
        """A multiply-add counted as two."""
        return self.flops / self.seconds

    @property
    def bytes_per_second(self) -> float:
        """Of operands and results."""
        return self.bytes / self.seconds

    @property
    def roofline_share(self) -> float:
        """The least time over the measured one: 1 is as fast as the machine can."""
        return self.least_seconds / self.seconds


@dataclass(frozen=True)
class Profile:
    """A training step, call by call."""

    calls: tuple[CallProfile, ...]
    step_seconds: float
    """Of a whole step, from Python: median."""
    limits: MachineLimits
    repetitions: int

    @property
    def call_seconds(self) -> float:
        """Of all calls together."""
        return sum(call.seconds for call in self.calls)

    @property
    def rest_seconds(self) -> float:
        """Of the step outside its calls: copying inputs and outputs, reading the clock, Python."""
        return self.step_seconds - self.call_seconds

    @property
    def roofline_share(self) -> float:
        """The least time of all calls over the measured one."""
        return sum(call.least_seconds for call in self.calls) / self.call_seconds


def profile(
    session: TimedSession,
    entry: str,
    inputs: Sequence[Array],
    limits: MachineLimits,
    repetitions: int,
) -> Profile:
    """Runs entry point `entry` with `inputs`; times are medians over `repetitions` runs.

    Raises UsageError if `repetitions` is not positive.
    """
    if repetitions < 1:
        raise UsageError(f"repetitions must be >= 1, got {repetitions}")
    for _ in range(_WARM_UP):
        session.run(entry, inputs)
    wholes: list[float] = []
    parts: list[NDArray[np.int64]] = []
    for _ in range(repetitions):
        start = time.perf_counter()
        session.run(entry, inputs)
        wholes.append(time.perf_counter() - start)
        parts.append(session.call_nanoseconds(entry))
    medians = np.median(np.stack(parts), axis=0)
    calls = session.lowered.entries[entry].calls
    return Profile(
        tuple(
            _call(call, 1e-9 * max(float(median), 1.0), limits)
            for call, median in zip(calls, medians, strict=True)
        ),
        statistics.median(wholes),
        limits,
        repetitions,
    )


def _call(call: CallInfo, seconds: float, limits: MachineLimits) -> CallProfile:
    return CallProfile(
        kernel=call.kernel,
        op=call.op,
        place=readable(call.location),
        seconds=seconds,
        flops=call.flops,
        bytes=call.bytes,
        least_seconds=limits.least_seconds(call.flops, call.bytes),
    )
