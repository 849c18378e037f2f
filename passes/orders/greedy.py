"""A memory-greedy topological order."""

import heapq

from niwaki.passes.orders.problem import ScheduleProblem, live_bytes, read_counts


def best_greedy_order(problem: ScheduleProblem) -> list[int]:
    """The greedy order, or the source order where that one has the lower peak."""
    source = list(range(len(problem.nodes)))
    greedy = greedy_order(problem)
    return min(source, greedy, key=lambda order: live_bytes(problem, order).peak)


def greedy_order(problem: ScheduleProblem) -> list[int]:
    """Always runs the ready node after which the fewest bytes are live.

    Of equal ones the node that became ready last, next to its producer; then source order.
    O((nodes + reads) log nodes).
    """
    return _Greedy(problem).run()


class _Greedy:
    def __init__(self, problem: ScheduleProblem) -> None:
        self.problem = problem
        self.unread = read_counts(problem)
        self.readers: list[list[int]] = [[] for _ in problem.sizes]
        self.successors: list[list[int]] = [[] for _ in problem.nodes]
        self.waiting = [len(set(node.predecessors)) for node in problem.nodes]
        self.growth = [0] * len(problem.nodes)
        """Change of the live bytes by each node, if it ran now."""
        for number, node in enumerate(problem.nodes):
            for buffer in node.reads:
                self.readers[buffer].append(number)
            for predecessor in set(node.predecessors):
                self.successors[predecessor].append(number)
            self.growth[number] = sum(problem.sizes[b] for b in node.writes if self.unread[b])
        for buffer, readers in enumerate(self.readers):
            if len(readers) == 1:
                self.growth[readers[0]] -= problem.sizes[buffer]
        self.ready_at: dict[int, int] = {}
        """Ready node -> number of nodes that had run when it became ready."""
        self.heap: list[tuple[int, int, int]] = []

    def run(self) -> list[int]:
        for number, count in enumerate(self.waiting):
            if count == 0:
                self._make_ready(number, 0)
        order: list[int] = []
        while self.heap:
            growth, _, number = heapq.heappop(self.heap)
            if number not in self.ready_at or growth != self.growth[number]:
                continue
            del self.ready_at[number]
            order.append(number)
            self._finish_reads(number)
            for successor in self.successors[number]:
                self.waiting[successor] -= 1
                if self.waiting[successor] == 0:
                    self._make_ready(successor, len(order))
        return order

    def _make_ready(self, number: int, time: int) -> None:
        self.ready_at[number] = time
        heapq.heappush(self.heap, (self.growth[number], -time, number))

    def _finish_reads(self, number: int) -> None:
        """Tells the last remaining reader of each buffer that the buffer would die there."""
        for buffer in self.problem.nodes[number].reads:
            readers = self.readers[buffer]
            self.unread[buffer] -= 1
            if self.unread[buffer] != 1:
                continue
            (last,) = (r for r in readers if r != number and not self._has_run(r))
            self.growth[last] -= self.problem.sizes[buffer]
            if last in self.ready_at:
                entry = (self.growth[last], -self.ready_at[last], last)
                heapq.heappush(self.heap, entry)

    def _has_run(self, number: int) -> bool:
        return self.waiting[number] == 0 and number not in self.ready_at
