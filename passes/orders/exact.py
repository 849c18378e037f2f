"""The order of least peak memory: a search under a threshold that rises until there is an order.

What is live after some nodes have run depends on their set alone, so the search enters no set
twice. And the change of live bytes by a node only falls as others run before it; so what fits and
leaves no more bytes live than there are runs at once, without a look at the alternatives: a node,
or a node and then such nodes that only it makes ready. A search in vain proves that the peak is
at least the least number of bytes that a node was refused.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from niwaki.passes.orders.problem import ScheduleProblem, live_bytes
from niwaki.passes.orders.state import OrderState


@dataclass(frozen=True)
class ExactOrder:
    """The best order found, and what is proven about all orders."""

    order: tuple[int, ...]
    peak: int
    bound: int
    """No order has a lower peak."""
    nodes: int
    """Search nodes used."""

    @property
    def proven(self) -> bool:
        """Whether no order is better."""
        return self.peak == self.bound


def exact_order(
    problem: ScheduleProblem, start: Sequence[int], bound: int, max_nodes: int
) -> ExactOrder:
    """The best order, or the best that `max_nodes` search nodes give, never worse than `start`.

    `bound` is a proven lower bound. A search node is one run of one node of the problem. The same
    input gives the same result; more search nodes never give a worse one.

    Searches at the bound, then bisects what is open between bound and peak. A search gets a share
    of the search nodes, all of them a larger one when a round of searches has left a gap.
    """
    best, peak = tuple(start), live_bytes(problem, start).peak
    if bound == peak:
        return ExactOrder(best, peak, bound, nodes=0)
    search = _Search(problem)
    share = _FIRST_SHARE + 4 * len(start)
    left = max_nodes
    while bound < peak and left:
        threshold = low = bound
        while low < peak and left:
            search.begin(threshold, min(share, left))
            try:
                order = search.run()
            except _OutOfNodesError:
                low = threshold + 1
            else:
                if order is None:
                    low = bound = min(search.refused, peak)
                else:
                    best, peak = order, live_bytes(problem, order).peak
            left -= search.nodes
            threshold = (low + peak - 1) // 2
            if low > bound and (peak - low) * _FINEST_STEP < peak - bound:
                break
        share *= _SHARE_GROWTH
    return ExactOrder(best, peak, bound, max_nodes - left)


_FIRST_SHARE = 4000
_SHARE_GROWTH = 4
_FINEST_STEP = 8
"""Behind a search that was left open, how finely to bisect the rest of the gap."""


class _OutOfNodesError(Exception):
    pass


class _Search:
    """Depth first, least live bytes first."""

    def __init__(self, problem: ScheduleProblem) -> None:
        self.state = OrderState(problem)
        self.cuts = _cuts(problem)
        self.threshold = 0
        self.nodes = 0
        self.max_nodes = 0
        self.refused = 0
        """The fewest bytes beyond the threshold that a node needed."""
        self.visited: set[int] = set()

    def begin(self, threshold: int, max_nodes: int) -> None:
        """Prepares a run."""
        self.state.rewind(0)
        self.threshold = threshold
        self.nodes = 0
        self.max_nodes = max_nodes
        self.refused = sys.maxsize
        self.visited.clear()

    def run(self) -> tuple[int, ...] | None:
        """An order within the threshold; None if there is none. Raises _OutOfNodesError."""
        state = self.state
        open_states: list[tuple[int, list[int]]] = []
        """Lengths of the path with the alternatives that are left there."""
        while True:
            moves = self.moves()
            if state.complete:
                return tuple(state.path)
            if len(state.ready) == 1 and self.cuts[next(iter(state.ready))]:
                # Every order comes through this state, so it does not matter how.
                open_states.clear()
            open_states.append((len(state.path), moves))
            while open_states and not open_states[-1][1]:
                open_states.pop()
            if not open_states:
                return None
            length, moves = open_states[-1]
            state.rewind(length)
            self.step(moves.pop())

    def step(self, number: int) -> None:
        if self.nodes == self.max_nodes:
            raise _OutOfNodesError
        self.nodes += 1
        self.state.run(number)

    def fits(self, number: int) -> bool:
        need = self.state.need(number)
        if need > self.threshold:
            self.refused = min(self.refused, need)
        return need <= self.threshold

    def settle(self, since: int) -> None:
        """Runs nodes that fit and add no live bytes, of those ready since the path was so long."""
        state = self.state
        while state.settling:
            number = state.settling.pop()
            if number in state.ready and state.ready_since[number] >= since and self.fits(number):
                self.step(number)

    def moves(self) -> list[int]:
        """Runs what is best run at once; the alternatives then, the best one last."""
        state = self.state
        while True:
            self.settle(0)
            if state.complete or state.done in self.visited:
                return []
            moves = self.alternatives()
            if moves is not None:
                self.visited.add(state.done)
                return moves

    def alternatives(self) -> list[int] | None:
        """What fits now, the best one last; None if it has run something best run at once."""
        state = self.state
        length, live = len(state.path), state.live
        found: list[tuple[int, int, int]] = []
        for number in sorted(state.ready):
            if not self.fits(number):
                continue
            since = state.ready_since[number]
            self.step(number)
            self.settle(length + 1)
            if state.live <= live:
                return None
            found.append((-state.live, since, -number))
            state.rewind(length)
        return [-number for _, _, number in sorted(found)]


def _cuts(problem: ScheduleProblem) -> list[bool]:
    """Whether all other nodes must run before a node or after it."""
    count = len(problem.nodes)
    next_successor = [count] * count
    last_predecessor = [-1] * count
    for number, node in enumerate(problem.nodes):
        for predecessor in node.predecessors:
            next_successor[predecessor] = min(next_successor[predecessor], number)
            last_predecessor[number] = max(last_predecessor[number], predecessor)
    cuts = [True] * count
    reached = 0
    for number in range(count):
        cuts[number] = reached <= number
        reached = max(reached, next_successor[number])
    reached = count
    for number in reversed(range(count)):
        cuts[number] = cuts[number] and reached >= number
        reached = min(reached, last_predecessor[number])
    return cuts
