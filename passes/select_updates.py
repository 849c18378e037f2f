"""`select-updates`: marks what a training step updates, by a scheme."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import AnyFloat, ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Use
from xdsl.passes import ModulePass

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import ints, shape_of, type_of
from niwaki.ir.errors import UsageError
from niwaki.ir.training import Scheme
from niwaki.passes.functions import find_function
from niwaki.passes.layers import Layer, layers_of, parameter_of

Box: TypeAlias = tuple[int, ...]


@dataclass(frozen=True)
class SelectUpdatesPass(ModulePass):
    """Sets the `update` box of each parameter of @train_step that the scheme updates."""

    name = "select-updates"

    update: str = "full"
    """full, bias, head, last_layers(N) or the path of a .toml scheme."""

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        function = find_function(op, "train_step", "run build-training first")
        select_updates(function, Scheme.parse(self.update))


def select_updates(function: FuncOp, scheme: Scheme) -> None:
    """Marks in `function` the parameters that `scheme` updates, and unmarks the others.

    Raises UsageError if the scheme names a layer that there is not, asks for part of a weight
    that can only be updated whole, or updates nothing.
    """
    block = function.body.block
    layers = layers_of(block)
    boxes = {
        **_weight_boxes(layers, scheme),
        **_bias_boxes(block, layers, scheme),
        **_free_boxes(block, layers, scheme),
    }
    updatable = _updatable(block)
    for parameter in updatable:
        parameter.properties.pop("update", None)
        if parameter in boxes:
            parameter.properties["update"] = ints(boxes[parameter])
    if not any(p in boxes for p in updatable):
        raise UsageError(f"the scheme updates nothing; {_known(layers)}")


def _updatable(block: Block) -> list[train.ParameterOp]:
    """Floating-point and quantised parameters that are neither fixed nor running statistics."""
    return [
        op
        for op in block.ops
        if isinstance(op, train.ParameterOp)
        and op.fixed is None
        and isinstance(type_of(op.value).element_type, AnyFloat | QuantizedType)
        and not any(_is_statistic(use) for use in op.value.uses)
    ]


def _is_statistic(use: Use) -> bool:
    """Whether a value is used as running mean or variance."""
    if isinstance(use.operation, train.AssignOp):
        return use.index == 0
    return isinstance(use.operation, nn.BatchNormOp) and use.index >= 3


def _touched(layers: Sequence[Layer], scheme: Scheme) -> Sequence[Layer]:
    return layers if scheme.layers is None else _last(layers, scheme.layers)


def _last(layers: Sequence[Layer], count: int) -> Sequence[Layer]:
    return layers[max(0, len(layers) - count) :]


def _weight_boxes(layers: Sequence[Layer], scheme: Scheme) -> dict[train.ParameterOp, Box]:
    return {
        layer.weight: _box(layer, ratio)
        for layer, ratio in ratios_of(layers, scheme)
        if ratio > 0.0
    }


def _ratios(layers: Sequence[Layer], scheme: Scheme) -> dict[int, float]:
    """Layer number -> ratio of channels to update."""
    if scheme.weights is None:
        return dict.fromkeys(range(len(layers)), 1.0)
    ratios: dict[int, float] = {}
    for name, ratio in scheme.weights.items():
        number = _find(layers, name).number
        if number in ratios:
            raise UsageError(f"the scheme names layer {number} twice, the second time as '{name}'")
        ratios[number] = ratio
    return ratios


def ratios_of(layers: Sequence[Layer], scheme: Scheme) -> list[tuple[Layer, float]]:
    """The `layers` that `scheme` touches, each with the ratio of its channels that it updates.

    Raises UsageError if the scheme names a layer that there is not.
    """
    ratios = _ratios(layers, scheme)
    if layers and scheme.head:
        ratios[layers[-1].number] = 1.0
    touched = _touched(layers, scheme)
    return [(layer, ratios.get(layer.number, 0.0)) for layer in touched]


def _box(layer: Layer, ratio: float) -> Box:
    if ratio < 1.0 and layer.axis is None:
        raise UsageError(
            f"the weight of layer {layer.number} ('{layer.weight.key}') belongs to a grouped "
            "convolution and can only be updated whole: give it the ratio 1"
        )
    return layer.box(ratio)


def _find(layers: Sequence[Layer], name: str) -> Layer:
    """The layer that a scheme calls `name`: its number or the name of its weight."""
    for layer in layers:
        if name in (str(layer.number), layer.weight.key):
            return layer
    raise UsageError(f"the scheme names a layer '{name}' that there is not; {_known(layers)}")


def _known(layers: Sequence[Layer]) -> str:
    names = ", ".join(f"{layer.number} ({layer.weight.key})" for layer in layers)
    return f"the layers are {names}" if names else "the model has no layers"


def _bias_boxes(
    block: Block, layers: Sequence[Layer], scheme: Scheme
) -> dict[train.ParameterOp, Box]:
    """Biases of the chosen layers; of all of them, also the shifts of layer norms."""
    chosen = _touched(layers, scheme)
    if scheme.biases is not None:
        chosen = [layer for layer in chosen if layer.number >= len(layers) - scheme.biases]
    biases = [bias for layer in chosen for bias in layer.biases]
    if (scheme.biases, scheme.layers) == (None, None):
        shifts = (parameter_of(op.beta) for op in block.ops if isinstance(op, nn.LayerNormOp))
        biases += [shift for shift in shifts if shift is not None]
    return {bias: shape_of(bias.value) for bias in biases}


def _free_boxes(
    block: Block, layers: Sequence[Layer], scheme: Scheme
) -> dict[train.ParameterOp, Box]:
    """Parameters outside of all layers: only a full update includes them."""
    if (scheme.weights, scheme.biases, scheme.layers) != (None, None, None):
        return {}
    taken = {p for layer in layers for p in (layer.weight, *layer.biases)}
    return {p: shape_of(p.value) for p in _updatable(block) if p not in taken}
