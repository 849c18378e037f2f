"""Takes masks and slices of activations where the activations are made, not where they are used.

The backward pass of a relu needs one bit per element, that of a sparse update the leading
channels. Where nothing else behind the loss reads the activation, only they are kept.
"""

from collections.abc import Mapping

from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.dialects import nn, train

_SMALL = (nn.CompareOp, nn.AndOp, nn.SliceOp)
"""Operations whose results are smaller than what they read."""


def place_masks(block: Block, loss: Operation) -> None:
    """Moves masks and slices behind `loss` to right behind the forward values that they read."""
    position = {op: i for i, op in enumerate(block.ops)}
    boundary = position[loss]
    source: dict[Operation, Operation] = {}
    last_behind: dict[Operation, Operation] = {}
    for op in list(block.ops):
        if not isinstance(op, _SMALL) or position[op] <= boundary:
            continue
        sources = [source.get(o, o) for o in map(_activation, op.operands) if o is not None]
        if not sources or any(
            position[s] > boundary or _is_read_behind(s, position, boundary) for s in sources
        ):
            continue
        latest = max(sources, key=position.__getitem__)
        _move_behind(op, last_behind.get(latest, latest))
        source[op] = latest
        last_behind[latest] = op


def _activation(value: SSAValue) -> Operation | None:
    """What computes `value`; None for what is in memory anyway (inputs, storage, constants)."""
    if not isinstance(value, OpResult) or isinstance(value.op, train.Storage | nn.ConstantOp):
        return None
    return value.op


def _is_read_behind(op: Operation, position: Mapping[Operation, int], boundary: int) -> bool:
    """Whether results of `op`, or their views, are kept for the backward pass in any case."""
    pending = list(op.results)
    while pending:
        for use in pending.pop().uses:
            reader = use.operation
            if isinstance(reader, nn.ReshapeOp):
                pending += reader.results
            elif position.get(reader, 0) > boundary and not isinstance(reader, _SMALL):
                return True
    return False


def _move_behind(op: Operation, anchor: Operation) -> None:
    """Moves `op`, with copies of the constants that it reads."""
    op.detach()
    Rewriter.insert_op(op, InsertPoint.after(anchor))
    for index, operand in enumerate(op.operands):
        if isinstance(operand, OpResult) and isinstance(operand.op, nn.ConstantOp):
            constant = operand.op.clone()
            Rewriter.insert_op(constant, InsertPoint.before(op))
            op.operands[index] = constant.y
            if operand.first_use is None:
                Rewriter.erase_op(operand.op)
