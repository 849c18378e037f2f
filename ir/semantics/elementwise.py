"""What the elementwise operations compute."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from xdsl.interpreter import Interpreter, InterpreterFunctions, PythonValues, impl, register_impls

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.semantics.narrow import narrow, widen

Array = np.ndarray[Any, np.dtype[Any]]

_COMPARE: dict[str, Callable[[Array, Array], Array]] = {
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
}


def _erf(x: Array) -> Array:
    flat = [math.erf(v) for v in x.ravel().tolist()]
    return np.array(flat, x.dtype).reshape(x.shape)


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def _hard_sigmoid(x: Array) -> Array:
    return np.clip(x / 6 + 0.5, 0, 1)


def _gelu_tanh(x: Array) -> Array:
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))


@register_impls
class ElementwiseFunctions(InterpreterFunctions):
    """Python scalars take the dtype of the array beside them, so float64 stays float64."""

    @impl(nn.AddOp)
    def add(self, interpreter: Interpreter, op: nn.AddOp, args: PythonValues) -> PythonValues:
        return (args[0] + args[1],)

    @impl(nn.SubOp)
    def sub(self, interpreter: Interpreter, op: nn.SubOp, args: PythonValues) -> PythonValues:
        return (args[0] - args[1],)

    @impl(nn.MulOp)
    def mul(self, interpreter: Interpreter, op: nn.MulOp, args: PythonValues) -> PythonValues:
        return (args[0] * args[1],)

    @impl(nn.DivOp)
    def div(self, interpreter: Interpreter, op: nn.DivOp, args: PythonValues) -> PythonValues:
        # Integers divide towards zero, as in C.
        return (np.divide(args[0], args[1]).astype(args[0].dtype, copy=False),)

    @impl(nn.MaxOp)
    def max(self, interpreter: Interpreter, op: nn.MaxOp, args: PythonValues) -> PythonValues:
        return (np.maximum(args[0], args[1]),)

    @impl(nn.MinOp)
    def min(self, interpreter: Interpreter, op: nn.MinOp, args: PythonValues) -> PythonValues:
        return (np.minimum(args[0], args[1]),)

    @impl(nn.NegOp)
    def neg(self, interpreter: Interpreter, op: nn.NegOp, args: PythonValues) -> PythonValues:
        return (-args[0],)

    @impl(nn.AbsOp)
    def abs(self, interpreter: Interpreter, op: nn.AbsOp, args: PythonValues) -> PythonValues:
        return (np.abs(args[0]),)

    @impl(nn.ExpOp)
    def exp(self, interpreter: Interpreter, op: nn.ExpOp, args: PythonValues) -> PythonValues:
        return (np.exp(args[0]),)

    @impl(nn.LogOp)
    def log(self, interpreter: Interpreter, op: nn.LogOp, args: PythonValues) -> PythonValues:
        return (np.log(args[0]),)

    @impl(nn.SqrtOp)
    def sqrt(self, interpreter: Interpreter, op: nn.SqrtOp, args: PythonValues) -> PythonValues:
        return (np.sqrt(args[0]),)

    @impl(nn.RsqrtOp)
    def rsqrt(self, interpreter: Interpreter, op: nn.RsqrtOp, args: PythonValues) -> PythonValues:
        return (1 / np.sqrt(args[0]),)

    @impl(nn.ErfOp)
    def erf(self, interpreter: Interpreter, op: nn.ErfOp, args: PythonValues) -> PythonValues:
        return (_erf(args[0]),)

    @impl(nn.ReluOp)
    def relu(self, interpreter: Interpreter, op: nn.ReluOp, args: PythonValues) -> PythonValues:
        return (np.maximum(args[0], 0),)

    @impl(nn.Relu6Op)
    def relu6(self, interpreter: Interpreter, op: nn.Relu6Op, args: PythonValues) -> PythonValues:
        return (np.clip(args[0], 0, 6),)

    @impl(nn.LeakyReluOp)
    def leaky_relu(
        self, interpreter: Interpreter, op: nn.LeakyReluOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        return (np.where(x > 0, x, op.slope.value.data * x),)

    @impl(nn.SigmoidOp)
    def sigmoid(
        self, interpreter: Interpreter, op: nn.SigmoidOp, args: PythonValues
    ) -> PythonValues:
        return (_sigmoid(args[0]),)

    @impl(nn.TanhOp)
    def tanh(self, interpreter: Interpreter, op: nn.TanhOp, args: PythonValues) -> PythonValues:
        return (np.tanh(args[0]),)

    @impl(nn.HardSigmoidOp)
    def hard_sigmoid(
        self, interpreter: Interpreter, op: nn.HardSigmoidOp, args: PythonValues
    ) -> PythonValues:
        return (_hard_sigmoid(args[0]),)

    @impl(nn.HardSwishOp)
    def hard_swish(
        self, interpreter: Interpreter, op: nn.HardSwishOp, args: PythonValues
    ) -> PythonValues:
        return (args[0] * _hard_sigmoid(args[0]),)

    @impl(nn.SiluOp)
    def silu(self, interpreter: Interpreter, op: nn.SiluOp, args: PythonValues) -> PythonValues:
        return (args[0] * _sigmoid(args[0]),)

    @impl(nn.SoftplusOp)
    def softplus(
        self, interpreter: Interpreter, op: nn.SoftplusOp, args: PythonValues
    ) -> PythonValues:
        (x,) = args
        return (np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))),)

    @impl(nn.GeluOp)
    def gelu(self, interpreter: Interpreter, op: nn.GeluOp, args: PythonValues) -> PythonValues:
        (x,) = args
        if op.approximate.data == "tanh":
            return (_gelu_tanh(x),)
        return (0.5 * x * (1 + _erf(x * math.sqrt(0.5))),)

    @impl(nn.CompareOp)
    def compare(
        self, interpreter: Interpreter, op: nn.CompareOp, args: PythonValues
    ) -> PythonValues:
        return (_COMPARE[op.predicate.data](args[0], args[1]),)

    @impl(nn.AndOp)
    def logical_and(
        self, interpreter: Interpreter, op: nn.AndOp, args: PythonValues
    ) -> PythonValues:
        return (np.logical_and(args[0], args[1]),)

    @impl(nn.SelectOp)
    def select(self, interpreter: Interpreter, op: nn.SelectOp, args: PythonValues) -> PythonValues:
        return (np.where(args[0], args[1], args[2]),)

    @impl(nn.CastOp)
    def cast(self, interpreter: Interpreter, op: nn.CastOp, args: PythonValues) -> PythonValues:
        source = type_of(op.x).element_type
        return (widen(args[0], source).astype(dtype_of(op.to), copy=False),)

    @impl(nn.NarrowOp)
    def narrow(self, interpreter: Interpreter, op: nn.NarrowOp, args: PythonValues) -> PythonValues:
        return (narrow(args[0], op.to),)
