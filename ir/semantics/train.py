"""What reading, updating and writing persistent storage does."""

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls
from xdsl.ir import SSAValue

from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.dtypes import dtype_of

Array = np.ndarray[Any, np.dtype[Any]]


def _box(sizes: tuple[int, ...]) -> tuple[slice, ...]:
    """The index of the leading box of `sizes`."""
    return tuple(slice(size) for size in sizes)


@register_impls
@dataclass
class TrainFunctions(InterpreterFunctions):
    """Reads come from `weights` and what `state` held before the step; writes go to `state`."""

    weights: Mapping[str, Array]
    state: MutableMapping[str, Array]
    _start: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        self._start = dict(self.state)

    def _write(self, target: SSAValue, whole: Array, value: Array) -> None:
        """Puts `value` into the leading box of a copy of `whole`, the value at step start."""
        written = np.array(whole)
        written[_box(value.shape)] = value
        self.state[train.storage_of(target).key] = written

    @impl(train.ParameterOp)
    def parameter(
        self, interpreter: Interpreter, op: train.ParameterOp, args: PythonValues
    ) -> PythonValues:
        array = self._start[op.key] if op.key in self._start else self.weights[op.key]
        return (array.astype(dtype_of(type_of(op.value).element_type), copy=False),)

    @impl(train.StateOp)
    def state_value(
        self, interpreter: Interpreter, op: train.StateOp, args: PythonValues
    ) -> PythonValues:
        result = type_of(op.value)
        dtype = dtype_of(result.element_type)
        if op.key in self._start:
            return (self._start[op.key].astype(dtype, copy=False),)
        return (np.full(result.get_shape(), op.init.value.data, dtype),)

    @impl(train.AssignOp)
    def assign(
        self, interpreter: Interpreter, op: train.AssignOp, args: PythonValues
    ) -> PythonValues:
        self._write(op.target, *args)
        return ()

    @impl(train.SgdOp)
    def sgd(self, interpreter: Interpreter, op: train.SgdOp, args: PythonValues) -> PythonValues:
        whole, gradient, lr = args[:3]
        momentum = op.momentum.value.data
        box = _box(gradient.shape)
        parameter = whole[box]
        step = gradient + op.weight_decay.value.data * parameter
        if op.velocity is not None:
            velocity = momentum * args[3][box] + step
            self._write(op.velocity, args[3], velocity)
            step = step + momentum * velocity if op.nesterov.value.data else velocity
        self._write(op.parameter, whole, parameter - lr * step)
        return ()

    @impl(train.AdamOp)
    def adam(self, interpreter: Interpreter, op: train.AdamOp, args: PythonValues) -> PythonValues:
        whole, gradient, lr, mean, variance, power1, power2 = args
        beta1, beta2 = op.beta1.value.data, op.beta2.value.data
        decay = op.weight_decay.value.data
        box = _box(gradient.shape)
        parameter = whole[box]
        if op.decoupled.value.data:
            parameter = parameter * (1 - lr * decay)
        else:
            gradient = gradient + decay * parameter
        new_mean = beta1 * mean[box] + (1 - beta1) * gradient
        new_variance = beta2 * variance[box] + (1 - beta2) * gradient * gradient
        root = np.sqrt(new_variance / (1 - power2)) + op.epsilon.value.data
        self._write(op.mean, mean, new_mean)
        self._write(op.variance, variance, new_variance)
        self._write(op.parameter, whole, parameter - lr * (new_mean / (1 - power1)) / root)
        return ()

    @impl(train.ClipByNormOp)
    def clip_by_norm(
        self, interpreter: Interpreter, op: train.ClipByNormOp, args: PythonValues
    ) -> PythonValues:
        norm = np.sqrt(sum(float(np.sum(g * g, dtype=np.float64)) for g in args))
        scale = min(1.0, op.max_norm.value.data / (float(norm) + 1e-6))
        return tuple(g * scale for g in args)
