"""`decompose`: writes softmax, normalisation and losses as elementwise ops and reductions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, shape_of, type_of
from niwaki.passes.functions import functions

Decomposition: TypeAlias = Callable[[Builder, Any], Sequence[SSAValue]]
"""(builder, op) -> what replaces the results."""


@dataclass(frozen=True)
class DecomposePass(ModulePass):
    """Composite operations become primitive ones, once gradients are taken."""

    name = "decompose"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            for inner in function.body.block.ops:
                decomposition = DECOMPOSITIONS.get(type(inner))
                if decomposition is not None:
                    values = decomposition(Builder.before(inner), inner)
                    Rewriter.replace_op(inner, [], values)


def _mean_of_all(b: Builder, x: SSAValue) -> SSAValue:
    return b.reshape(b.reduce_mean(x, range(len(shape_of(x)))), ())


def _per_channel_mean(b: Builder, x: SSAValue) -> SSAValue:
    shape = shape_of(x)
    return b.reshape(b.reduce_mean(x, range(len(shape) - 1)), shape[-1:])


def _softmax(b: Builder, op: nn.SoftmaxOp) -> Sequence[SSAValue]:
    axes = [get_int(op.properties, "axis")]
    powers = b.exp(b.sub(op.x, b.reduce_max(op.x, axes)))
    return [b.div(powers, b.reduce_sum(powers, axes))]


def _log_softmax_terms(b: Builder, x: SSAValue, axis: int) -> tuple[SSAValue, SSAValue]:
    """Logits of which the largest is 0, and the logarithm of the sum of their exponentials."""
    shifted = b.sub(x, b.reduce_max(x, [axis]))
    return shifted, b.log(b.reduce_sum(b.exp(shifted), [axis]))


def _log_softmax(b: Builder, op: nn.LogSoftmaxOp) -> Sequence[SSAValue]:
    shifted, log_sum = _log_softmax_terms(b, op.x, get_int(op.properties, "axis"))
    return [b.sub(shifted, log_sum)]


def _cross_entropy(b: Builder, op: nn.CrossEntropyOp) -> Sequence[SSAValue]:
    if len(shape_of(op.target)) == 1:
        terms = _losses_of_labels(b, op.x, op.target)
    else:
        shifted, log_sum = _log_softmax_terms(b, op.x, 1)
        # Negated before the sum: a loss of 0 is 0 then, and not -0.
        terms = b.mul(op.target, b.sub(log_sum, shifted))
    total = b.reshape(b.reduce_sum(terms, [0, 1]), ())
    return [b.scale(total, 1.0 / shape_of(op.x)[0])]


def _losses_of_labels(b: Builder, x: SSAValue, labels: SSAValue) -> SSAValue:
    """The loss of each row, [rows, 1]; 0 where the label is none of the classes.

    The logits of the labels are taken before anything else is made of the logits, so that the
    powers may lie where these were.
    """
    rows, classes = shape_of(x)
    target = b.one_hot(labels, classes, type_of(x).element_type)
    chosen = b.reduce_sum(b.mul(target, x), [1])
    largest = b.reduce_max(x, [1])
    powers = b.exp(b.sub(x, largest))
    loss = b.sub(b.log(b.reduce_sum(powers, [1])), b.sub(chosen, largest))
    column = b.reshape(labels, [rows, 1])
    inside = b.logical_and(
        b.compare(column, b.number(0, column), "ge"),
        b.compare(column, b.number(classes, column), "lt"),
    )
    return b.select(inside, loss, b.number(0.0, loss))


def _mse(b: Builder, op: nn.MseOp) -> Sequence[SSAValue]:
    difference = b.sub(op.x, op.target)
    return [_mean_of_all(b, b.mul(difference, difference))]


def _bce_with_logits(b: Builder, op: nn.BceWithLogitsOp) -> Sequence[SSAValue]:
    positive = b.max(op.x, b.number(0.0, op.x))
    rest = b.softplus(b.neg(b.abs(op.x)))
    return [_mean_of_all(b, b.add(b.sub(positive, b.mul(op.x, op.target)), rest))]


def _slope(b: Builder, var: SSAValue, op: nn.BatchNormOp | nn.BatchNormTrainOp) -> SSAValue:
    inverse = b.rsqrt(b.add(var, b.number(op.epsilon.value.data, var)))
    return b.mul(op.gamma, inverse)


def _batch_norm(b: Builder, op: nn.BatchNormOp) -> Sequence[SSAValue]:
    centred = b.sub(op.x, op.mean)
    return [b.add(b.mul(centred, _slope(b, op.var, op)), op.beta)]


def _batch_norm_train(b: Builder, op: nn.BatchNormTrainOp) -> Sequence[SSAValue]:
    """The variance as the mean of squared deviations: stable for means far from 0.

    Then slope and intercept of each channel, so that each element takes one product and one sum.
    """
    mean = _per_channel_mean(b, op.x)
    centred = b.sub(op.x, mean)
    var = _per_channel_mean(b, b.mul(centred, centred))
    slope = _slope(b, var, op)
    intercept = b.sub(op.beta, b.mul(mean, slope))
    return [b.add(b.mul(op.x, slope), intercept), mean, var]


def _layer_norm(b: Builder, op: nn.LayerNormOp) -> Sequence[SSAValue]:
    centred, inverse = b.centred(op.x, op.epsilon.value.data)
    return [b.add(b.mul(b.mul(centred, inverse), op.gamma), op.beta)]


def _rms_norm(b: Builder, op: nn.RmsNormOp) -> Sequence[SSAValue]:
    return [b.mul(b.mul(op.x, b.inverse_rms(op.x, op.epsilon.value.data)), op.gamma)]


def _dropout(b: Builder, op: nn.DropoutOp) -> Sequence[SSAValue]:
    return [op.x]


DECOMPOSITIONS: Mapping[type[Operation], Decomposition] = {
    nn.SoftmaxOp: _softmax,
    nn.LogSoftmaxOp: _log_softmax,
    nn.CrossEntropyOp: _cross_entropy,
    nn.MseOp: _mse,
    nn.BceWithLogitsOp: _bce_with_logits,
    nn.BatchNormOp: _batch_norm,
    nn.BatchNormTrainOp: _batch_norm_train,
    nn.LayerNormOp: _layer_norm,
    nn.RmsNormOp: _rms_norm,
    nn.DropoutOp: _dropout,
}
