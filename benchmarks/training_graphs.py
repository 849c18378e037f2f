"""Order problems of training steps, from networks described by the sizes of their tensors.

One node per operation, nothing fused. In the source order the backward pass mirrors the forward
one and the SGD updates come last.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from niwaki.passes.arenas.problem import align
from niwaki.passes.orders.problem import Node, ScheduleProblem

FLOAT = 4
ALIGNMENT = 16


@dataclass(frozen=True)
class Parameter:
    """A trained tensor."""

    elements: int
    is_weight: bool
    """Its gradient reads the operation's input, and the gradient of the input reads it."""


@dataclass(frozen=True)
class Operation:
    """A forward operation, and what its backward pass needs."""

    inputs: tuple[int, ...]
    output: int
    in_place: bool
    """Whether the output may take the memory of an input, and a gradient that of another."""
    saved: tuple[int, ...]
    """Values that the gradients of the inputs read."""
    parameters: tuple[Parameter, ...]
    joint: bool
    """Whether one node makes the gradients of the input and of all parameters."""
    passes_gradient: bool
    """Whether the gradient of the output is that of every input."""


class Network:
    """Builds a forward pass. A value is the number of its tensor; None is the resident input."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.operations: list[Operation] = []
        """The i-th one makes value i."""
        self.frozen = 0
        """Number of first operations without a backward pass."""

    def add_operation(
        self,
        inputs: Sequence[int | None],
        elements: int,
        *,
        in_place: bool = False,
        save_inputs: bool = False,
        save_output: bool = False,
        parameters: Sequence[Parameter] = (),
        joint: bool = False,
        passes_gradient: bool = False,
    ) -> int:
        """Appends an operation and gives its output."""
        output = len(self.sizes)
        self.sizes.append(elements * FLOAT)
        read = tuple(dict.fromkeys(v for v in inputs if v is not None))
        saved = (*(read if save_inputs else ()), *((output,) if save_output else ()))
        self.operations.append(
            Operation(read, output, in_place, saved, tuple(parameters), joint, passes_gradient)
        )
        return output

    def elements(self, value: int) -> int:
        """Elements of `value`."""
        return self.sizes[value] // FLOAT

    def linear(self, x: int | None, elements: int, weights: int, biases: int = 0) -> int:
        """A convolution or matrix product; 0 biases: without."""
        parameters = [Parameter(weights, True)]
        if biases:
            parameters.append(Parameter(biases, False))
        return self.add_operation([x], elements, parameters=parameters)

    def norm(self, x: int, channels: int) -> int:
        """Batch or layer norm, by its input in the backward pass."""
        scale_and_shift = [Parameter(channels, False)] * 2
        return self.add_operation(
            [x],
            self.elements(x),
            in_place=True,
            save_inputs=True,
            parameters=scale_and_shift,
            joint=True,
        )

    def activation(self, x: int) -> int:
        """ReLU or softmax, by its output in the backward pass."""
        return self.add_operation([x], self.elements(x), in_place=True, save_output=True)

    def gelu(self, x: int) -> int:
        """GELU, by its input in the backward pass."""
        return self.add_operation([x], self.elements(x), in_place=True, save_inputs=True)

    def add(self, *inputs: int) -> int:
        """A sum."""
        return self.add_operation(
            inputs, self.elements(inputs[0]), in_place=True, passes_gradient=True
        )

    def move(self, inputs: Sequence[int], elements: int) -> int:
        """Average pooling, concatenation, upsampling: what needs no value in its backward pass."""
        return self.add_operation(inputs, elements)

    def product(self, a: int, b: int, elements: int) -> int:
        """The matrix product of two values."""
        return self.add_operation([a, b], elements, save_inputs=True)

    def loss(self, logits: int) -> None:
        """Cross-entropy; the last operation."""
        self.add_operation([logits], 1, save_inputs=True)

    def freeze(self) -> None:
        """Trains only what comes from here on."""
        self.frozen = len(self.operations)

    def inference(self) -> ScheduleProblem:
        """The forward pass alone."""
        builder = _Builder(self)
        builder.forward()
        return builder.problem()

    def training(self) -> ScheduleProblem:
        """Forward, backward from the last operation, and updates."""
        builder = _Builder(self)
        builder.forward()
        builder.backward()
        builder.update()
        return builder.problem()


class _Builder:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.sizes = [align(size, ALIGNMENT) for size in network.sizes]
        self.writer: dict[int, int] = {}
        self.nodes: list[Node] = []
        self.gradient: dict[int, int] = {}
        """Value -> the buffer of its gradient, as far as it is summed up."""
        self.updates: list[tuple[int, tuple[int, ...]]] = []
        """The gradient of each parameter, and the nodes that read the parameter's old value."""

    def problem(self) -> ScheduleProblem:
        return ScheduleProblem(tuple(self.nodes), tuple(self.sizes))

    def forward(self) -> None:
        for op in self.network.operations:
            self.add_node(op.inputs, [op.output], op.in_place)

    def backward(self) -> None:
        for op in reversed(self.network.operations[self.network.frozen :]):
            dy = [self.gradient[op.output]] if op.output in self.gradient else []
            if op.passes_gradient:
                for value in self.trained(op.inputs):
                    self.accumulate(value, dy[0])
            elif op.joint:
                self.joint_gradients(op, dy)
            else:
                self.separate_gradients(op, dy)

    def update(self) -> None:
        for gradient, readers in self.updates:
            self.add_node([gradient], [], after=readers)

    def joint_gradients(self, op: Operation, dy: list[int]) -> None:
        parameters = [self.new_buffer(p.elements * FLOAT) for p in op.parameters]
        (value,) = op.inputs
        dx = self.new_buffer(self.sizes[value])
        self.add_node([*dy, *op.saved], [dx, *parameters], op.in_place)
        self.accumulate(value, dx)
        self.updates += [(gradient, ()) for gradient in parameters]

    def separate_gradients(self, op: Operation, dy: list[int]) -> None:
        readers: list[int] = []
        for value in self.trained(op.inputs):
            dx = self.new_buffer(self.sizes[value])
            # Of a product, the gradient of one factor reads the other one.
            saved = [v for v in op.saved if v != value] if len(op.inputs) > 1 else op.saved
            readers.append(self.add_node([*dy, *saved], [dx], op.in_place))
            self.accumulate(value, dx)
        for parameter in op.parameters:
            gradient = self.new_buffer(parameter.elements * FLOAT)
            self.add_node([*dy, *(op.inputs if parameter.is_weight else ())], [gradient])
            self.updates.append((gradient, tuple(readers) if parameter.is_weight else ()))

    def trained(self, values: Sequence[int]) -> list[int]:
        return [v for v in values if v >= self.network.frozen]

    def accumulate(self, value: int, part: int) -> None:
        if value not in self.gradient:
            self.gradient[value] = part
            return
        total = self.new_buffer(self.sizes[value])
        self.add_node([self.gradient[value], part], [total], in_place=True)
        self.gradient[value] = total

    def new_buffer(self, size: int) -> int:
        self.sizes.append(align(size, ALIGNMENT))
        return len(self.sizes) - 1

    def add_node(
        self,
        reads: Sequence[int],
        writes: Sequence[int],
        in_place: bool = False,
        after: Sequence[int] = (),
    ) -> int:
        number = len(self.nodes)
        read = tuple(dict.fromkeys(reads))
        pairs = [(r, w) for r in read for w in writes if self.sizes[r] == self.sizes[w]]
        predecessors = {self.writer[r] for r in read} | set(after)
        self.nodes.append(
            Node(tuple(sorted(predecessors)), read, tuple(writes), tuple(pairs) if in_place else ())
        )
        self.writer |= dict.fromkeys(writes, number)
        return number
