"""`split-batch`: lets every function work on one of several equal parts of its batch."""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import OpResult
from xdsl.passes import ModulePass

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.errors import UsageError
from niwaki.passes.functions import find_function, functions
from niwaki.passes.set_batch import rebatch

_MEANS = (nn.CrossEntropyOp, nn.MseOp, nn.BceWithLogitsOp)


@dataclass(frozen=True)
class SplitBatchPass(ModulePass):
    """All batches are divided by `count`; `micro-batch` repeats the part later.

    Raises UsageError where the parts together would not give the result of the whole batch.
    """

    name = "split-batch"

    count: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        _check_parts_add_up(find_function(op, "train_step", "run build-training first"))
        for function in functions(op):
            batch = batch_of(function)
            if self.count < 1 or batch % self.count:
                raise UsageError(
                    f"a batch of {batch} cannot be split into {self.count} equal parts"
                )
            rebatch(function, batch, batch // self.count)


def batch_of(function: FuncOp) -> int:
    """Samples per call; 1 if the arguments do not agree on it."""
    sizes = {shape_of(a)[0] for a in function.body.block.args if shape_of(a)}
    return sizes.pop() if len(sizes) == 1 else 1


def _check_parts_add_up(function: FuncOp) -> None:
    block = function.body.block
    for op in block.ops:
        if isinstance(op, nn.BatchNormTrainOp):
            raise UsageError(
                f"the batch norm at {op.location} is in training mode: it uses the mean and "
                "variance of the whole batch, so the batch cannot be split into micro-batches; "
                "export the model in evaluation mode to keep its statistics fixed"
            )
    assert block.last_op is not None
    loss = block.last_op.operands[0]
    if not isinstance(loss, OpResult) or not isinstance(loss.op, _MEANS):
        raise UsageError(
            "the loss is the model's own and perhaps no mean over samples, so the batch cannot "
            "be split into micro-batches; use a built-in loss"
        )
