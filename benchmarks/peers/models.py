"""Networks stated once for all frameworks: parameters, data, and a forward pass over `Ops`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]


class Ops(Protocol):
    """What a framework computes. Images are in its own layout, tokens in [batch, sequence].

    Filters come as `to_layout` made them, matrices as [outputs, inputs] or likewise.
    """

    def conv(self, x: Any, w: Any, b: Any, stride: int, padding: int, groups: int, /) -> Any: ...
    def max_pool(self, x: Any, kernel: int, stride: int, padding: int, /) -> Any: ...

    def global_avg_pool(self, x: Any, /) -> Any:
        """[batch, channels]."""
        ...

    def flatten(self, x: Any, /) -> Any:
        """[batch, ...] to [batch, elements], in the order of the layout."""
        ...

    def linear(self, x: Any, w: Any, b: Any, /) -> Any:
        """[..., inputs] to [..., outputs]; `b` may be None."""
        ...

    def relu(self, x: Any, /) -> Any: ...
    def relu6(self, x: Any, /) -> Any: ...

    def gelu(self, x: Any, /) -> Any:
        """x * Phi(x), exactly."""
        ...

    def silu(self, x: Any, /) -> Any: ...
    def tanh(self, x: Any, /) -> Any: ...
    def add(self, a: Any, b: Any, /) -> Any: ...
    def mul(self, a: Any, b: Any, /) -> Any: ...
    def embedding(self, tokens: Any, table: Any, /) -> Any: ...
    def layer_norm(self, x: Any, gamma: Any, beta: Any, /) -> Any: ...
    def rms_norm(self, x: Any, gamma: Any, /) -> Any: ...

    def split_heads(self, x: Any, heads: int, /) -> Any:
        """[batch, sequence, size] to [batch, heads, sequence, size of a head]."""
        ...

    def merge_heads(self, x: Any, /) -> Any:
        """What `split_heads` split."""
        ...

    def attention(self, q: Any, k: Any, v: Any, scale: float, causal: bool, /) -> Any:
        """Dot-product attention of heads, the products times `scale`."""
        ...

    def rotate(self, x: Any, cosine: Any, sine: Any, /) -> Any:
        """Rotary position embedding (Su et al. 2021); tables [sequence, size of half a head]."""
        ...

    def first_token(self, x: Any, /) -> Any:
        """[batch, size]."""
        ...


EPSILON = 1e-5
"""Of the norms."""


@dataclass(frozen=True)
class Parameter:
    """A tensor of a model; filters are [outputs, inputs / groups, height, width]."""

    name: str
    shape: tuple[int, ...]
    deviation: float
    """Of the normal distribution that the values are drawn from."""
    mean: float = 0.0
    is_bias: bool = False
    layer: int | None = None
    """Number of the convolution or dense layer, in execution order."""
    image: tuple[int, int, int] | None = None
    """Channels, height and width of the image whose elements, flattened, this matrix multiplies."""
    is_table: bool = False
    """Rows for tokens: no framework's layout of matrices applies."""
    groups: int = 1
    constant: Array | None = None
    """The value of a tensor that no update moves."""


@dataclass(frozen=True)
class Layout:
    """How a framework wants its arrays."""

    channels_last: bool = False
    filter_axes: Sequence[int] = (0, 1, 2, 3)
    """Of [outputs, inputs, height, width]."""
    depthwise_axes: Sequence[int] | None = None
    """The same for depthwise filters; None: alike."""
    transposed_matrices: bool = False
    """[inputs, outputs]."""

    def images(self, x: Array) -> Array:
        """Images [batch, channels, height, width] (anything else stays) in this layout."""
        if x.ndim != 4 or not self.channels_last:
            return x
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1))

    def parameter(self, parameter: Parameter, array: Array) -> Array:
        """The value of `parameter` in this layout."""
        if array.ndim == 4:
            axes = self.filter_axes
            if parameter.groups > 1 and self.depthwise_axes is not None:
                axes = self.depthwise_axes
            return np.ascontiguousarray(array.transpose(axes))
        if parameter.image is not None and self.channels_last:
            filters = array.reshape(-1, *parameter.image)
            array = filters.transpose(0, 2, 3, 1).reshape(array.shape)
        is_matrix = array.ndim == 2 and not parameter.is_table
        return np.ascontiguousarray(array.T if is_matrix and self.transposed_matrices else array)


class Net:
    """Runs a network: its layers' parameters by name, its arithmetic by `ops`."""

    def __init__(self, ops: Ops, parameters: Mapping[str, Any]) -> None:
        self.ops = ops
        self._parameters = parameters

    def parameter(self, declared: Parameter) -> Any:
        """The tensor of a parameter."""
        return self._parameters[declared.name]

    def next_layer(self) -> int | None:
        """The number of a new layer, where they are counted."""
        return None

    def conv(
        self,
        name: str,
        x: Any,
        channels: tuple[int, int],
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        gain: float = 2.0,
    ) -> Any:
        """A convolution with bias; `gain`: variance of the weights times their fan-in."""
        inputs, outputs = channels
        shape = (outputs, inputs // groups, kernel, kernel)
        deviation, layer = (gain / prod(shape[1:])) ** 0.5, self.next_layer()
        weight = Parameter(f"{name}.weight", shape, deviation, layer=layer, groups=groups)
        w, b = self.parameter(weight), self._bias(name, outputs, layer)
        return self.ops.conv(x, w, b, stride, padding, groups)

    def linear(
        self,
        name: str,
        x: Any,
        sizes: tuple[int, int],
        bias: bool = True,
        gain: float = 2.0,
        image: tuple[int, int, int] | None = None,
    ) -> Any:
        """A dense layer; `gain` as for `conv`, `image` as in `Parameter`."""
        inputs, outputs = sizes
        deviation, layer = (gain / inputs) ** 0.5, self.next_layer()
        shape = (outputs, inputs)
        w = self.parameter(Parameter(f"{name}.weight", shape, deviation, layer=layer, image=image))
        b = self._bias(name, outputs, layer) if bias else None
        return self.ops.linear(x, w, b)

    def embedding(self, name: str, tokens: Any, rows: int, size: int) -> Any:
        """A row of a table for every token."""
        table = Parameter(f"{name}.weight", (rows, size), 0.02, is_table=True)
        return self.ops.embedding(tokens, self.parameter(table))

    def positions(self, name: str, sequence: int, size: int) -> Any:
        """A table that has a row for every position."""
        return self.parameter(Parameter(f"{name}.weight", (sequence, size), 0.02, is_table=True))

    def constant(self, name: str, array: Array) -> Any:
        """A tensor that is not trained."""
        return self.parameter(Parameter(name, array.shape, 0.0, is_table=True, constant=array))

    def layer_norm(self, name: str, x: Any, size: int) -> Any:
        """Layer norm over the last dimension."""
        gamma = self._gamma(name, size)
        return self.ops.layer_norm(x, gamma, self._bias(name, size, None))

    def rms_norm(self, name: str, x: Any, size: int) -> Any:
        """RMS norm over the last dimension."""
        return self.ops.rms_norm(x, self._gamma(name, size))

    def _gamma(self, name: str, size: int) -> Any:
        return self.parameter(Parameter(f"{name}.weight", (size,), 0.01, mean=1.0))

    def _bias(self, name: str, size: int, layer: int | None) -> Any:
        return self.parameter(Parameter(f"{name}.bias", (size,), 0.01, is_bias=True, layer=layer))


Network: TypeAlias = Callable[[Net, Any], Any]


class _NoOps:
    """Computes nothing, in any operation."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class _Declarations(Net):
    """Collects the parameters of a network."""

    def __init__(self) -> None:
        ops: Any = _NoOps()
        super().__init__(ops, {})
        self.found: list[Parameter] = []
        self._layers = 0

    def parameter(self, declared: Parameter) -> None:
        self.found.append(declared)

    def next_layer(self) -> int:
        self._layers += 1
        return self._layers - 1


@dataclass(frozen=True)
class Model:
    """A network, its data and what is measured of it."""

    network: Network
    sample: tuple[int, ...]
    """Shape of an input: channels, height and width; features; or the sequence of tokens."""
    classes: int
    lr: float
    last: int
    """Layers that the update "last" touches."""
    batches: tuple[int, ...] = (1, 8)
    vocabulary: int | None = None
    """Inputs are tokens below this."""
    label_per_token: bool = False
    scheme: str | None = None
    """The published update scheme, a file in examples/schemes."""

    def parameters(self) -> list[Parameter]:
        """In execution order."""
        declarations = _Declarations()
        self.network(declarations, None)
        return declarations.found

    def arrays(self, layout: Layout) -> dict[str, Array]:
        """The initial parameters."""
        # The stream of RandomState is the same in every version of NumPy.
        random = np.random.RandomState(0)
        return {p.name: layout.parameter(p, _drawn(p, random)) for p in self.parameters()}

    def data(self, batch: int, layout: Layout) -> tuple[Array, Array]:
        """Inputs, and labels (one for each sample or token)."""
        random = np.random.RandomState(1)
        shape = (batch, *self.sample)
        if self.vocabulary is None:
            x = random.standard_normal(shape).astype(np.float32)
        else:
            x = random.randint(0, self.vocabulary, shape).astype(np.int32)
        labels = shape if self.label_per_token else (batch,)
        return layout.images(x), random.randint(0, self.classes, labels).astype(np.int32)

    def trainable(self, update: str) -> list[str]:
        """The parameters that `update` moves, in execution order.

        "full"; "bias": every bias and the head's weight; "last": weights and biases of the last
        layers. Raises ValueError for others.
        """
        parameters = [p for p in self.parameters() if p.constant is None]
        head = max(p.layer for p in parameters if p.layer is not None)
        if update == "full":
            return [p.name for p in parameters]
        if update == "bias":
            return [p.name for p in parameters if p.is_bias or p.layer == head]
        if update == "last":
            first = head + 1 - self.last
            return [p.name for p in parameters if p.layer is not None and p.layer >= first]
        raise ValueError(f"the update '{update}' moves parts of tensors")


def _drawn(parameter: Parameter, random: np.random.RandomState) -> Array:
    if parameter.constant is not None:
        return parameter.constant
    drawn = parameter.deviation * random.standard_normal(parameter.shape)
    return (parameter.mean + drawn).astype(np.float32)
