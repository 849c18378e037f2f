"""A partial order that grows and shrinks step by step: what is ready, and what is live."""

from niwaki.passes.orders.problem import (
    ScheduleProblem,
    read_counts,
    readers_of,
    shared_pairs,
)


class OrderState:
    """The nodes that have run so far, in order, and all that follows from it."""

    def __init__(self, problem: ScheduleProblem) -> None:
        self.path: list[int] = []
        self.done = 0
        """The nodes of the path as a bit set."""
        self.live = 0
        """Bytes live between the last node of the path and the next one."""
        self.ready: dict[int, None] = {}
        """Nodes whose predecessors have run, as the keys."""
        self.ready_since = [0] * len(problem.nodes)
        """Length of the path when each ready node became so."""
        self.settling: list[int] = []
        """Nodes that have become ready, or less growing, and add no live bytes. Cleared by
        `rewind`; may hold nodes that have run since."""
        self._nodes = problem.nodes
        self._sizes = problem.sizes
        self._unread = read_counts(problem)
        self._unread_by = [sum(readers) for readers in readers_of(problem)]
        """Sum of the nodes that have yet to read each buffer: the last one, if it is one."""
        self._predecessors = [tuple(set(node.predecessors)) for node in problem.nodes]
        self._successors: list[list[int]] = [[] for _ in problem.nodes]
        self._waiting = [len(predecessors) for predecessors in self._predecessors]
        self._written = [0] * len(problem.nodes)
        self._growth = [0] * len(problem.nodes)
        """Change of the live bytes by each node, if it ran now."""
        for number, node in enumerate(problem.nodes):
            for predecessor in self._predecessors[number]:
                self._successors[predecessor].append(number)
            self._written[number] = sum(self._sizes[b] for b in node.writes)
            self._growth[number] = sum(self._sizes[b] for b in node.writes if self._unread[b])
        for buffer, count in enumerate(self._unread):
            if count == 1:
                self._growth[self._unread_by[buffer]] -= self._sizes[buffer]
        for number, count in enumerate(self._waiting):
            if count == 0:
                self._make_ready(number)

    @property
    def complete(self) -> bool:
        """Whether every node has run."""
        return not self.ready

    def need(self, number: int) -> int:
        """Bytes live while ready node `number` runs, if it runs now."""
        node = self._nodes[number]
        need = self.live + self._written[number] + node.workspace
        if not node.in_place:
            return need
        dying = [buffer for buffer in node.reads if self._unread[buffer] == 1]
        return need - sum(self._sizes[read] for read in shared_pairs(node, dying))

    def run(self, number: int) -> None:
        """Appends ready node `number` to the path."""
        del self.ready[number]
        self.path.append(number)
        self.done |= 1 << number
        self.live += self._growth[number]
        for buffer in self._nodes[number].reads:
            self._unread[buffer] -= 1
            self._unread_by[buffer] -= number
            if self._unread[buffer] == 1:
                last = self._unread_by[buffer]
                self._growth[last] -= self._sizes[buffer]
                if last in self.ready and self._growth[last] <= 0:
                    self.settling.append(last)
        for successor in self._successors[number]:
            self._waiting[successor] -= 1
            if self._waiting[successor] == 0:
                self._make_ready(successor)

    def rewind(self, length: int) -> None:
        """Takes back the last nodes until the path has `length` nodes."""
        self.settling.clear()
        while len(self.path) > length:
            self._take_back(self.path.pop())

    def _take_back(self, number: int) -> None:
        for successor in self._successors[number]:
            if self._waiting[successor] == 0:
                del self.ready[successor]
            self._waiting[successor] += 1
        for buffer in self._nodes[number].reads:
            if self._unread[buffer] == 1:
                self._growth[self._unread_by[buffer]] += self._sizes[buffer]
            self._unread[buffer] += 1
            self._unread_by[buffer] += number
        self.live -= self._growth[number]
        self.done ^= 1 << number
        self.ready[number] = None

    def _make_ready(self, number: int) -> None:
        self.ready[number] = None
        self.ready_since[number] = len(self.path)
        if self._growth[number] <= 0:
            self.settling.append(number)
