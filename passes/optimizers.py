"""Emits the update operations of an optimizer, with the state that they need."""

from collections.abc import Callable
from typing import TypeAlias

from xdsl.dialects.builtin import BoolAttr, FloatAttr, f32
from xdsl.ir import Operation, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import tensor, type_of
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer

Update: TypeAlias = Callable[[Builder, train.ParameterOp, SSAValue], Operation]
"""(builder, parameter, gradient of its updated box) -> the operation that updates it."""


def updates_of(optimizer: Optimizer, start: Builder, end: Builder, lr: SSAValue) -> Update:
    """How `optimizer` updates a parameter. State that parameters share is read at `start` and
    advanced at `end`."""
    if isinstance(optimizer, SGD):
        return lambda b, parameter, gradient: _sgd(b, optimizer, parameter, gradient, lr)
    element = type_of(lr).element_type
    powers: list[SSAValue] = []
    for number, exact in enumerate(optimizer.betas, start=1):
        beta = _float(exact).value.data
        power = start.state(f"niwaki.beta{number}_power", tensor([], element), beta)
        end.assign(power, end.mul(power, end.constant(beta, (), element)))
        powers.append(power)
    return lambda b, parameter, gradient: _adam(b, optimizer, parameter, gradient, lr, powers)


def _sgd(
    b: Builder, optimizer: SGD, parameter: train.ParameterOp, gradient: SSAValue, lr: SSAValue
) -> Operation:
    operands = [parameter.value, gradient, lr]
    if optimizer.momentum > 0:
        operands.append(b.state(f"{parameter.key}.momentum", type_of(gradient)))
    properties = {
        "momentum": _float(optimizer.momentum),
        "weight_decay": _float(optimizer.weight_decay),
        "nesterov": BoolAttr.from_bool(optimizer.nesterov),
    }
    return b.insert(train.SgdOp.create(operands=operands, properties=properties))


def _adam(
    b: Builder,
    optimizer: Adam,
    parameter: train.ParameterOp,
    gradient: SSAValue,
    lr: SSAValue,
    powers: list[SSAValue],
) -> Operation:
    moments = [
        b.state(f"{parameter.key}.{moment}", type_of(gradient)) for moment in ("mean", "variance")
    ]
    properties = {
        "beta1": _float(optimizer.betas[0]),
        "beta2": _float(optimizer.betas[1]),
        "epsilon": _float(optimizer.epsilon),
        "weight_decay": _float(optimizer.weight_decay),
        "decoupled": BoolAttr.from_bool(isinstance(optimizer, AdamW)),
    }
    operands = [parameter.value, gradient, lr, *moments, *powers]
    return b.insert(train.AdamOp.create(operands=operands, properties=properties))


def _float(value: float) -> FloatAttr:
    return FloatAttr(value, f32)
