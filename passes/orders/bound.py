"""A lower bound on the peak of live bytes, whatever the order."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from niwaki.passes.orders.problem import Node, ScheduleProblem, live_bytes, readers_of

_BATCH = 512
_MAX_BATCHES = 8
"""Nodes weighed together, and how often: what keeps the bound linear in the size of the graph."""


def lower_bound(problem: ScheduleProblem, order: Sequence[int]) -> int:
    """Bytes that every order keeps live at some node.

    While a node runs, what it or an ancestor wrote and it or a descendant reads is live in any
    order. No node needs more than it does in `order`, so those with most bytes there are weighed
    first, and the rest only while they could raise the bound: the better `order`, the sooner.
    """
    profile = live_bytes(problem, order).profile
    most = sorted(range(len(order)), key=lambda position: -profile[position])
    bound = 0
    for start in range(0, min(len(order), _BATCH * _MAX_BATCHES), _BATCH):
        batch = most[start : start + _BATCH]
        if profile[batch[0]] <= bound:
            break
        needed = _needed_bytes(problem, [order[position] for position in batch])
        bound = max(bound, int(needed.max()))
    return bound


def _needed_bytes(problem: ScheduleProblem, weighed: Sequence[int]) -> NDArray[np.int64]:
    """Bytes live in any order while each node of `weighed` runs.

    Sets of weighed nodes are integers, bit i for weighed[i].
    """
    own = [0] * len(problem.nodes)
    for bit, number in enumerate(weighed):
        own[number] = 1 << bit
    before, after = _reachability(problem, own)
    readers = readers_of(problem)
    needed = np.array([problem.nodes[number].workspace for number in weighed], np.int64)
    for writer, node in enumerate(problem.nodes):
        for buffer in node.writes:
            read_later = own[writer]
            for reader in readers[buffer]:
                read_later |= before[reader]
            live = after[writer] & read_later
            if live:
                size = problem.sizes[buffer]
                np.add(needed, size, out=needed, where=_flags(live, len(weighed)))
    for bit, number in enumerate(weighed):
        node = problem.nodes[number]
        dying = {
            buffer
            for buffer in node.reads
            if not any(before[r] >> bit & 1 for r in readers[buffer] if r != number)
        }
        needed[bit] -= _most_shared_bytes(problem, node, dying)
    return needed


def _reachability(problem: ScheduleProblem, own: Sequence[int]) -> tuple[list[int], list[int]]:
    """Of each node the weighed ones that must run before it, and after it; itself included."""
    before, after = list(own), list(own)
    for number, node in enumerate(problem.nodes):
        for predecessor in node.predecessors:
            before[number] |= before[predecessor]
    for number in reversed(range(len(problem.nodes))):
        for predecessor in problem.nodes[number].predecessors:
            after[predecessor] |= after[number]
    return before, after


def _flags(bits: int, count: int) -> NDArray[np.bool_]:
    """Bit i of `bits` as element i."""
    packed = np.frombuffer(bits.to_bytes((count + 7) // 8, "little"), np.uint8)
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)


def _most_shared_bytes(problem: ScheduleProblem, node: Node, dying: set[int]) -> int:
    """What sharing memory can save at most at `node` if no more than `dying` die there."""
    pairs = [pair for pair in node.in_place if pair[0] in dying]
    return min(sum(problem.sizes[b] for b in {pair[side] for pair in pairs}) for side in (0, 1))
