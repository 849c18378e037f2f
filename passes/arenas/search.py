"""An exact search for a plan of a given size: many short dives in a portfolio of orders.

Of buffers that can lie equally low, first comes the one that was missing most often in the
sections where earlier dives failed (weights of conflicts: Boussemart, Hemery, Lecoutre and Sais,
ECAI 2004). Nothing is random.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np

from niwaki.passes.arenas.component import Component, components
from niwaki.passes.arenas.dive import Dive, OutOfNodesError
from niwaki.passes.arenas.problem import ArenaProblem

Watch: TypeAlias = Callable[[int], object]

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
    microseconds for hundreds of buffers; memory grows at least with the square of the buffers
    between two times at which nothing is live.
    """
    return search_components(problem, capacity, nodes, partial(dives, watch=watch))


def search_components(
    problem: ArenaProblem,
    capacity: int,
    nodes: int,
    search: Callable[[Component, int], SearchResult],
) -> SearchResult:
    """Runs `search` on each component, the small ones first, in at most `nodes` nodes in all.

    `search` gives offsets in units of the component.
    """
    offsets = [buffer.pinned or 0 for buffer in problem.buffers]
    used = 0
    for numbers in components(problem):
        component = Component(problem, numbers, capacity)
        if max(component.loads.max(), component.tops.max()) > component.capacity:
            return SearchResult(None, used, impossible=True)
        found = search(component, nodes - used)
        used += found.nodes
        if found.offsets is None:
            return SearchResult(None, used, found.impossible)
        for number, offset in zip(numbers, found.offsets, strict=True):
            offsets[number] = offset * component.unit
    return SearchResult(tuple(offsets), used)


def dives(component: Component, nodes: int, watch: Watch | None = None) -> SearchResult:
    """Dives until one succeeds, one has seen everything, or the nodes are used up."""
    conflicts = np.zeros(len(component.sizes))
    used, number = 0, 0
    length = float(max(_SHORTEST, _PER_BUFFER * len(conflicts)))
    while used < nodes:
        order = component.order(number, conflicts / max(conflicts.max(), 1.0))
        dive = Dive(component, order, min(int(length), nodes - used))
        try:
            offsets = dive.run()
        except OutOfNodesError:
            offsets = None
        else:
            return SearchResult(offsets, used + dive.nodes, impossible=offsets is None)
        used += dive.nodes
        if watch is not None:
            watch(used)
        conflicts *= _FADING
        conflicts[order] += dive.conflicts
        length *= _LONGER
        number += 1
    return SearchResult(None, used)
