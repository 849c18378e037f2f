"""What an update keeps in memory, by the analytic model of Lin et al. 2022.

"On-Device Training Under 256KB Memory", section 3.2: additive over layers, so that a search for
schemes need not compile each one. The plan of a compiled step is the truth; this orders schemes.
"""

from math import prod

from xdsl.dialects.func import FuncOp

from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.ir.training import Scheme
from niwaki.passes.layers import Layer, layers_of
from niwaki.passes.select_updates import select_updates


def update_bytes(function: FuncOp, scheme: Scheme) -> float:
    """Bytes that `scheme` adds to inference, for one sample.

    An updated bias: itself, and a bit for each output element (the mask of its activation). Updated
    weights: themselves and the channels of the input that their gradient needs. The head counts
    with its input alone. Raises UsageError as `select-updates` does.
    """
    return sum(layer_bytes(function, scheme))


def layer_bytes(function: FuncOp, scheme: Scheme) -> list[float]:
    """The part of each layer in `update_bytes`, the head's last."""
    marked = function.clone()
    select_updates(marked, scheme)
    *body, head = layers_of(marked.body.block)
    return [*map(_body_bytes, body), _input_bytes(head, head.channels)]


def _body_bytes(layer: Layer) -> float:
    shape = shape_of(layer.op.results[0])
    total = 0.0
    if any(bias.update is not None for bias in layer.biases):
        total += sum(tensor_bytes(type_of(bias.value)) for bias in layer.biases)
        total += prod(shape[1:]) / 8
    box = layer.weight.update_box
    if box is not None:
        whole = shape_of(layer.weight.value)
        share = prod(box) / prod(whole)
        total += tensor_bytes(type_of(layer.weight.value)) * share
        total += _input_bytes(layer, layer.channels * share)
    return total


def _input_bytes(layer: Layer, channels: float) -> float:
    """Of `channels` channels of the layer's input."""
    kind = type_of(layer.op.operands[0])
    return tensor_bytes(kind) / kind.get_shape()[0] * channels / layer.channels
