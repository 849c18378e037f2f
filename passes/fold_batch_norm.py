"""`fold-batch-norm`: a frozen batch norm becomes part of the convolution or dense layer before it.

y = ((x * w + b) - mean) * s + beta with s = gamma / sqrt(var + epsilon) is x * (w s) +
((b - mean) s + beta) (Jacob et al. 2018, section 3.2).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import BoolAttr, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import OpResult, SSAValue
from xdsl.passes import ModulePass

from niwaki.ir.builder import Builder
from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, to_attribute
from niwaki.ir.weights import WeightStore

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class FoldBatchNormPass(ModulePass):
    """Scales the weights of @forward and leaves one bias in place of each frozen batch norm.

    The weight keeps its name with new content, and the bias takes the name of the batch norm's
    beta. Batch norms whose arrays are not in the store, and weights that are used twice, stay.
    """

    name = "fold-batch-norm"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store = weights_of(ctx)
        reads = Counter(p.key for p in op.walk() if isinstance(p, train.ParameterOp))
        for function in op.body.block.ops:
            if not isinstance(function, FuncOp) or function.sym_name.data != "forward":
                continue
            for norm in list(function.walk()):
                if isinstance(norm, nn.BatchNormOp):
                    _fold(norm, store, reads)


@dataclass(frozen=True)
class _Layer:
    """A convolution or dense product, and the bias behind it."""

    product: nn.Conv2dOp | nn.MatmulOp
    bias: train.ParameterOp | None

    @property
    def weight(self) -> SSAValue:
        return self.product.operands[1]

    @property
    def output_axis(self) -> int:
        """The dimension of the weight that counts output channels."""
        if isinstance(self.product, nn.Conv2dOp):
            return 0
        return 0 if self.product.transpose_b == BoolAttr.from_bool(True) else 1


def _layer_before(value: SSAValue) -> _Layer | None:
    """The layer whose result `value` is, if that has no other use."""
    bias: train.ParameterOp | None = None
    producer = _sole_producer(value)
    if isinstance(producer, nn.AddOp):
        bias = _vector_parameter(producer.b)
        if bias is None:
            return None
        producer = _sole_producer(producer.a)
    if isinstance(producer, nn.Conv2dOp | nn.MatmulOp):
        return _Layer(producer, bias)
    return None


def _sole_producer(value: SSAValue) -> object:
    return value.op if isinstance(value, OpResult) and value.has_one_use() else None


def _parameter(value: SSAValue) -> train.ParameterOp | None:
    """The parameter that `value` is, if this is its only use."""
    producer = _sole_producer(value)
    return producer if isinstance(producer, train.ParameterOp) else None


def _vector_parameter(value: SSAValue) -> train.ParameterOp | None:
    return _parameter(value) if len(shape_of(value)) == 1 else None


def _fold(norm: nn.BatchNormOp, store: WeightStore, reads: Mapping[str, int]) -> None:
    if norm.training == BoolAttr.from_bool(True):
        return
    layer = _layer_before(norm.x)
    if layer is None:
        return
    weight = _parameter(layer.weight)
    statistics = [_parameter(v) for v in norm.operands[1:]]
    if weight is None or any(s is None for s in statistics):
        return
    parameters = [weight, *(s for s in statistics if s is not None)]
    if layer.bias is not None:
        parameters.append(layer.bias)
    if any(reads[p.key] > 1 or p.key not in store or p.update is not None for p in parameters):
        return

    w, gamma, beta, mean, var, *rest = (store[p.key].astype(np.float64) for p in parameters)
    scale = gamma / np.sqrt(var + norm.epsilon.value.data)
    channels = [1] * w.ndim
    channels[layer.output_axis] = -1
    new_weight = (w * scale.reshape(channels)).astype(np.float32)
    new_bias = ((sum(rest) - mean) * scale + beta).astype(np.float32)

    weight.properties["sha256"] = to_attribute(store.replace(weight.key, new_weight))
    shift = parameters[2]
    shift.properties["sha256"] = to_attribute(store.replace(shift.key, new_bias))
    builder = Builder.before(norm)
    biased = norm.x.op if isinstance(norm.x, OpResult) else None
    norm.y.replace_all_uses_with(builder.add(layer.product.y, shift.value))
    norm.detach()
    norm.erase()
    if layer.bias is not None and biased is not None:
        biased.detach()
        biased.erase()
    for unused in (parameters[1], *parameters[3:]):
        unused.detach()
        unused.erase()
