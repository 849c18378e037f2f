"""`build-training`: makes @train_step, @infer and @evaluate out of @forward."""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, StringAttr
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects.tensor_op import Tensor, tensor, type_of
from niwaki.passes.functions import find_function
from niwaki.passes.losses import as_rows, build_loss, target_type
from niwaki.passes.training_mode import freeze, share_parameters, to_training_mode


@dataclass(frozen=True)
class BuildTrainingPass(ModulePass):
    """Three functions out of @forward(inputs...) -> outputs, which is removed.

    @train_step(inputs..., target, lr) -> loss; @infer(inputs...) -> outputs;
    @evaluate(inputs..., target) -> loss, and for integer labels the number of correct rows.
    With the loss "output" the model's own scalar output is the loss, and there is no target.
    Only in @train_step does batch norm use the statistics of the batch and dropout drop.

    Raises UsageError if the loss is unknown or does not fit the model's output.
    """

    name = "build-training"

    loss: str = "cross_entropy"
    """cross_entropy (integer labels), cross_entropy_soft (probabilities), mse, bce or output."""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        forward = find_function(op, "forward", "import a model first")
        target_type(forward, self.loss)
        made = (
            _train_step(forward, self.loss), _infer(forward), _evaluate(forward, self.loss)
        )  # fmt: skip
        Rewriter.insert_op(made, InsertPoint.before(forward))
        Rewriter.erase_op(forward)


def _train_step(forward: FuncOp, loss: str) -> FuncOp:
    function = _copy(forward, "train_step")
    block = function.body.block
    share_parameters(block)
    to_training_mode(block)
    value, _ = _with_loss(function, loss)
    _return(function, value)
    _argument(function, "lr", tensor([], type_of(value).element_type))
    return function


def _infer(forward: FuncOp) -> FuncOp:
    function = _copy(forward, "infer")
    freeze(function.body.block)
    return function


def _evaluate(forward: FuncOp, loss: str) -> FuncOp:
    function = _copy(forward, "evaluate")
    freeze(function.body.block)
    output = _terminator(function).operands[0]
    value, target = _with_loss(function, loss)
    if loss == "cross_entropy" and target is not None:
        b = Builder.before(_terminator(function))
        correct = b.count_correct(*as_rows(b, output, target))
        _return(function, value, correct)
    else:
        _return(function, value)
    return function


def _with_loss(function: FuncOp, loss: str) -> tuple[SSAValue, SSAValue | None]:
    """Adds the target, if the loss has one, and the loss; returns both."""
    output = _terminator(function).operands[0]
    wanted = target_type(function, loss)
    if wanted is None:
        return output, None
    target = _argument(function, "target", wanted)
    return build_loss(Builder.before(_terminator(function)), loss, output, target), target


def _copy(forward: FuncOp, name: str) -> FuncOp:
    function = forward.clone()
    function.properties["sym_name"] = StringAttr(name)
    return function


def _terminator(function: FuncOp) -> ReturnOp:
    terminator = function.body.block.last_op
    assert isinstance(terminator, ReturnOp)
    return terminator


def _argument(function: FuncOp, name: str, type_: Tensor) -> SSAValue:
    block = function.body.block
    argument = block.insert_arg(type_, len(block.args))
    argument.name_hint = name
    function.update_function_type()
    return argument


def _return(function: FuncOp, *values: SSAValue) -> None:
    _terminator(function).operands = values
    function.update_function_type()
