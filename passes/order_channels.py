"""`order-channels`: puts the channels that a sparse update should move first.

A step updates leading channels, for they are contiguous; which ones matter is another question.
Lin et al. 2022 ("On-Device Training Under 256KB Memory") take those of largest magnitude. A network
computes the same with the channels of an activation in any order, as long as all that reads and
makes it agrees: so the order is changed in the weights, once, and costs nothing at run time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from networkx.utils import UnionFind
from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, DenseArrayBase, ModuleOp, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import get_ints, shape_of, tensor, to_attribute, type_of
from niwaki.ir.quantization import from_codes
from niwaki.ir.training import Scheme
from niwaki.ir.weights import WeightStore
from niwaki.passes.functions import find_function
from niwaki.passes.layers import Layer, layers_of
from niwaki.passes.select_updates import ratios_of

Array = np.ndarray[Any, np.dtype[Any]]
_Dimension: TypeAlias = SSAValue | tuple[str, int]
"""The channels of an activation (its last dimension), or a dimension of a parameter by name."""

_SAME = (nn.Pooling, nn.DropoutOp, nn.QuantizeOp, nn.DequantizeOp, nn.QuantizedAddOp)
"""Operations that keep channels apart and in order."""


@dataclass(frozen=True)
class OrderChannelsPass(ModulePass):
    """Sorts the input channels of layers that `update` updates in part, largest weights first.

    Layers that read one activation (through residual sums, say) share its channels: they are sorted
    by the sum of what each channel contributes to each layer's norm. Channels that the model's
    inputs and outputs fix, or that an operation mixes in another way, stay.
    """

    name = "order-channels"

    update: str = "full"
    """full, bias, head, last_layers(N) or the path of a .toml scheme."""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        order_channels(op, weights_of(ctx), Scheme.parse(self.update))


def order_channels(module: ModuleOp, store: WeightStore, scheme: Scheme) -> None:
    """See OrderChannelsPass. The arrays of `store` are replaced, the orders noted on parameters."""
    function = find_function(module, "forward", "import a model first")
    spaces = _Spaces(function)
    importance: dict[_Dimension, Array] = {}
    for layer, ratio in ratios_of(layers_of(function.body.block), scheme):
        if layer.axis is None or not 0.0 < ratio < 1.0:
            continue
        space = spaces.of((layer.weight.key, layer.axis))
        if space in spaces.fixed:
            continue
        norms = _norms(store[layer.weight.key], layer)
        importance[space] = importance.get(space, 0.0) + norms / max(norms.sum(), 1e-30)
    for space, total in importance.items():
        order = np.argsort(-total, kind="stable")
        for name, axis in spaces.parameters(space):
            _reorder(module, store, name, axis, order)


def _norms(array: Array, layer: Layer) -> Array:
    """The norm of each channel's weights."""
    element = type_of(layer.weight.value).element_type
    real = from_codes(array, element) if isinstance(element, QuantizedType) else array
    assert layer.axis is not None
    others = tuple(axis for axis in range(real.ndim) if axis != layer.axis)
    return np.sqrt(np.square(real.astype(np.float64)).sum(axis=others))


def _reorder(module: ModuleOp, store: WeightStore, name: str, axis: int, order: Array) -> None:
    digest = store.replace(name, np.take(store[name], order, axis))
    for op in module.walk():
        if not isinstance(op, train.ParameterOp) or op.key != name:
            continue
        op.properties["sha256"] = to_attribute(digest)
        orders = [list(o) for o in op.channel_orders] or [[] for _ in shape_of(op.value)]
        orders[axis] = order.tolist()
        op.properties["orders"] = ArrayAttr([DenseArrayBase.from_list(i64, o) for o in orders])
        element = type_of(op.value).element_type
        if isinstance(element, QuantizedType) and element.axis == axis:
            scales = element.scales[order]
            kind = QuantizedType.of(element.storage, scales, axis=axis)
            Rewriter.replace_value_with_new_type(op.value, tensor(shape_of(op.value), kind))


class _Spaces:
    """Which dimensions count the same channels."""

    def __init__(self, function: FuncOp) -> None:
        block = function.body.block
        self.sets: UnionFind = UnionFind()
        self._fixed: list[_Dimension] = list(block.args)
        self._names: dict[tuple[str, int], None] = {}
        for op in block.ops:
            if isinstance(op, train.ParameterOp):
                self._names |= {(op.key, axis): None for axis in range(len(shape_of(op.value)))}
            elif not self._relate(op):
                for value in (*op.operands, *op.results):
                    self._fixed += _dimensions(value)
        for value in (*block.args, *(r for op in block.ops for r in op.results)):
            element = type_of(value).element_type
            activation = not isinstance(value, OpResult) or not isinstance(value.op, train.Storage)
            if activation and isinstance(element, QuantizedType) and element.axis is not None:
                self._fixed.append(value)
        self.fixed = {self.of(dimension) for dimension in self._fixed}

    def of(self, dimension: _Dimension) -> _Dimension:
        """What stands for all dimensions with the same channels."""
        return self.sets[dimension]

    def parameters(self, space: _Dimension) -> Iterator[tuple[str, int]]:
        """Dimensions of parameters in a space."""
        return (name for name in self._names if self.of(name) == space)

    def _relate(self, op: Operation) -> bool:
        """Notes what `op` says of channels; False if it is none that the pass knows."""
        match op:
            case nn.Conv2dOp() | nn.QuantizedConv2dOp():
                return self._relate_convolution(op)
            case nn.MatmulOp():
                return self._relate_product(op)
            case nn.BatchNormOp():
                self._join(op.y, *op.operands)
            case nn.Reduction() | nn.QuantizedMeanOp():
                if len(shape_of(op.x)) - 1 in get_ints(op.properties, "axes"):
                    return False
                self._join(op.x, op.y)
            case nn.ReshapeOp():
                if shape_of(op.x)[-1:] != shape_of(op.y)[-1:]:
                    return False
                self._join(op.x, op.y)
            case nn.Elementwise():
                channels = shape_of(op.results[0])[-1:]
                same = [o for o in op.operands if shape_of(o)[-1:] == channels]
                self._join(op.results[0], *same)
            case nn.ConstantOp():
                pass
            case _ if isinstance(op, _SAME):
                self._join(op.results[0], *op.operands)
            case _:
                return False
        return True

    def _join(self, *values: SSAValue) -> None:
        dimensions = [d for v in values for d in _dimensions(v)[-1:]]
        self.sets.union(*dimensions)

    def _relate_convolution(self, op: nn.Conv2dOp | nn.QuantizedConv2dOp) -> bool:
        filters, shape = _dimensions(op.w), shape_of(op.w)
        if len(filters) != 4:
            return False
        if isinstance(op, nn.QuantizedConv2dOp):
            self._join(op.y, op.bias)
        groups = op.window.groups
        if groups == shape[0] and shape[3] == 1:
            self._join(op.x, op.y)
            self.sets.union(op.y, filters[0])
        elif groups == 1:
            self.sets.union(op.x, filters[3])
            self.sets.union(op.y, filters[0])
        else:
            return False
        return True

    def _relate_product(self, op: nn.MatmulOp) -> bool:
        matrix = _dimensions(op.b)
        if len(matrix) != 2 or op.transpose_a.value.data:
            return False
        inputs, outputs = (1, 0) if op.transpose_b.value.data else (0, 1)
        self.sets.union(op.a, matrix[inputs])
        self.sets.union(op.y, matrix[outputs])
        return True


def _dimensions(value: SSAValue) -> list[_Dimension]:
    """The channels of an activation; every dimension of a parameter; nothing of a constant."""
    if isinstance(value, BlockArgument):
        return [value]
    assert isinstance(value, OpResult)
    if isinstance(value.op, train.ParameterOp):
        return [(value.op.key, axis) for axis in range(len(shape_of(value)))]
    return [] if isinstance(value.op, nn.ConstantOp) else [value]
