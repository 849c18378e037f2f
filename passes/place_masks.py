"""Takes masks and slices of activations where the activations are made, not where they are used.

The backward pass of a relu needs one bit per element, that of a sparse update the leading
channels. Where nothing else behind the loss reads the activation, only they are kept.
"""

from collections.abc import Mapping

from xdsl.ir import Block, Operation, OpResult
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.dialects import nn, train

_SMALL = (nn.CompareOp, nn.AndOp, nn.SliceOp)
"""Operations whose results are smaller than what they read."""


def place_masks(block: Block, loss: Operation) -> None:
    """Moves masks and slices behind `loss` to right behind the forward values that they read."""
    ops = list(block.ops)
    position = {op: i for i, op in enumerate(ops)}
    boundary = position[loss]
    place: dict[Operation, int] = {}
    """Operation that was moved -> position of the one that it stands behind."""
    last_at: dict[int, Operation] = {}
    for op in ops:
        if not isinstance(op, _SMALL) or position[op] <= boundary:
            continue
        producers = _producers(op)
        activations = [p for p in producers if not isinstance(p, train.Storage)]
        if not activations or any(
            p not in place and (position[p] > boundary or _is_read_behind(p, position, boundary))
            for p in activations
        ):
            continue
        # A parameter is compared where it is read, which may be behind the activation.
        place[op] = max(place.get(p, position[p]) for p in producers)
        _move_behind(op, last_at.get(place[op], ops[place[op]]))
        last_at[place[op]] = op


def _producers(op: Operation) -> list[Operation]:
    """What computes or reads the operands of `op`, but constants, which move along."""
    producers = [operand.op for operand in op.operands if isinstance(operand, OpResult)]
    return [p for p in producers if not isinstance(p, nn.ConstantOp)]


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
