"""The order problem as plain data: nodes, their buffers, and how many bytes an order keeps live."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Node:
    """One kernel call."""

    predecessors: tuple[int, ...] = ()
    """Nodes that must run before: producers of what it reads, and readers of what it overwrites."""
    reads: tuple[int, ...] = ()
    """Buffers that it reads, each once."""
    writes: tuple[int, ...] = ()
    """Buffers that it produces, each by this node alone."""
    in_place: tuple[tuple[int, int], ...] = ()
    """Pairs (buffer read, buffer written) of equal size that may share memory if the first dies."""
    workspace: int = 0
    """Bytes that it needs while it runs."""


@dataclass(frozen=True)
class ScheduleProblem:
    """Nodes in a valid order (the source order), and buffers that live from write to last read.

    What is resident anyway (inputs, outputs, parameters, state) is no buffer here.
    """

    nodes: tuple[Node, ...]
    sizes: tuple[int, ...]
    """Bytes of each buffer."""


@dataclass(frozen=True)
class LiveBytes:
    """What an order keeps live: `profile[i]` bytes while its i-th node runs."""

    profile: tuple[int, ...]

    @property
    def peak(self) -> int:
        """No arena of this order can be smaller."""
        return max(self.profile, default=0)


def check_order(problem: ScheduleProblem, order: Sequence[int]) -> None:
    """ValueError unless `order` holds every node once, after its predecessors."""
    position = {node: i for i, node in enumerate(order)}
    if len(order) != len(problem.nodes) or len(position) != len(order):
        raise ValueError("the order must hold every node once")
    for number, node in enumerate(problem.nodes):
        for predecessor in node.predecessors:
            if position[predecessor] >= position[number]:
                raise ValueError(f"node {number} runs before its predecessor {predecessor}")


def read_counts(problem: ScheduleProblem) -> list[int]:
    """By how many nodes each buffer is read."""
    counts = [0] * len(problem.sizes)
    for node in problem.nodes:
        for buffer in node.reads:
            counts[buffer] += 1
    return counts


def live_bytes(problem: ScheduleProblem, order: Sequence[int]) -> LiveBytes:
    """The bytes that are live while each node of `order` runs.

    A result takes the memory of an operand that dies at its node where the node allows it.
    """
    unread = read_counts(problem)
    live = 0
    profile: list[int] = []
    for number in order:
        node = problem.nodes[number]
        for buffer in node.reads:
            unread[buffer] -= 1
        dying = [buffer for buffer in node.reads if unread[buffer] == 0]
        shared = shared_pairs(node, dying)
        live += sum(problem.sizes[b] for b in node.writes) - sum(problem.sizes[a] for a in shared)
        profile.append(live + node.workspace)
        live -= sum(problem.sizes[b] for b in dying if b not in shared)
        live -= sum(problem.sizes[b] for b in node.writes if unread[b] == 0)
    return LiveBytes(tuple(profile))


def shared_pairs(node: Node, dying: Sequence[int]) -> dict[int, int]:
    """Buffer read -> buffer written that takes its memory, given the buffers that die at `node`."""
    shared: dict[int, int] = {}
    taken: set[int] = set()
    for read, written in node.in_place:
        if read in dying and read not in shared and written not in taken:
            shared[read] = written
            taken.add(written)
    return shared


def readers_of(problem: ScheduleProblem) -> list[list[int]]:
    """The nodes that read each buffer."""
    readers: list[list[int]] = [[] for _ in problem.sizes]
    for number, node in enumerate(problem.nodes):
        for buffer in node.reads:
            readers[buffer].append(number)
    return readers
