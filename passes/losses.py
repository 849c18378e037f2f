"""The built-in losses: which target they take, and the operation they are."""

from math import prod

from xdsl.dialects.builtin import AnyFloat
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects.tensor_op import Tensor, i32, shape_of, tensor, type_of
from niwaki.ir.errors import UsageError

LOSSES = ("cross_entropy", "cross_entropy_soft", "mse", "bce", "output")


def target_type(function: FuncOp, loss: str) -> Tensor | None:
    """The type of the target of `loss` for what `function` returns; None if it takes no target.

    Raises UsageError if the loss is unknown or does not fit the outputs.
    """
    if loss not in LOSSES:
        raise UsageError(f"unknown loss '{loss}': use one of {', '.join(LOSSES)}")
    outputs = _outputs(function)
    if len(outputs) != 1:
        raise UsageError(
            f"the model has {len(outputs)} outputs, the loss '{loss}' needs exactly one: "
            "export the model with one output"
        )
    (output,) = outputs
    if not isinstance(output.element_type, AnyFloat):
        raise UsageError(f"the model's output is {output}, a loss needs a floating-point one")
    shape = list(output.get_shape())
    if loss == "output":
        if shape:
            raise UsageError(
                f"the model's output has the shape {shape}, but to be the loss it must be a "
                "scalar: return the mean of the losses, or choose another loss"
            )
        return None
    if loss in ("mse", "bce"):
        return output
    if len(shape) not in (2, 3):
        raise UsageError(
            f"the loss '{loss}' needs an output of the shape [batch, classes] or [batch, sequence, "
            f"classes], the model's is {shape}: flatten it at the end of the model, or choose "
            "another loss"
        )
    return tensor(shape[:-1], i32) if loss == "cross_entropy" else output


def build_loss(b: Builder, loss: str, output: SSAValue, target: SSAValue) -> SSAValue:
    """The scalar `loss` of `output` against `target`."""
    match loss:
        case "mse":
            return b.mse(output, target)
        case "bce":
            return b.bce_with_logits(output, target)
        case _:
            return b.cross_entropy(*as_rows(b, output, target))


def as_rows(b: Builder, logits: SSAValue, target: SSAValue) -> tuple[SSAValue, SSAValue]:
    """Logits [batch, sequence, classes] as [batch * sequence, classes], and their target."""
    shape = shape_of(logits)
    classes = shape[-1]
    rows = prod(shape) // classes
    like_logits = shape_of(target) == shape
    return b.reshape(logits, [rows, classes]), b.reshape(
        target, [rows, classes] if like_logits else [rows]
    )


def _outputs(function: FuncOp) -> list[Tensor]:
    terminator = function.body.block.last_op
    assert isinstance(terminator, ReturnOp)
    return [type_of(v) for v in terminator.operands]
