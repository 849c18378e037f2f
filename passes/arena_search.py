"""An exact search for a plan of a given size, after MiniMalloc (Moffitt and Fege, ASPLOS 2023).

Depth first: the buffer that can lie lowest is placed there, or else *postponed*: it then waits
until another buffer, placed below it, raises it. As in MiniMalloc, a state is dead as soon as some
section (a time at which a maximal set of buffers is live) cannot hold what is still to come above
the lowest place left in it, and what falls apart in time is searched apart. In addition,

- a postponed buffer must lie on something: its offset is at least the lowest top of what may still
  come below it, and the state is dead if nothing can (postponement: Le Pape, Couronné, Vergamini
  and Gosselin, 1994);
- many short dives take the place of one long one. Of buffers that can lie equally low, first comes
  the one that was missing most often in sections where earlier dives failed (weights of conflicts:
  Boussemart, Hemery, Lecoutre and Sais, ECAI 2004).
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.arena_problem import ArenaProblem

Watch: TypeAlias = Callable[[int], object]

FAR = 2**60
"""The lowest offset of a buffer that has its place: beyond all others."""

_SHORTEST, _PER_BUFFER, _LONGER = 500, 4, 1.003
"""Nodes of the first dive, at least and per buffer, and how much longer each further one takes."""
_FADING = 0.95
"""What a conflict counts after one more dive."""


@dataclass(frozen=True)
class SearchResult:
    """What a search came to."""

    offsets: tuple[int, ...] | None
    """A plan within the capacity, or None."""
    nodes: int
    impossible: bool = False
    """There is no such plan."""


def search_arena(
    problem: ArenaProblem, capacity: int, nodes: int, watch: Watch | None = None
) -> SearchResult:
    """Looks for a plan of at most `capacity` bytes in at most `nodes` nodes.

    `watch` is told the nodes so far, now and then. Deterministic. A node takes some tens of
    microseconds for hundreds of buffers; memory is quadratic in the buffers that are live between
    two times at which nothing is.
    """
    offsets = [buffer.pinned or 0 for buffer in problem.buffers]
    used = 0
    for numbers in components(problem):
        component = Component(problem, numbers, capacity)
        found = component.search(nodes - used, watch)
        used += found.nodes
        if found.offsets is None:
            return SearchResult(None, used, found.impossible)
        for number, offset in zip(numbers, found.offsets, strict=True):
            offsets[number] = offset
    return SearchResult(tuple(offsets), used)


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


class Component:
    """Buffers of one stretch of time, and what the dives into it have learned."""

    def __init__(self, problem: ArenaProblem, numbers: Sequence[int], capacity: int) -> None:
        buffers = [problem.buffers[number] for number in numbers]
        self.capacity = capacity
        self.sizes = np.array([b.occupied for b in buffers], np.int64)
        self.alignments = np.array([b.alignment for b in buffers], np.int64)
        self.pinned = np.array([b.pinned is not None for b in buffers])
        self.lowest = np.array([b.pinned or 0 for b in buffers], np.int64)
        starts = np.array([b.start for b in buffers], np.int64)
        ends = np.array([b.end for b in buffers], np.int64)
        self.lives = (ends - starts).astype(np.float64)
        times = section_times(starts, ends)
        self.first = np.searchsorted(times, starts)
        self.last = np.searchsorted(times, ends)
        """Each buffer is live in the sections [first, last)."""
        live = (starts <= times[:, None]) & (times[:, None] < ends)
        self.section_of, self.members = np.nonzero(live)
        self.loads = np.where(live, self.sizes, 0).sum(1)
        self.peaks = np.where(live, self.loads[:, None], 0).max(0)
        self.conflicts = np.zeros(len(buffers))

    def search(self, nodes: int, watch: Watch | None = None) -> SearchResult:
        """Dives until one succeeds, one has seen everything, or the nodes are used up."""
        if self.loads.max() > self.capacity:
            return SearchResult(None, 0, impossible=True)
        noise = random.Random(2)
        used, number = 0, 0
        length = float(max(_SHORTEST, _PER_BUFFER * len(self.sizes)))
        while used < nodes:
            dive = _Dive(self, self.order(number, noise), min(int(length), nodes - used))
            try:
                found = dive.run()
            except _OutOfNodesError:
                found = None
            else:
                if not found:
                    return SearchResult(None, used + dive.nodes, impossible=True)
            used += dive.nodes
            if watch is not None:
                watch(used)
            if found:
                return SearchResult(dive.result(), used)
            self.conflicts *= _FADING
            self.conflicts[dive.order] += dive.conflicts
            length *= _LONGER
            number += 1
        return SearchResult(None, used)

    def sections(self) -> list[NDArray[np.intp]]:
        """The buffers that are live in each section."""
        return np.split(self.members, np.flatnonzero(np.diff(self.section_of)) + 1)

    def order(self, number: int, noise: random.Random) -> NDArray[np.intp]:
        """Who comes first of those that can lie equally low: for the dive of that number.

        MiniMalloc's orders by lifetime (W), area (A) and peak load (T), and then by random products
        of these and the conflicts.
        """
        areas = self.sizes * self.lives
        static = {
            0: (self.peaks, areas, self.lives),
            1: (self.lives, areas, self.peaks),
            2: (areas, self.lives, self.peaks),
        }
        if number in static:
            return np.lexsort([-key for key in static[number]])
        keys = np.array([0.3 * noise.random() for _ in self.sizes])
        for factor, largest in ((areas, 1), (self.lives, 1), (self.peaks, 10)):
            keys += largest * noise.random() * np.log(factor)
        keys += 2 * np.log(self.conflicts / max(self.conflicts.max(), 1e-9) + 1e-3)
        return np.argsort(-keys, kind="stable")


def section_times(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last start before each end: what is live at other times is live at one of these too."""
    distinct = np.unique(starts)
    return np.unique(distinct[np.searchsorted(distinct, ends) - 1])


class _OutOfNodesError(Exception):
    pass


class _State(NamedTuple):
    """Where the buffers can lie that have no place yet. Arrays are never written to again.

    A buffer that has its place, or that belongs to another part of the search, is FAR.
    """

    floors: NDArray[np.int64]
    """The top of what is placed below each buffer."""
    offsets: NDArray[np.int64]
    """The lowest offset it can get: its floor, unless it waits."""
    waits: NDArray[np.bool_]
    """Postponed: its floor must rise before it can be placed."""
    missing: NDArray[np.int64]
    """Of each section, the bytes to come."""
    crossing: NDArray[np.int64]
    """Of each section but the first, how many buffers to come it shares with the one before."""
    begin: int
    end: int
    """The sections of this part of the search."""


class _Dive:
    """One depth-first search with its own order of the buffers."""

    def __init__(self, component: Component, order: NDArray[np.intp], limit: int) -> None:
        self.order = order
        self.limit = limit
        self.nodes = 0
        self.capacity = component.capacity
        self.sizes = component.sizes[order]
        self.alignments = component.alignments[order]
        self.mixed = len(set(component.alignments.tolist())) > 1
        self.pinned = component.pinned[order] if component.pinned.any() else None
        self.lowest = component.lowest[order]
        self.first, self.last = component.first[order], component.last[order]
        self.overlaps = (self.first[:, None] < self.last) & (self.first < self.last[:, None])
        np.fill_diagonal(self.overlaps, False)
        rank = np.argsort(order)
        self.members = rank[component.members]
        self.bounds = np.searchsorted(component.section_of, np.arange(len(component.loads) + 1))
        self.loads = component.loads
        self.conflicts = np.zeros(len(order))
        self.offsets = np.zeros(len(order), np.int64)

    def run(self) -> bool:
        """Whether a plan was found; False: there is none. Raises _OutOfNodesError."""
        crossing = np.zeros(len(self.loads) + 1, np.int64)
        np.add.at(crossing, self.first + 1, 1)
        np.add.at(crossing, self.last, -1)
        state = _State(
            floors=self.lowest,
            offsets=self.lowest,
            waits=np.zeros(len(self.sizes), np.bool_),
            missing=self.loads,
            crossing=np.cumsum(crossing)[:-1],
            begin=0,
            end=len(self.loads),
        )
        return self._search(state)

    def result(self) -> tuple[int, ...]:
        """The offsets of the component's buffers, after a success."""
        offsets = np.empty_like(self.offsets)
        offsets[self.order] = self.offsets
        return tuple(offsets.tolist())

    def _search(self, start: _State) -> bool:
        stack: list[tuple[_State, int]] = []
        state: _State | None = start
        while True:
            self.nodes += 1
            if self.nodes > self.limit:
                raise _OutOfNodesError
            state = None if state is None else self._tightened(state)
            chosen = None if state is None else self._choose(state)
            if state is None or chosen is None:
                if not stack:
                    return False
                state = self._postponed(*stack.pop())
                continue
            stack.append((state, chosen))
            state = self._placed(state, chosen)
            if state is None:
                continue
            parts = self._parts(state, chosen)
            if not parts:
                return True
            # The largest part goes on here, so that calls nest no deeper than the logarithm.
            *small, state = parts
            if not all(self._search(part) for part in small):
                state = None

    def _tightened(self, state: _State) -> _State | None:
        """`state` with waiting buffers on top of what may come below them; None: dead."""
        offsets = state.offsets
        waiting = np.flatnonzero(state.waits)
        if len(waiting):
            tops = offsets + self.sizes
            limits = state.floors[waiting] + self.sizes[waiting]
            below = self.overlaps[waiting] & (offsets < limits[:, None])
            raised = np.where(below, tops, FAR).min(1)
            if raised.max() >= FAR:
                return None
            offsets = offsets.copy()
            offsets[waiting] = np.maximum(offsets[waiting], raised)
            if self.mixed:
                offsets = self._aligned(offsets)
            state = state._replace(offsets=offsets)
        begin, end = self.bounds[state.begin], self.bounds[state.end]
        lowest = np.minimum.reduceat(
            offsets[self.members[begin:end]], self.bounds[state.begin : state.end] - begin
        )
        missing = state.missing[state.begin : state.end]
        needed = np.minimum(lowest, self.capacity) + missing
        section = int(needed.argmax())
        if needed[section] <= self.capacity:
            return state
        section += state.begin
        members = self.members[self.bounds[section] : self.bounds[section + 1]]
        self.conflicts[members[offsets[members] < FAR]] += 1
        return None

    def _choose(self, state: _State) -> int | None:
        """The lowest buffer that does not wait, the first in order of these."""
        ready = np.where(state.waits, FAR, state.offsets)
        chosen = int(ready.argmin())
        return chosen if ready[chosen] < FAR else None

    def _placed(self, state: _State, chosen: int) -> _State | None:
        """`state` with `chosen` at its lowest offset; None: something pinned is in the way."""
        first, last, size = self.first[chosen], self.last[chosen], self.sizes[chosen]
        self.offsets[chosen] = state.offsets[chosen]
        tops = self.overlaps[chosen] * (state.offsets[chosen] + size)
        if self.mixed:
            tops = self._aligned(tops)
        higher = tops > state.floors
        if self.pinned is not None and (higher & self.pinned).any():
            return None
        floors = np.maximum(state.floors, tops)
        floors[chosen] = FAR
        missing = state.missing.copy()
        missing[first:last] -= size
        crossing = state.crossing.copy()
        crossing[first + 1 : last] -= 1
        return state._replace(
            floors=floors,
            offsets=np.maximum(state.offsets, floors),
            waits=state.waits > higher,
            missing=missing,
            crossing=crossing,
        )

    def _postponed(self, state: _State, chosen: int) -> _State | None:
        """`state` with `chosen` waiting; None: it is pinned."""
        if self.pinned is not None and self.pinned[chosen]:
            return None
        waits = state.waits.copy()
        waits[chosen] = True
        return state._replace(waits=waits)

    def _parts(self, state: _State, chosen: int) -> list[_State]:
        """What is left of `state` once `chosen` has its place, apart in time, the largest last."""
        if not state.missing[state.begin : state.end].any():
            return []
        if state.crossing[self.first[chosen] + 1 : self.last[chosen]].all():
            return [state]
        cuts = np.flatnonzero(state.crossing[state.begin + 1 : state.end] == 0) + state.begin + 1
        parts: list[tuple[int, _State]] = []
        for begin, end in pairwise((state.begin, *cuts.tolist(), state.end)):
            if not state.missing[begin:end].any():
                continue
            inside = (self.first >= begin) & (self.last <= end)
            offsets = np.where(inside, state.offsets, FAR)
            part = state._replace(
                floors=np.where(inside, state.floors, FAR),
                offsets=offsets,
                waits=state.waits & inside,
                begin=begin,
                end=end,
            )
            parts.append((int((offsets < FAR).sum()), part))
        return [part for _, part in sorted(parts, key=lambda item: item[0])]

    def _aligned(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        return -(-offsets // self.alignments) * self.alignments
