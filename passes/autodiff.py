"""`autodiff`: the backward pass and the updates, into the same block as the forward pass.

Reverse-mode differentiation at compile time (Griewank & Walther 2008, chapter 3), restricted to
what the updates need: a value gets a cotangent only if it depends on an updated parameter and the
loss depends on it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.effects import storage_read
from niwaki.ir.errors import UsageError
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer
from niwaki.passes.functions import find_function
from niwaki.passes.gradients import RULES, UNSUPPORTED
from niwaki.passes.gradients.rule import wanted_box
from niwaki.passes.optimizers import updates_of
from niwaki.passes.place_masks import place_masks


@dataclass(frozen=True)
class AutodiffPass(ModulePass):
    """Appends gradients and updates of the marked parameters to @train_step."""

    name = "autodiff"

    optimizer: str = "sgd"
    """sgd, adam or adamw."""
    momentum: int | float = 0
    nesterov: bool = False
    beta1: int | float = 0.9
    beta2: int | float = 0.999
    epsilon: int | float = 1e-8
    weight_decay: int | float = 0
    clip_norm: int | float | None = None

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        function = find_function(op, "train_step", "run build-training first")
        differentiate(function, self._optimizer())

    def _optimizer(self) -> Optimizer:
        """The learning rate is an argument of the function: that of the object is not used."""
        if self.optimizer == "sgd":
            return SGD(0.0, self.momentum, self.nesterov, self.weight_decay, self.clip_norm)
        kinds = {"adam": Adam, "adamw": AdamW}
        if self.optimizer not in kinds:
            raise UsageError(f"unknown optimizer '{self.optimizer}': use sgd, adam or adamw")
        betas = (self.beta1, self.beta2)
        return kinds[self.optimizer](0.0, betas, self.epsilon, self.weight_decay, self.clip_norm)


def differentiate(function: FuncOp, optimizer: Optimizer) -> None:
    """Appends to `function` the gradients of its first result and the updates by `optimizer`.

    Every parameter with an `update` box is updated; one on which the loss does not depend loses
    its mark. The last argument of `function` is the learning rate. Values that get a cotangent
    for several uses get the sum (multivariate chain rule).

    Raises UsageError if nothing is to be updated, or an operation cannot be differentiated.
    """
    block = function.body.block
    loss = _loss(block)
    gradients = _backward(block, loss)
    for op in block.ops:
        if isinstance(op, train.ParameterOp) and op not in gradients:
            op.properties.pop("update", None)
    if not gradients:
        raise UsageError("the loss does not depend on any parameter that is to be updated")
    place_masks(block, loss.op)
    if optimizer.clip_norm is not None:
        gradients = _clipped(block, gradients, optimizer.clip_norm)
    _update(block, gradients, optimizer)


def _loss(block: Block) -> OpResult:
    assert block.last_op is not None
    loss = block.last_op.operands[0]
    if shape_of(loss) != () or not isinstance(loss, OpResult):
        raise UsageError("the first result of @train_step must be a computed scalar, the loss")
    return loss


def _backward(block: Block, loss: OpResult) -> dict[train.ParameterOp, SSAValue]:
    """Emits the cotangents; returns those of the updated boxes, in order of completion."""
    assert block.last_op is not None
    forward = list(block.ops)
    active = active_values(forward)
    cotangents: dict[SSAValue, SSAValue] = {}
    gradients: dict[train.ParameterOp, SSAValue] = {}
    if loss in active:
        b = Builder(InsertPoint.before(block.last_op), loss.op.location)
        cotangents[loss] = b.constant(1.0, (), type_of(loss).element_type)
    for op in reversed(forward):
        if not op.results or op.results[0] not in cotangents:
            continue
        cotangent = cotangents.pop(op.results[0])
        if isinstance(op, train.ParameterOp):
            gradients[op] = cotangent
            continue
        b = Builder(InsertPoint.before(block.last_op), op.location)
        needed = [operand in active for operand in op.operands]
        parts = RULES[type(op)](b, op, cotangent, needed)
        for operand, part in zip(op.operands, parts, strict=True):
            if part is not None:
                _accumulate(b, cotangents, operand, part)
    return gradients


def active_values(forward: Sequence[Operation]) -> set[SSAValue]:
    """Updated parameters and what depends on them differentiably."""
    active: set[SSAValue] = set()
    for op in forward:
        if isinstance(op, train.ParameterOp):
            if op.update_box is not None:
                active.add(op.value)
        elif type(op) in RULES and any(operand in active for operand in op.operands):
            active.add(op.results[0])
        elif type(op) in UNSUPPORTED and any(operand in active for operand in op.operands):
            raise UsageError(f"'{op.name}' at {op.location} has no gradient")
    return active


def _accumulate(
    b: Builder, cotangents: dict[SSAValue, SSAValue], value: SSAValue, part: SSAValue
) -> None:
    """Adds `part` to the cotangent of `value`; of a parameter, only the updated box counts."""
    box = wanted_box(value)
    part = b.slice(part, [0] * len(box), box)
    cotangents[value] = b.add(cotangents[value], part) if value in cotangents else part


def _clipped(
    block: Block, gradients: Mapping[train.ParameterOp, SSAValue], max_norm: float
) -> dict[train.ParameterOp, SSAValue]:
    assert block.last_op is not None
    values = list(gradients.values())
    op = train.ClipByNormOp.create(
        operands=values,
        properties={"max_norm": FloatAttr(max_norm, f32)},
        result_types=[v.type for v in values],
    )
    Builder.before(block.last_op).insert(op)
    return dict(zip(gradients, op.clipped, strict=True))


def _update(
    block: Block, gradients: Mapping[train.ParameterOp, SSAValue], optimizer: Optimizer
) -> None:
    """Emits each update right behind its gradient and the last read of its parameter."""
    assert block.first_op is not None
    assert block.last_op is not None
    position = {op: i for i, op in enumerate(block.ops)}
    last_read = _last_reads(block)
    lr = block.args[-1]
    start, end = Builder.before(block.first_op), Builder.before(block.last_op)
    update = updates_of(optimizer, start, end, lr)
    for parameter, gradient in gradients.items():
        assert isinstance(gradient, OpResult)
        anchor = max(gradient.op, last_read[parameter.key], key=position.__getitem__)
        update(Builder(InsertPoint.after(anchor), anchor.location), parameter, gradient)


def _last_reads(block: Block) -> dict[str, Operation]:
    """The last operation that reads each parameter, directly or through a view."""
    last: dict[str, Operation] = {}
    for op in block.ops:
        for operand in op.operands:
            storage = storage_read(operand)
            if storage is not None:
                last[storage.key] = op
    return last
