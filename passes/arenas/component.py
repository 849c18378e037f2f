"""Buffers that share one stretch of time, as arrays, with the sections of that time.

A section is a time at which a maximal set of buffers is live (Moffitt and Fege, ASPLOS 2023): what
is live at any other time is live in some section too.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.arenas.problem import ArenaProblem

_PORTFOLIO = (
    (1.0, 1.0, 0.2),
    (1.0, 0.2, 1.0),
    (10.0, 1.0, 1.0),
    (1.0, 1.0, 0.0),
    (0.3, 0.2, 1.0),
    (3.0, 1.0, 0.2),
    (0.3, 1.0, 0.2),
    (10.0, 0.2, 1.0),
    (0.0, 1.0, 0.0),
    (3.0, 0.2, 1.0),
    (1.0, 0.0, 1.0),
    (10.0, 1.0, 0.2),
)
"""Exponents of peak load, area and lifetime, in which MiniMalloc orders the buffers."""
_LEARNED = 2.0
"""Exponent of what the runs so far have learned."""


class Component:
    """The buffers `numbers` of `problem`, to be placed within `capacity` bytes.

    All is counted in units of bytes that divide every size, alignment and pinned offset: whatever
    cannot move down lies at a multiple of that.
    """

    def __init__(self, problem: ArenaProblem, numbers: Sequence[int], capacity: int) -> None:
        buffers = [problem.buffers[number] for number in numbers]
        sizes = np.array([b.occupied for b in buffers], np.int64)
        alignments = np.array([b.alignment for b in buffers], np.int64)
        lowest = np.array([b.pinned or 0 for b in buffers], np.int64)
        self.unit = int(np.gcd.reduce([*sizes, *alignments[alignments > 1], *lowest]))
        self.capacity = capacity // self.unit
        self.sizes = sizes // self.unit
        self.alignments = np.maximum(alignments // self.unit, 1)
        self.pinned = np.array([b.pinned is not None for b in buffers])
        self.lowest = lowest // self.unit
        self.tops = self.lowest + self.sizes
        starts = np.array([b.start for b in buffers], np.int64)
        ends = np.array([b.end for b in buffers], np.int64)
        self.lives = (ends - starts).astype(np.float64)
        times = _section_times(starts, ends)
        self.first = np.searchsorted(times, starts)
        self.last = np.searchsorted(times, ends)
        """Each buffer is live in the sections [first, last)."""
        self.live = (starts <= times[:, None]) & (times[:, None] < ends)
        self.loads = np.where(self.live, self.sizes, 0).sum(1)
        self.peaks = np.where(self.live, self.loads[:, None], 0).max(0)

    def order(self, number: int, learned: NDArray[np.float64] | float = 0.0) -> NDArray[np.intp]:
        """Who comes first of those that can lie equally low: the portfolio in turn.

        `learned`, 0 to 1 each, moves buffers forward.
        """
        peak, area, life = _PORTFOLIO[number % len(_PORTFOLIO)]
        keys = peak * np.log(self.peaks) + area * np.log(self.sizes * self.lives)
        keys += life * np.log(self.lives) + _LEARNED * np.log(learned + 1e-3)
        return np.argsort(-keys, kind="stable")


def components(problem: ArenaProblem) -> list[list[int]]:
    """Numbers of the buffers that take room, apart where nothing is live in between."""
    buffers = problem.buffers
    order = [i for i, b in enumerate(buffers) if b.size and b.start < b.end]
    order.sort(key=lambda i: buffers[i].start)
    parts: list[list[int]] = []
    end = 0
    for number in order:
        if not parts or buffers[number].start >= end:
            parts.append([])
            end = 0
        parts[-1].append(number)
        end = max(end, buffers[number].end)
    return sorted(parts, key=len)


def _section_times(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last start before each end: what is live at other times is live at one of these too."""
    distinct = np.unique(starts)
    return np.unique(distinct[np.searchsorted(distinct, ends) - 1])
