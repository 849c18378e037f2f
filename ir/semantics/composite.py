"""What the composites compute; `decompose` must agree with it."""

from typing import Any

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.semantics.shape import mean, total

Array = np.ndarray[Any, np.dtype[Any]]


def _log_softmax(x: Array, axis: int) -> Array:
    shifted = x - x.max(axis, keepdims=True)
    return shifted - np.log(total(np.exp(shifted), [axis]))


def _mean_of_all(x: Array) -> Array:
    return mean(x, range(x.ndim)).reshape(())


def _lowbias32(x: Array) -> Array:
    """The 32-bit mixer of least known bias with two multiplications (Wellons 2018)."""
    x = x ^ (x >> np.uint32(16))
    x = x * np.uint32(0x7FEB352D)
    x = x ^ (x >> np.uint32(15))
    x = x * np.uint32(0x846CA68B)
    return x ^ (x >> np.uint32(16))


def random_bits(count: int, counter: int, seed: int) -> Array:
    """`count` hashes of 32 bits; see `nn.random_mask`."""
    wrap = 0xFFFFFFFF
    step = _lowbias32(np.array([counter & wrap], np.uint32))
    start = _lowbias32(np.array([seed & wrap], np.uint32) ^ step)
    return _lowbias32(start + np.arange(count, dtype=np.uint32))


def random_mask(count: int, counter: int, seed: int, rate: float) -> Array:
    """`count` bits, each False with probability `rate`; see `nn.random_mask`."""
    return random_bits(count, counter, seed) >= rate * 2**32


@register_impls
class CompositeFunctions(InterpreterFunctions):
    """The definitions, straight from the docstrings of the operations."""

    @impl(nn.SoftmaxOp)
    def softmax(
        self, interpreter: Interpreter, op: nn.SoftmaxOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        axis = get_int(op.properties, "axis")
        powers = np.exp(x - x.max(axis, keepdims=True))
        return (powers / total(powers, [axis]),)

    @impl(nn.LogSoftmaxOp)
    def log_softmax(
        self, interpreter: Interpreter, op: nn.LogSoftmaxOp, args: PythonValues
    ) -> PythonValues:
        return (_log_softmax(args[0], get_int(op.properties, "axis")),)

    @impl(nn.BatchNormOp)
    def batch_norm(
        self, interpreter: Interpreter, op: nn.BatchNormOp, args: PythonValues
    ) -> PythonValues:
        x, gamma, beta, running_mean, running_var = args
        deviation = np.sqrt(running_var + op.epsilon.value.data)
        return ((x - running_mean) / deviation * gamma + beta,)

    @impl(nn.BatchNormTrainOp)
    def batch_norm_train(
        self, interpreter: Interpreter, op: nn.BatchNormTrainOp, args: PythonValues
    ) -> PythonValues:
        x, gamma, beta = args
        axes = range(x.ndim - 1)
        batch_mean = mean(x, axes)
        centred = x - batch_mean
        batch_var = mean(centred * centred, axes)
        y = centred / np.sqrt(batch_var + op.epsilon.value.data) * gamma + beta
        return y, batch_mean.reshape(-1), batch_var.reshape(-1)

    @impl(nn.LayerNormOp)
    def layer_norm(
        self, interpreter: Interpreter, op: nn.LayerNormOp, args: PythonValues
    ) -> PythonValues:
        x, gamma, beta = args
        centred = x - mean(x, [x.ndim - 1])
        variance = mean(centred * centred, [x.ndim - 1])
        return (centred / np.sqrt(variance + op.epsilon.value.data) * gamma + beta,)

    @impl(nn.RmsNormOp)
    def rms_norm(
        self, interpreter: Interpreter, op: nn.RmsNormOp, args: PythonValues
    ) -> PythonValues:
        x, gamma = args
        return (x / np.sqrt(mean(x * x, [x.ndim - 1]) + op.epsilon.value.data) * gamma,)

    @impl(nn.DropoutOp)
    def dropout(
        self, interpreter: Interpreter, op: nn.DropoutOp, args: PythonValues
    ) -> PythonValues:
        return args

    @impl(nn.RandomMaskOp)
    def random_mask(
        self, interpreter: Interpreter, op: nn.RandomMaskOp, args: PythonValues
    ) -> PythonValues:
        like, counter = args
        seed = get_int(op.properties, "seed")
        mask = random_mask(like.size, int(counter), seed, op.rate.value.data)
        return (mask.reshape(like.shape),)

    @impl(nn.CrossEntropyOp)
    def cross_entropy(
        self, interpreter: Interpreter, op: nn.CrossEntropyOp, args: PythonValues
    ) -> PythonValues:
        x, target = args
        logs = _log_softmax(x, 1)
        if target.ndim == 1:
            products = np.where(target[:, None] == np.arange(x.shape[1]), logs, 0)
        else:
            products = target * logs
        return (0 - _mean_of_all(total(products, [1])),)  # never -0

    @impl(nn.MseOp)
    def mse(self, interpreter: Interpreter, op: nn.MseOp, args: PythonValues) -> PythonValues:
        difference = args[0] - args[1]
        return (_mean_of_all(difference * difference),)

    @impl(nn.BceWithLogitsOp)
    def bce_with_logits(
        self, interpreter: Interpreter, op: nn.BceWithLogitsOp, args: PythonValues
    ) -> PythonValues:
        x, target = args
        return (_mean_of_all(np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))),)
