"""`narrow-stash`: keeps activations for the backward pass in bf16 or, scaled, in i8.

The forward pass and the loss stay exact; masks are taken from the exact activations, so that in
networks of relus only the gradients of weights are rounded, and not what flows back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Block, Operation, OpResult, SSAValue, Use
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import bf16, f32, i8, shape_of, tensor_bytes, type_of
from niwaki.ir.errors import UsageError
from niwaki.passes.functions import find_function
from niwaki.passes.place_masks import place_masks

STASHES: Mapping[str, Attribute] = {"bf16": bf16, "i8": i8}
"""What activations may be kept in."""
SMALLEST = 256
"""Bytes of an activation that is worth two conversions."""

_LARGEST = 127.0
_LEAST_SCALE = float(np.finfo(np.float32).tiny)
"""So that a tensor of zeros has a scale that one can divide by."""
_UNKEPT = (train.Storage, nn.ConstantOp, nn.ReshapeOp, nn.BroadcastOp, nn.CastOp)
"""Operations whose results lie in memory anyway, or are made of something smaller."""


@dataclass(frozen=True)
class NarrowStashPass(ModulePass):
    """Rounds what the backward pass of @train_step reads of the forward pass to `dtype`.

    Between `autodiff` and `micro-batch`. Filter gradients and matrix products read the narrow
    values themselves; everything else widens what it reads. i8 has one scale for each activation,
    its largest magnitude / 127 at every step.

    Raises UsageError if `dtype` is not in STASHES.
    """

    name = "narrow-stash"

    dtype: str = "bf16"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        narrow_stash(find_function(op, "train_step", "run build-training first"), self.dtype)


def narrow_stash(function: FuncOp, dtype: str) -> None:
    """What the pass does to one function whose first result is the loss."""
    if dtype not in STASHES:
        raise UsageError(f"unknown stash '{dtype}': use {' or '.join(STASHES)}")
    block = function.body.block
    assert block.last_op is not None
    loss = block.last_op.operands[0]
    assert isinstance(loss, OpResult)
    stash = _Stash(block, loss.op, STASHES[dtype])
    stash.run()


@dataclass(frozen=True)
class _Read:
    """A use behind the loss of an activation, or of what `moves` make of it."""

    use: Use
    moves: tuple[Operation, ...]


@dataclass(frozen=True)
class _Narrow:
    """A narrow value that stands for `value` * `scale`."""

    value: SSAValue
    scale: SSAValue | None


class _Stash:
    def __init__(self, block: Block, loss: Operation, element: Attribute) -> None:
        self.block = block
        self.loss = loss
        self.element = element
        self.ops = list(block.ops)
        self.position = {op: i for i, op in enumerate(self.ops)}

    def run(self) -> None:
        """Masks move last: only then does nothing else behind the loss read the activations."""
        masks: list[tuple[_Read, _Narrow]] = []
        for op in self.ops[: self.position[self.loss] + 1]:
            for value in op.results:
                if _is_large_activation(value):
                    masks += self._narrow_reads(value)
        place_masks(self.block, self.loss)
        forward = _operations_until(self.block, self.loss)
        for read, narrow in masks:
            if read.use.operation not in forward:
                _redirect(read, narrow)

    def _narrow_reads(self, value: SSAValue) -> list[tuple[_Read, _Narrow]]:
        """Lets all read a narrow `value` but those who take masks of it, which are returned."""
        last, reads = self._reads(value)
        masks = [r for r in reads if isinstance(r.use.operation, nn.CompareOp)]
        if len(masks) == len(reads):
            return []
        narrow = self._narrowed(value, Builder(InsertPoint.after(last), last.location))
        for read in reads:
            if read not in masks:
                _redirect(read, narrow)
        return [(read, narrow) for read in masks]

    def _reads(self, value: SSAValue) -> tuple[Operation, list[_Read]]:
        """(the last use before the loss, the uses behind it)."""
        assert isinstance(value, OpResult)
        boundary, last = self.position[self.loss], self.position[value.op]
        reads: list[_Read] = []
        pending: list[tuple[SSAValue, tuple[Operation, ...]]] = [(value, ())]
        while pending:
            current, moves = pending.pop()
            for use in current.uses:
                op, place = use.operation, self.position[use.operation]
                behind = place > boundary
                if isinstance(op, nn.ReshapeOp) or (behind and isinstance(op, nn.SliceOp)):
                    pending.append((op.results[0], (*moves, op)))
                elif behind:
                    reads.append(_Read(use, moves))
                else:
                    last = max(last, place)
        return self.ops[last], sorted(reads, key=self._place_of)

    def _place_of(self, read: _Read) -> tuple[int, int]:
        return self.position[read.use.operation], read.use.index

    def _narrowed(self, x: SSAValue, b: Builder) -> _Narrow:
        if self.element != i8:
            return _Narrow(b.narrow(x, self.element), None)
        largest = b.reshape(b.reduce_max(b.abs(x), range(len(shape_of(x)))), ())
        # In this order a nan stays one.
        scale = b.max(b.number(_LEAST_SCALE, x), b.scale(largest, 1.0 / _LARGEST))
        inverse = b.div(b.number(1.0, scale), scale)
        return _Narrow(b.narrow(b.mul(x, inverse), self.element), scale)


def _is_large_activation(value: SSAValue) -> bool:
    kind = type_of(value)
    return (
        not isinstance(value.owner, _UNKEPT)
        and kind.element_type == f32
        and tensor_bytes(kind) >= SMALLEST
    )


def _operations_until(block: Block, last: Operation) -> set[Operation]:
    found: set[Operation] = set()
    for op in block.ops:
        found.add(op)
        if op is last:
            break
    return found


def _redirect(read: _Read, narrow: _Narrow) -> None:
    """Lets one operation read the narrow value."""
    op, index = read.use.operation, read.use.index
    b = Builder.before(op)
    value = _moved(b, narrow.value, read.moves)
    if isinstance(op, nn.Conv2dDwOp | nn.MatmulOp):
        op.operands[index] = value
        if narrow.scale is not None:
            _scale_result(op, narrow.scale)
        return
    wide = b.cast(value)
    op.operands[index] = wide if narrow.scale is None else b.mul(wide, narrow.scale)


def _moved(b: Builder, value: SSAValue, moves: Sequence[Operation]) -> SSAValue:
    for move in moves:
        assert isinstance(move, nn.ReshapeOp | nn.SliceOp)
        value = b.one(type(move).make(value, **move.properties))
    return value


def _scale_result(op: nn.Conv2dDwOp | nn.MatmulOp, scale: SSAValue) -> None:
    """Products are linear: one factor behind them instead of one for each element before."""
    (result,) = op.results
    scaled = Builder(InsertPoint.after(op), op.location).mul(result, scale)
    result.replace_uses_with_if(scaled, lambda use: use.operation is not scaled.owner)
