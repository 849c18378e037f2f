"""The plan problem as plain data: buffers with lifetimes, and their offsets in one arena."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ArenaBuffer:
    """`size` bytes, rounded up to whole multiples of `alignment`, live during [start, end)."""

    size: int
    start: int
    end: int
    alignment: int = 1
    pinned: int | None = None
    """A fixed offset; None: the planner's choice."""

    @property
    def occupied(self) -> int:
        """The size with its padding."""
        return align(self.size, self.alignment)


@dataclass(frozen=True)
class ArenaProblem:
    """Buffers to place so that no two overlap in both time and bytes."""

    buffers: tuple[ArenaBuffer, ...]

    @property
    def bound(self) -> int:
        """The most bytes that are live at one time: no arena can be smaller."""
        return int(loads(self.buffers)[1].max(initial=0))


@dataclass(frozen=True)
class ArenaPlan:
    """Byte offsets of the buffers of a problem, and the bytes that the arena needs."""

    offsets: tuple[int, ...]
    size: int


class PlanError(Exception):
    """A plan is wrong: a fault of the planner."""


def align(value: int, alignment: int) -> int:
    """The next multiple of `alignment`."""
    return -(-value // alignment) * alignment


def plan_at(problem: ArenaProblem, offsets: Sequence[int]) -> ArenaPlan:
    """The plan with these offsets, as large as it needs to be."""
    tops = (o + b.occupied for o, b in zip(offsets, problem.buffers, strict=True))
    return ArenaPlan(tuple(offsets), max(tops, default=0))


def loads(buffers: Sequence[ArenaBuffer]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The times at which buffers start, and the bytes that are live then."""
    starts = np.array([b.start for b in buffers], np.int64)
    ends = np.array([b.end for b in buffers], np.int64)
    sizes = np.array([b.occupied for b in buffers], np.int64)
    times = np.unique(starts)
    changes = np.zeros(len(times) + 1, np.int64)
    np.add.at(changes, np.searchsorted(times, starts), sizes)
    np.add.at(changes, np.searchsorted(times, ends), -sizes)
    return times, np.cumsum(changes[:-1])
