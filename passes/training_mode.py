"""What differs between a training step and inference: batch norm, dropout."""

import math

from xdsl.dialects.builtin import BoolAttr, i32
from xdsl.ir import Block, OpResult, SSAValue
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import get_int, shape_of, tensor
from niwaki.ir.errors import UsageError

STEP_COUNTER = "niwaki.step"
"""The state that counts steps, so that each one drops other elements."""

SEED_STRIDE = 0x9E3779B9
"""2^32 / golden ratio: consecutive multiples are spread evenly (Knuth, TAOCP 6.4)."""


def share_parameters(block: Block) -> None:
    """Leaves one read of each parameter, so that its uses add up to one gradient."""
    first: dict[str, SSAValue] = {}
    for op in block.ops:
        if not isinstance(op, train.ParameterOp):
            continue
        if op.key in first:
            Rewriter.replace_op(op, [], [first[op.key]])
        else:
            first[op.key] = op.value


def freeze(block: Block) -> None:
    """Batch norm by the running statistics, no dropout."""
    for op in block.ops:
        if isinstance(op, nn.BatchNormOp):
            op.properties["training"] = BoolAttr.from_bool(False)
        elif isinstance(op, nn.DropoutOp):
            Rewriter.replace_op(op, [], [op.x])


def to_training_mode(block: Block) -> None:
    """Batch norm by the statistics of the batch where the model says so, seeded dropout.

    Raises UsageError if a batch norm sees one value per channel only.
    """
    _train_batch_norms(block)
    _train_dropouts(block)


def _train_batch_norms(block: Block) -> None:
    moved: dict[SSAValue, SSAValue] = {}
    for op in block.ops:
        if isinstance(op, nn.BatchNormOp) and op.training.value.data:
            _train_batch_norm(op, moved)
    b = _at_return(block)
    for running, value in moved.items():
        b.assign(running, value)


def _train_batch_norm(op: nn.BatchNormOp, moved: dict[SSAValue, SSAValue]) -> None:
    """Replaces `op`; `moved` maps each running statistic to its value after the step."""
    names = [_check_statistic(v) for v in (op.mean, op.var)]
    count = math.prod(shape_of(op.x)[:-1])
    if count < 2:
        raise UsageError(
            f"the batch norm of '{names[0]}' sees one value per channel: use a larger batch, "
            "or export the model in evaluation mode to keep its statistics fixed"
        )
    b = Builder.before(op)
    batch = nn.BatchNormTrainOp.make(op.x, op.gamma, op.beta, epsilon=op.epsilon)
    b.insert(batch)
    momentum = op.momentum.value.data
    unbiased = momentum * count / (count - 1)
    for running, value, weight in (
        (op.mean, batch.mean, momentum),
        (op.var, batch.var, unbiased),
    ):
        kept = b.scale(moved.get(running, running), 1.0 - momentum)
        moved[running] = b.add(kept, b.scale(value, weight))
    Rewriter.replace_op(op, [], [batch.y])


def _check_statistic(value: SSAValue) -> str:
    """The name of a running statistic; UsageError if it is no parameter, as it will be written."""
    if isinstance(value, OpResult) and isinstance(value.op, train.ParameterOp):
        return value.op.key
    raise UsageError(
        "the running statistics of a batch norm in training mode must be parameters of the model"
    )


def _train_dropouts(block: Block) -> None:
    dropouts = [op for op in block.ops if isinstance(op, nn.DropoutOp)]
    if not dropouts:
        return
    counter = step_counter(block)
    for number, op in enumerate(dropouts):
        _train_dropout(op, counter, number)


def step_counter(block: Block) -> SSAValue:
    """The number of the step, i32, which the end of the block advances; made if not there."""
    for op in block.ops:
        if isinstance(op, train.StateOp) and op.key == STEP_COUNTER:
            return op.value
    assert block.first_op is not None
    counter = Builder.before(block.first_op).state(STEP_COUNTER, tensor([], i32), 0)
    b = _at_return(block)
    b.assign(counter, b.add(counter, b.constant(1, (), i32)))
    return counter


def _train_dropout(op: nn.DropoutOp, counter: SSAValue, number: int) -> None:
    """Inverted dropout: what is kept is scaled, so that inference needs nothing."""
    b = Builder.before(op)
    rate = op.rate.value.data
    seed = (get_int(op.properties, "seed") + SEED_STRIDE * number) % 2**32
    mask = b.one(nn.RandomMaskOp.make(op.x, counter, rate=op.rate, seed=seed))
    kept = b.scale(op.x, 1.0 / (1.0 - rate))
    Rewriter.replace_op(op, [], [b.select(mask, kept, b.number(0.0, kept))])


def _at_return(block: Block) -> Builder:
    assert block.last_op is not None
    return Builder.before(block.last_op)
