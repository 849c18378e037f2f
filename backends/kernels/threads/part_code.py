"""The code of one part of a section: a copy of the kernel's operations with its share of loops."""

from collections.abc import Callable, Iterable, Sequence

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr, MemRefType, i64
from xdsl.ir import Block, Operation, Region, SSAValue

from niwaki.backends.kernels.spec import buffer_bytes
from niwaki.backends.kernels.threads.independence import PrivateScratch
from niwaki.ir.dialects.kernel import CompareOp, OffsetOp, ParallelOp

_CACHE_LINE = 64


def scratch_stride(size: int) -> int:
    """Bytes from the workspace of one part, of `size` bytes, to that of the next."""
    return -(-size // _CACHE_LINE) * _CACHE_LINE


class PartCode:
    """Builds the body of one `kernel.parallel`."""

    def __init__(
        self,
        arguments: Sequence[SSAValue],
        scratch: SSAValue | None,
        private: PrivateScratch,
        parts: int,
    ) -> None:
        """`arguments`: the kernel's, `scratch` perhaps among them."""
        types = [a.type for a in arguments]
        self._entry = self._block = Block(arg_types=[*types, IndexType()])
        *copies, self._part = self._entry.args
        self._copies: dict[SSAValue, SSAValue] = dict(zip(arguments, copies, strict=True))
        self._parts = parts
        self._private = private.ops
        self._own = self._own_scratch(scratch) if scratch is not None and private.ops else None

    def finish(self, arguments: Sequence[SSAValue]) -> ParallelOp:
        """The operation, on `arguments`."""
        return ParallelOp.create(
            operands=arguments,
            properties={"parts": IntegerAttr(self._parts, i64)},
            regions=[Region(self._entry)],
        )

    def copy(self, ops: Iterable[Operation]) -> None:
        """Repeats `ops`."""
        for op in ops:
            self._block.add_op(self._copy_of(op))

    def in_last_part(self, ops: Iterable[Operation]) -> None:
        """`ops` in one part only: in the last one, which has the fewest iterations of loops."""
        last = self._one(CompareOp.make("eq", self._part, self._index(self._parts - 1)))
        then = self._region(lambda: self.copy(ops))
        otherwise = self._region(lambda: None)
        self._block.add_op(scf.IfOp(last, [], then, otherwise))

    def divided(self, loop: scf.ForOp, count: int) -> None:
        """The part's share of the `count` iterations of a loop, which are neighbours."""
        share = self._copy_of(loop)
        following = self._one(arith.AddiOp(self._part, self._index(1)))
        share.operands[0] = self._bound(loop, count, self._part)
        share.operands[1] = self._bound(loop, count, following)
        self._block.add_op(share)

    def whole(self, loop: scf.ForOp, body: Callable[[], None]) -> None:
        """Every iteration of a loop, with another body."""
        start, stop, step = (self._copies[v] for v in (loop.lb, loop.ub, loop.step))
        region = self._region(body, loop.body.block.args[0])
        self._block.add_op(scf.ForOp(start, stop, step, [], region))

    def _region(self, body: Callable[[], None], variable: SSAValue | None = None) -> Region:
        """What `body` adds; `variable` is copied to an argument of the block."""
        inner = Block()
        if variable is not None:
            self._copies[variable] = inner.insert_arg(variable.type, 0)
        outer, self._block = self._block, inner
        body()
        self._block.add_op(scf.YieldOp())
        self._block = outer
        return Region(inner)

    def _copy_of(self, op: Operation) -> Operation:
        copy = op.clone(self._copies)
        for old, new in zip(op.walk(), copy.walk(), strict=True):
            if old in self._private:
                assert self._own is not None
                # A store's first operand is the value.
                new.operands[0 if old.results else 1] = self._own
        return copy

    def _own_scratch(self, scratch: SSAValue) -> SSAValue:
        assert isinstance(scratch.type, MemRefType)
        stride = scratch_stride(buffer_bytes(scratch.type))
        return self._one(
            OffsetOp.create(
                operands=[self._copies[scratch], self._part],
                properties={"bytes": IntegerAttr(stride, i64)},
                result_types=[scratch.type],
            )
        )

    def _bound(self, loop: scf.ForOp, count: int, part: SSAValue) -> SSAValue:
        """Where the share of `part` starts: lb + step * ceil(part * count / parts)."""
        before = self._one(arith.MuliOp(part, self._index(count)))
        rounded = self._one(arith.AddiOp(before, self._index(self._parts - 1)))
        first = self._one(arith.DivUIOp(rounded, self._index(self._parts)))
        offset = self._one(arith.MuliOp(first, self._copies[loop.step]))
        return self._one(arith.AddiOp(offset, self._copies[loop.lb]))

    def _index(self, value: int) -> SSAValue:
        return self._one(arith.ConstantOp(IntegerAttr(value, IndexType())))

    def _one(self, op: Operation) -> SSAValue:
        self._block.add_op(op)
        return op.results[0]
