"""One depth-first search for a plan within a capacity, which learns from each dead end.

The buffer that can lie lowest is placed there, or else *postponed*: it then lies higher, on top of
a buffer to come (Le Pape, Couronné, Vergamini and Gosselin, 1994). Every plan can be settled so
that no buffer could move down, past others or not; only such plans are looked for. A state is dead
as soon as the buffers to come in some section do not fit above the lowest place left in it
(MiniMalloc: Moffitt and Fege, ASPLOS 2023).

For the lowest offset of each buffer the search knows which placements it follows from. So a dead
end has its culprits, and the search jumps back to the last of these at once, leaving out all that
was placed elsewhere in time (conflict-directed backjumping: Prosser, 1993).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.arenas.component import Component

_FAR = 2**60
"""The offset of a buffer that has its place: beyond all others."""


class OutOfNodesError(Exception):
    """The dive has used up its nodes."""


@dataclass(slots=True)
class _State:
    """Where the buffers to come can lie."""

    floors: NDArray[np.int64]
    """The top of what is placed below each buffer; _FAR: it has its place."""
    offsets: NDArray[np.int64]
    """The lowest offset it can get. Above its floor: it waits to be raised by another."""
    reasons: NDArray[np.object_]
    """The placed buffers, as bits, that this follows from; of a placed buffer, itself."""
    missing: NDArray[np.int64]
    """Of each section, the bytes to come."""


class Dive:
    """A search for the buffers of `component`, ties in `order`, in at most `limit` nodes."""

    def __init__(self, component: Component, order: NDArray[np.intp], limit: int) -> None:
        self._order = order
        self._limit = limit
        self.nodes = 0
        self.conflicts = np.zeros(len(order))
        """How often each buffer was missing in a section that was full."""
        self._capacity = component.capacity
        self._sizes = component.sizes[order]
        self._alignments = component.alignments[order]
        self._mixed = bool((component.alignments != 1).any())
        self._pinned = component.pinned[order]
        self._lowest = component.lowest[order]
        self._loads = component.loads
        self._first, self._last = component.first[order], component.last[order]
        self._overlaps = (self._first[:, None] < self._last) & (self._first < self._last[:, None])
        np.fill_diagonal(self._overlaps, False)
        section, self._members = np.nonzero(component.live[:, order])
        self._bounds = np.searchsorted(section, np.arange(len(self._loads) + 1))
        self._places = np.zeros(len(order), np.int64)

    def run(self) -> tuple[int, ...] | None:
        """The offsets of the component's buffers; None: there is no plan.

        Raises OutOfNodesError.
        """
        state = _State(
            floors=self._lowest.copy(),
            offsets=self._lowest.copy(),
            reasons=np.zeros(len(self._sizes), np.object_),
            missing=self._loads,
        )
        stack: list[tuple[_State, int]] = []
        while True:
            self.nodes += 1
            if self.nodes > self._limit:
                raise OutOfNodesError
            culprits = self._dead(state)
            if culprits is None:
                chosen = int(np.where(state.offsets > state.floors, _FAR, state.offsets).argmin())
                if state.floors[chosen] == _FAR:
                    return self._result()
                stack.append((state, chosen))
                state = self._placed(state, chosen)
                continue
            while stack:
                state, chosen = stack.pop()
                if culprits >> chosen & 1:
                    culprits ^= 1 << chosen
                    if not self._pinned[chosen]:
                        break
            else:
                return None
            self._postpone(state, chosen, culprits)

    def _result(self) -> tuple[int, ...]:
        offsets = np.empty_like(self._places)
        offsets[self._order] = self._places
        return tuple(offsets.tolist())

    def _placed(self, state: _State, chosen: int) -> _State:
        """`state` with `chosen` at its lowest offset, and all that overlaps it above."""
        offset = state.offsets[chosen]
        self._places[chosen] = offset
        tops = self._aligned(self._overlaps[chosen] * (offset + self._sizes[chosen]))
        floors = np.maximum(state.floors, tops)
        floors[chosen] = _FAR
        raised = np.flatnonzero(tops > state.offsets)
        reasons = state.reasons.copy()
        # What would fit below `chosen` is kept from there by what has raised it so far.
        fits = self._sizes[raised] <= offset
        reasons[raised[fits]] |= 1 << chosen
        reasons[raised[~fits]] = 1 << chosen
        reasons[chosen] = 1 << chosen
        missing = state.missing.copy()
        missing[self._first[chosen] : self._last[chosen]] -= self._sizes[chosen]
        return _State(floors, np.maximum(state.offsets, floors), reasons, missing)

    def _postpone(self, state: _State, chosen: int, culprits: int) -> None:
        """Keeps `chosen`, and what is the same but for its name, from its lowest offset."""
        same = (
            (state.offsets == state.offsets[chosen])
            & (state.floors == state.floors[chosen])
            & (self._sizes == self._sizes[chosen])
            & (self._alignments == self._alignments[chosen])
            & (self._first == self._first[chosen])
            & (self._last == self._last[chosen])
            & ~self._pinned
        )
        state.offsets[same] += self._alignments[chosen]
        state.reasons[same] |= culprits

    def _dead(self, state: _State) -> int | None:
        """Raises what waits; the placements that leave no way to go on, None if there is one."""
        moved = np.flatnonzero(self._pinned & (state.offsets > self._lowest))
        moved = moved[state.floors[moved] < _FAR]
        if len(moved):
            return int(state.reasons[moved[0]])
        while len(waiting := np.flatnonzero(state.offsets > state.floors)):
            # Something must come that keeps it from its floor, and it lies on top of that.
            limits = state.floors[waiting] + self._sizes[waiting]
            below = self._overlaps[waiting] & (state.offsets < limits[:, None])
            tops = np.where(below, state.offsets + self._sizes, _FAR).min(1)
            higher = tops > state.offsets[waiting]
            if not higher.any():
                break
            for buffer, top in zip(waiting[higher].tolist(), tops[higher].tolist(), strict=True):
                around = state.reasons[self._overlaps[buffer]]
                state.reasons[buffer] |= np.bitwise_or.reduce(around)
                if top == _FAR:
                    return int(state.reasons[buffer])
                alignment = int(self._alignments[buffer])
                state.offsets[buffer] = -(-top // alignment) * alignment
        return self._overfull(state)

    def _overfull(self, state: _State) -> int | None:
        """The fewest placements that leave too little room in some section; None: there is room."""
        lowest = np.minimum.reduceat(state.offsets[self._members], self._bounds[:-1])
        needed = np.minimum(lowest, self._capacity) + state.missing
        found: list[tuple[int, int, NDArray[np.intp]]] = []
        for section in np.flatnonzero(needed > self._capacity).tolist():
            members = self._missing_in(state, section)
            culprits = int(np.bitwise_or.reduce(state.reasons[members]))
            found.append((culprits.bit_count(), culprits, members))
        if not found:
            return None
        _, culprits, members = min(found, key=lambda item: item[0])
        self.conflicts[members] += 1
        return culprits

    def _missing_in(self, state: _State, section: int) -> NDArray[np.intp]:
        """The buffers to come in `section`."""
        members = self._members[self._bounds[section] : self._bounds[section + 1]]
        return members[state.offsets[members] < _FAR]

    def _aligned(self, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
        return -(-offsets // self._alignments) * self._alignments if self._mixed else offsets
