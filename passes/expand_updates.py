"""`expand-updates`: writes the updates of optimizers as elementwise operations and assignments."""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.errors import UsageError
from niwaki.passes.functions import functions
from niwaki.passes.quantized_updates import ROUNDINGS, Parameter, Rounding

EXPANDED = (train.SgdOp, train.AdamOp, train.ClipByNormOp)
"""What the pass replaces."""


@dataclass(frozen=True)
class ExpandUpdatesPass(ModulePass):
    """train.sgd, train.adam and train.clip_by_norm become `nn` operations and train.assign.

    Only the leading box of a parameter that has a gradient is read, computed and written.
    """

    name = "expand-updates"

    rounding: str = "stochastic"
    """How steps of codes become whole: stochastic, error_feedback or nearest."""
    scaling: bool = True
    """Quantization-aware scaling: codes move as the real numbers that they stand for would."""
    seed: int = 0
    """Of stochastic rounding."""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.rounding not in ROUNDINGS:
            raise UsageError(f"unknown rounding '{self.rounding}': use {', '.join(ROUNDINGS)}")
        for function in functions(op):
            self._expand(function.body.block)

    def _expand(self, block: Block) -> None:
        rounding = Rounding(block, self.rounding, self.seed)
        for op in block.ops:
            match op:
                case train.ClipByNormOp():
                    _expand_clip(op)
                case train.SgdOp() | train.AdamOp():
                    parameter = Parameter(op.parameter, shape_of(op.gradient), self.scaling)
                    b = Builder.before(op)
                    step = (
                        _sgd_step(b, op, parameter)
                        if isinstance(op, train.SgdOp)
                        else _adam_step(b, op, parameter)
                    )
                    parameter.move(b, step, rounding)
                    Rewriter.erase_op(op)
                case _:
                    pass


def _sgd_step(b: Builder, op: train.SgdOp, parameter: Parameter) -> SSAValue:
    momentum, decay = op.momentum.value.data, op.weight_decay.value.data
    step = parameter.gradient(b, op.gradient)
    if decay > 0:
        step = b.add(step, b.scale(parameter.read(b), decay))
    if op.velocity is not None:
        velocity = b.add(b.scale(op.velocity, momentum), step)
        step = b.add(step, b.scale(velocity, momentum)) if op.nesterov.value.data else velocity
        b.assign(op.velocity, velocity)
    return b.mul(step, op.lr)


def _adam_step(b: Builder, op: train.AdamOp, parameter: Parameter) -> SSAValue:
    """lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t) are scalars, taken out of the tensors."""
    decay, gradient = op.weight_decay.value.data, parameter.gradient(b, op.gradient)
    one = b.number(1.0, op.lr)
    if decay > 0 and not op.decoupled.value.data:
        gradient = b.add(gradient, b.scale(parameter.read(b), decay))
    mean = _moving_average(b, op.mean, gradient, op.beta1.value.data)
    square = b.mul(gradient, gradient)
    variance = _moving_average(b, op.variance, square, op.beta2.value.data)
    rate = b.div(op.lr, b.sub(one, op.power1))
    correction = b.rsqrt(b.sub(one, op.power2))
    root = b.add(b.mul(b.sqrt(variance), correction), b.number(op.epsilon.value.data, op.lr))
    step = b.mul(b.div(mean, root), rate)
    if decay > 0 and op.decoupled.value.data:
        step = b.add(b.mul(parameter.read(b), b.scale(op.lr, decay)), step)
    b.assign(op.mean, mean)
    b.assign(op.variance, variance)
    return step


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
