"""The layers of a model: what update schemes count and name."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from xdsl.ir import Block, Operation, OpResult, SSAValue

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of


@dataclass(frozen=True)
class Layer:
    """A convolution or dense operation with its weight, and what is added behind it."""

    op: Operation
    """The convolution or matrix product."""
    number: int
    """Counted from 0 in execution order."""
    weight: train.ParameterOp
    axis: int | None
    """The dimension of the weight that its input channels are (depthwise: its channels); None
    where the leading ones cannot be updated alone."""
    channels: int
    """How many channels a ratio counts."""
    biases: list[train.ParameterOp] = field(default_factory=list[train.ParameterOp])
    """The bias, and scale and shift of the batch norm behind it."""

    def box(self, ratio: float) -> tuple[int, ...]:
        """The sizes of the weight's leading box that holds `ratio` of the channels, at least 1."""
        sizes = list(shape_of(self.weight.value))
        if self.axis is not None:
            kept = max(1, round(ratio * self.channels))
            sizes[self.axis] = sizes[self.axis] * kept // self.channels
        return tuple(sizes)


def layers_of(block: Block) -> list[Layer]:
    """The layers of `block` in execution order. A weight that is used twice counts once."""
    layers: list[Layer] = []
    seen: set[str] = set()
    for op in block.ops:
        weight = _weight(op)
        if weight is None or weight.key in seen:
            continue
        seen.add(weight.key)
        axis, channels = _input_channels(op)
        layers.append(Layer(op, len(layers), weight, axis, channels, _biases(op)))
    return layers


def parameter_of(value: SSAValue) -> train.ParameterOp | None:
    """The parameter that `value` is."""
    if isinstance(value, OpResult) and isinstance(value.op, train.ParameterOp):
        return value.op
    return None


def _weight(op: Operation) -> train.ParameterOp | None:
    match op:
        case nn.Conv2dOp() | nn.QuantizedConv2dOp():
            return parameter_of(op.w)
        case nn.MatmulOp() if len(shape_of(op.b)) == 2:
            return parameter_of(op.b)
        case _:
            return None


def _input_channels(op: Operation) -> tuple[int | None, int]:
    """The weight's dimension of input channels, and how many there are."""
    if isinstance(op, nn.MatmulOp):
        axis = 1 if op.transpose_b.value.data else 0
        return axis, shape_of(op.b)[axis]
    assert isinstance(op, nn.Conv2dOp | nn.QuantizedConv2dOp)
    groups, channels = op.window.groups, shape_of(op.x)[3]
    if groups == 1:
        return 3, channels
    return (0, channels) if groups == channels else (None, channels)


def _biases(op: Operation) -> list[train.ParameterOp]:
    """The parameters added to (or normalising) the result, as far as nothing else is between."""
    if isinstance(op, nn.QuantizedConv2dOp):
        bias = parameter_of(op.bias)
        return [] if bias is None else [bias]
    value: SSAValue = op.results[0]
    found: list[train.ParameterOp] = []
    while True:
        behind = _parameters_behind(value)
        if behind is None:
            return found
        value, parameters = behind
        found += parameters


def _parameters_behind(value: SSAValue) -> tuple[SSAValue, Sequence[train.ParameterOp]] | None:
    """The bias or batch norm that reads `value`: its result and its parameters."""
    for use in value.uses:
        op = use.operation
        if isinstance(op, nn.AddOp):
            bias = parameter_of(op.operands[1 - use.index])
            if bias is not None and len(shape_of(bias.value)) == 1:
                return op.y, [bias]
        elif isinstance(op, nn.BatchNormOp | nn.BatchNormTrainOp) and use.index == 0:
            both = (parameter_of(op.gamma), parameter_of(op.beta))
            return op.y, [p for p in both if p is not None]
    return None
