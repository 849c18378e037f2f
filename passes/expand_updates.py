"""`expand-updates`: writes the updates of optimizers as elementwise operations and assignments."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.passes.functions import functions


@dataclass(frozen=True)
class ExpandUpdatesPass(ModulePass):
    """train.sgd, train.adam and train.clip_by_norm become `nn` operations and train.assign.

    Only the leading box of a parameter that has a gradient is read, computed and written.
    """

    name = "expand-updates"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            for inner in function.body.block.ops:
                expansion = EXPANSIONS.get(type(inner))
                if expansion is not None:
                    expansion(inner)


def _updated_box(b: Builder, parameter: SSAValue, gradient: SSAValue) -> SSAValue:
    sizes = shape_of(gradient)
    return b.slice(parameter, [0] * len(sizes), sizes)


def _expand_sgd(op: train.SgdOp) -> None:
    b = Builder.before(op)
    momentum, decay = op.momentum.value.data, op.weight_decay.value.data
    parameter = _updated_box(b, op.parameter, op.gradient)
    step = op.gradient
    if decay > 0:
        step = b.add(step, b.scale(parameter, decay))
    velocity = None
    if op.velocity is not None:
        velocity = b.add(b.scale(op.velocity, momentum), step)
        step = b.add(step, b.scale(velocity, momentum)) if op.nesterov.value.data else velocity
    new = b.sub(parameter, b.mul(step, op.lr))
    if op.velocity is not None and velocity is not None:
        b.assign(op.velocity, velocity)
    b.assign(op.parameter, new)
    Rewriter.erase_op(op)


def _expand_adam(op: train.AdamOp) -> None:
    """lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) are scalars, taken out of the tensors."""
    b = Builder.before(op)
    decay, gradient = op.weight_decay.value.data, op.gradient
    parameter = _updated_box(b, op.parameter, gradient)
    one = b.number(1.0, op.lr)
    if decay > 0 and op.decoupled.value.data:
        parameter = b.mul(parameter, b.sub(one, b.scale(op.lr, decay)))
    elif decay > 0:
        gradient = b.add(gradient, b.scale(parameter, decay))
    mean = _moving_average(b, op.mean, gradient, op.beta1.value.data)
    square = b.mul(gradient, gradient)
    variance = _moving_average(b, op.variance, square, op.beta2.value.data)
    rate = b.div(op.lr, b.sub(one, op.power1))
    correction = b.rsqrt(b.sub(one, op.power2))
    root = b.add(b.mul(b.sqrt(variance), correction), b.number(op.epsilon.value.data, op.lr))
    new = b.sub(parameter, b.mul(b.div(mean, root), rate))
    b.assign(op.mean, mean)
    b.assign(op.variance, variance)
    b.assign(op.parameter, new)
    Rewriter.erase_op(op)


def _moving_average(b: Builder, old: SSAValue, new: SSAValue, beta: float) -> SSAValue:
    return b.add(b.scale(old, beta), b.scale(new, 1.0 - beta))


def _expand_clip(op: train.ClipByNormOp) -> None:
    b = Builder.before(op)
    squares: list[SSAValue] = []
    for gradient in op.gradients:
        total = b.reduce_sum(b.mul(gradient, gradient), range(len(shape_of(gradient))))
        squares.append(b.reshape(total, ()))
    square = squares[0]
    for other in squares[1:]:
        square = b.add(square, other)
    norm = b.add(b.sqrt(square), b.number(1e-6, square))
    factor = b.min(b.div(b.number(op.max_norm.value.data, norm), norm), b.number(1.0, norm))
    Rewriter.replace_op(op, [], [b.mul(g, factor) for g in op.gradients])


EXPANSIONS: Mapping[type[Operation], Callable[[Any], None]] = {
    train.SgdOp: _expand_sgd,
    train.AdamOp: _expand_adam,
    train.ClipByNormOp: _expand_clip,
}
