"""Gradient rules of softmax, normalisation and losses, by their closed formulas."""

import math
from collections.abc import Mapping, Sequence

from xdsl.dialects.builtin import FloatAttr
from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, shape_of, type_of
from niwaki.passes.gradients.rule import Cotangents, Rule, sum_to


def _softmax(b: Builder, op: nn.SoftmaxOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    total = b.reduce_sum(b.mul(g, op.y), [get_int(op.properties, "axis")])
    return [b.mul(op.y, b.sub(g, total))]


def _log_softmax(
    b: Builder, op: nn.LogSoftmaxOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    total = b.reduce_sum(g, [get_int(op.properties, "axis")])
    return [b.sub(g, b.mul(b.exp(op.y), total))]


def _cross_entropy(
    b: Builder, op: nn.CrossEntropyOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    rows, classes = shape_of(op.x)
    p = b.softmax(op.x)
    if len(shape_of(op.target)) == 1:
        difference = b.sub(p, b.one_hot(op.target, classes, type_of(p).element_type))
    else:
        difference = b.sub(b.mul(p, b.reduce_sum(op.target, [1])), op.target)
    return [b.mul(difference, b.scale(g, 1.0 / rows)), None]


def _mse(b: Builder, op: nn.MseOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    count = math.prod(shape_of(op.x))
    dx = b.mul(b.sub(op.x, op.target), b.scale(g, 2.0 / count))
    return [dx if needed[0] else None, b.neg(dx) if needed[1] else None]


def _bce_with_logits(
    b: Builder, op: nn.BceWithLogitsOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    share = b.scale(g, 1.0 / math.prod(shape_of(op.x)))
    dx = b.mul(b.sub(b.sigmoid(op.x), op.target), share) if needed[0] else None
    return [dx, b.mul(b.neg(op.x), share) if needed[1] else None]


def _batch_norm(b: Builder, op: nn.BatchNormOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    """y = (x - mean) * inverse * gamma + beta, inverse = 1 / sqrt(var + epsilon)."""
    wants_x, wants_gamma, wants_beta, wants_mean, wants_var = needed
    channels = shape_of(op.gamma)
    dx = dgamma = dbeta = dmean = dvar = None
    if wants_beta or wants_mean:
        total = sum_to(b, g, channels)
        dbeta = total if wants_beta else None
        dmean = b.neg(b.mul(total, _slope(b, op))) if wants_mean else None
    if wants_gamma or wants_var:
        product = sum_to(b, b.mul(g, b.sub(op.x, op.mean)), channels)
        moment = b.mul(product, _inverse_deviation(b, op.var, op.epsilon))
        dgamma = moment if wants_gamma else None
        dvar = _variance_cotangent(b, op, moment) if wants_var else None
    if wants_x:
        dx = b.mul(g, _slope(b, op))
    return [dx, dgamma, dbeta, dmean, dvar]


def _inverse_deviation(b: Builder, var: SSAValue, epsilon: FloatAttr) -> SSAValue:
    """1 / sqrt(var + epsilon)."""
    return b.rsqrt(b.add(var, b.number(epsilon.value.data, var)))


def _slope(b: Builder, op: nn.BatchNormOp) -> SSAValue:
    """dy / dx of a frozen batch norm."""
    return b.mul(op.gamma, _inverse_deviation(b, op.var, op.epsilon))


def _variance_cotangent(b: Builder, op: nn.BatchNormOp, moment: SSAValue) -> SSAValue:
    """-1/2 * gamma * inverse^2 * sum(g * (x - mean) * inverse)."""
    inverse = _inverse_deviation(b, op.var, op.epsilon)
    return b.scale(b.mul(b.mul(moment, _slope(b, op)), inverse), -0.5)


def _batch_norm_train(
    b: Builder, op: nn.BatchNormTrainOp, g: SSAValue, needed: Sequence[bool]
) -> Cotangents:
    """Ioffe & Szegedy 2015, section 3, in terms of x: the normalised input need not be kept."""
    channels = shape_of(op.gamma)
    dbeta = sum_to(b, g, channels)
    if not (needed[0] or needed[1]):
        return [None, None, dbeta]
    inverse = _inverse_deviation(b, op.var, op.epsilon)
    dgamma = b.mul(sum_to(b, b.mul(g, b.sub(op.x, op.mean)), channels), inverse)
    dx = None
    if needed[0]:
        share = math.prod(channels) / math.prod(shape_of(op.x))
        moment = b.mul(b.scale(dgamma, share), inverse)
        intercept = b.sub(b.scale(dbeta, share), b.mul(op.mean, moment))
        mean_part = b.add(b.mul(op.x, moment), intercept)
        dx = b.mul(b.sub(g, mean_part), b.mul(op.gamma, inverse))
    return [dx, dgamma if needed[1] else None, dbeta if needed[2] else None]


def _layer_norm(b: Builder, op: nn.LayerNormOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    """y = n * gamma + beta, n = (x - mean) / sqrt(var + epsilon), computed again from x."""
    wants_x, wants_gamma, wants_beta = needed
    dx = dgamma = None
    if wants_x or wants_gamma:
        centred, inverse = b.centred(op.x, op.epsilon.value.data)
        normalised = b.mul(centred, inverse)
        dgamma = sum_to(b, b.mul(g, normalised), shape_of(op.gamma)) if wants_gamma else None
        if wants_x:
            axes = [len(shape_of(op.x)) - 1]
            dn = b.mul(g, op.gamma)
            rest = b.sub(dn, b.reduce_mean(dn, axes))
            moment = b.reduce_mean(b.mul(dn, normalised), axes)
            dx = b.mul(b.sub(rest, b.mul(normalised, moment)), inverse)
    return [dx, dgamma, sum_to(b, g, shape_of(op.beta)) if wants_beta else None]


def _rms_norm(b: Builder, op: nn.RmsNormOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    """y = x * r * gamma, r = 1 / sqrt(mean(x^2) + epsilon), which is computed again from x."""
    inverse = b.inverse_rms(op.x, op.epsilon.value.data)
    normalised = b.mul(op.x, inverse)
    dx = None
    if needed[0]:
        dn = b.mul(g, op.gamma)
        mean = b.reduce_mean(b.mul(dn, normalised), [len(shape_of(op.x)) - 1])
        dx = b.mul(b.sub(dn, b.mul(normalised, mean)), inverse)
    dgamma = sum_to(b, b.mul(g, normalised), shape_of(op.gamma)) if needed[1] else None
    return [dx, dgamma]


def _dropout(b: Builder, op: nn.DropoutOp, g: SSAValue, needed: Sequence[bool]) -> Cotangents:
    return [g]


RULES: Mapping[type[Operation], Rule] = {
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
