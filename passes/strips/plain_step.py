"""The bytes that a step keeps live in the order of its block, before anything is cut."""

from functools import cached_property

from xdsl.ir import Block, Operation

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.passes.strips.find_region import BlockFacts
from niwaki.passes.strips.row_rules import ROWS, SAMPLES


class PlainStep:
    """The operations of a block, and what is live while they run as they are."""

    def __init__(self, block: Block) -> None:
        resident = (train.Storage, nn.ConstantOp)
        self.ops = [op for op in block.ops if not isinstance(op, resident)]
        self.facts = BlockFacts.of(block)
        batched = any(shape_of(a)[0] > 1 for a in block.args if shape_of(a))
        self.axes = (SAMPLES, ROWS) if batched else (ROWS,)
        """The dimensions along which it may be cut."""
        self.position = {op: i for i, op in enumerate(self.ops)}
        self.sizes = [self._size(i) for i in range(len(self.ops))]
        self.last_use = [self._last_use(op) for op in self.ops]
        self.live = self._live()

    @cached_property
    def _work_behind(self) -> list[int]:
        """For each position, that of the next operation which is no update."""
        found, behind = len(self.ops), list[int]()
        for i in reversed(range(len(self.ops))):
            behind.append(found)
            op = self.ops[i]
            if op.results and op not in self.facts.updates:
                found = i
        return behind[::-1]

    def _size(self, i: int) -> int:
        """Bytes that the results of operation i take; updates are part of the kernels."""
        op = self.ops[i]
        if isinstance(op, nn.ReshapeOp):
            return 0
        users = [use.operation for r in op.results for use in r.uses]
        at_once = users and all(
            (u in self.facts.updates and self.position[u] < self._work_behind[i])
            or isinstance(u, train.AssignOp)
            for u in users
        )
        return 0 if at_once else sum(tensor_bytes(type_of(r)) for r in op.results)

    def _last_use(self, op: Operation) -> int:
        """The position of the last operation that uses a result, through reshapes too."""
        last, pending = self.position[op], list(op.results)
        while pending:
            for use in pending.pop().uses:
                if isinstance(use.operation, nn.ReshapeOp):
                    pending.append(use.operation.y)
                last = max(last, self.position[use.operation])
        return last

    def _live(self) -> list[int]:
        """Bytes that earlier operations left for operation i or later ones, for each i."""
        change = [0] * (len(self.ops) + 2)
        for i, (size, last) in enumerate(zip(self.sizes, self.last_use, strict=True)):
            change[i + 1] += size
            change[last + 1] -= size
        live, total = list[int](), 0
        for delta in change[:-1]:
            total += delta
            live.append(total)
        return live

    def while_running(self, first: int, end: int) -> int:
        """Most bytes live while the operations [first, end) run as they are."""
        return max(map(self._while_running, range(first, end)), default=0)

    def _while_running(self, i: int) -> int:
        in_place = isinstance(self.ops[i], nn.Elementwise) and self.live[i + 1] <= self.live[i]
        return self.live[i] + (0 if in_place else self.sizes[i])
