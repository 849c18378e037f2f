"""What each ONNX operation becomes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeAlias

import numpy as np
from xdsl.dialects.builtin import i32
from xdsl.utils.exceptions import VerifyException

from niwaki.frontends import idioms
from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import (
    Array,
    Imported,
    NchwBuilder,
    checked_axes,
    checked_axis,
    narrowed,
    small,
)
from niwaki.ir.dialects.tensor_op import require

Known: TypeAlias = Imported | Array
"""A tensor of the program, or integers that only describe shapes."""
Result: TypeAlias = Known | Sequence[Imported]

FLOAT, INT32, INT64, BOOL = 1, 6, 7, 9
"""TensorProto.DataType of what Niwaki reads."""


class Attribute(Protocol):
    """onnx.AttributeProto."""

    type: int
    i: int
    f: float
    s: bytes
    ints: Sequence[int]
    floats: Sequence[float]
    t: Any


class Operands:
    """Inputs and attributes of one node.

    Accessors raise VerifyException where something required is missing or of another type,
    Unsupported where a value is not known when it must be.
    """

    def __init__(
        self,
        inputs: Sequence[Known | None],
        attributes: Mapping[str, Attribute],
        outputs: Sequence[str],
        opset: int,
        decode: Callable[[Any], Array],
    ) -> None:
        """`decode`: reads a TensorProto."""
        self._inputs = inputs
        self._attributes = attributes
        self._decode = decode
        self.outputs = outputs
        self.opset = opset

    # --- inputs

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self._inputs) and self._inputs[index] is not None

    def known(self, index: int) -> Known:
        """Input `index`."""
        value = self._inputs[index] if index < len(self._inputs) else None
        require(value is not None, f"input {index} is missing")
        assert value is not None
        return value

    def tensor(self, n: NchwBuilder, index: int) -> Imported:
        """Input `index` as a tensor."""
        value = self.known(index)
        if isinstance(value, Imported):
            return value
        return n.weight(f"{self.outputs[0]}.input{index}", narrowed(value), fixed=True)

    def optional(self, n: NchwBuilder, index: int) -> Imported | None:
        """Input `index`, None where it is absent."""
        return self.tensor(n, index) if self.has(index) else None

    def tensors(self, n: NchwBuilder) -> list[Imported]:
        """All inputs."""
        return [self.tensor(n, i) for i in range(len(self._inputs))]

    def constant(self, index: int) -> Array:
        """The content of input `index`; Unsupported if it is computed."""
        value = self.known(index)
        array = value.array if isinstance(value, Imported) else value
        if array is None:
            raise Unsupported(f"input {index} is computed; it must be a constant")
        return array

    def input_integers(self, index: int) -> list[int]:
        """The integers of input `index`."""
        array = self.constant(index)
        require(array.dtype.kind == "i" and array.ndim <= 1, f"input {index} must be integers")
        return [int(v) for v in array.reshape(-1)]

    def input_number(self, index: int, default: float) -> float:
        """The only number of input `index`."""
        if not self.has(index):
            return default
        array = self.constant(index)
        require(array.size == 1, f"input {index} must be one number")
        return float(array.item())

    # --- attributes

    def _attribute(self, name: str, kind: int) -> Attribute | None:
        attribute = self._attributes.get(name)
        if attribute is not None and attribute.type != kind:
            raise VerifyException(f"attribute '{name}' has type {attribute.type}, not {kind}")
        return attribute

    def integer(self, name: str, default: int) -> int:
        """An integer attribute."""
        attribute = self._attribute(name, 2)
        return default if attribute is None else small([attribute.i], name)[0]

    def number(self, name: str, default: float) -> float:
        """A float attribute."""
        attribute = self._attribute(name, 1)
        return default if attribute is None else attribute.f

    def text(self, name: str, default: str) -> str:
        """A string attribute."""
        attribute = self._attribute(name, 3)
        return default if attribute is None else attribute.s.decode("utf-8", "replace")

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int] | None:
        """An attribute of several integers."""
        attribute = self._attribute(name, 7)
        if attribute is not None:
            return [int(v) for v in attribute.ints]
        return None if default is None else list(default)

    def integers_at(self, name: str, index: int) -> list[int] | None:
        """Attribute `name` of old operator sets, input `index` of new ones."""
        return self.input_integers(index) if self.has(index) else self.integers(name)

    def only(self, name: str, value: int) -> None:
        """Raises Unsupported unless the integer attribute is absent or `value`."""
        if self.integer(name, value) != value:
            raise Unsupported(f"{name}={self.integer(name, value)}")

    def content(self) -> Array:
        """The array that a Constant states in one of its attributes."""
        for name, kind in (("value", 4), ("value_float", 1), ("value_floats", 6)):
            attribute = self._attribute(name, kind)
            if attribute is not None and kind == 4:
                return self._decode(attribute.t)
            if attribute is not None:
                numbers = attribute.f if kind == 1 else list(attribute.floats)
                return np.array(numbers, np.float32)
        if "value_int" in self._attributes:
            return np.array(self.integer("value_int", 0), np.int64)
        integers = self.integers("value_ints")
        if integers is None:
            raise Unsupported("neither a tensor nor numbers")
        return np.array(integers, np.int64)

    # --- windows

    def pair(self, name: str, default: int) -> list[int]:
        """Two integers."""
        values = small(self.integers(name, [default] * 2) or [], name)
        if len(values) != 2:
            raise Unsupported(f"{name}={values}; only two dimensions")
        return values

    def padding(
        self, n: NchwBuilder, x: Imported, kernel: Sequence[int], dilation: Sequence[int]
    ) -> list[int]:
        """[top, left, bottom, right] from `pads` or `auto_pad`."""
        kind = self.text("auto_pad", "NOTSET")
        if kind in ("SAME_UPPER", "SAME_LOWER"):
            strides, upper = self.pair("strides", 1), kind == "SAME_UPPER"
            return n.same_padding(x.shape[2:], kernel, strides, dilation, upper)
        if kind not in ("NOTSET", "VALID"):
            raise Unsupported(f"auto_pad={kind}"[:40])
        pads = self.integers("pads", [0] * 4) or []
        padding = small(pads if kind == "NOTSET" else [0] * 4, "pads")
        if len(padding) != 4:
            raise Unsupported(f"pads={padding}; only two dimensions")
        return padding


def _images(x: Imported) -> None:
    if len(x.shape) != 4:
        raise Unsupported(f"input of rank {len(x.shape)}; only images [N, C, H, W]")


@dataclass(frozen=True)
class Rule:
    """How an operation is imported."""

    convert: Callable[[NchwBuilder, Operands], Result]
    nn: tuple[str, ...]
    """The nn operations that it becomes, for the documentation."""


def _unary(method: str) -> Rule:
    return Rule(lambda n, a: n.elementwise(getattr(n.b, method), a.tensor(n, 0)), (f"nn.{method}",))


def _binary(method: str) -> Rule:
    """Two operands; Max, Min and Sum have any number."""

    def convert(n: NchwBuilder, a: Operands) -> Result:
        first, *rest = a.tensors(n) or [a.tensor(n, 0)]
        for x in rest:
            first = n.elementwise(getattr(n.b, method), first, x)
        return first

    return Rule(convert, (f"nn.{method}",))


def _compare(predicate: str) -> Rule:
    def convert(n: NchwBuilder, a: Operands) -> Result:
        x, y = a.tensor(n, 0), a.tensor(n, 1)
        return n.elementwise(partial(n.b.compare, predicate=predicate), x, y)

    return Rule(convert, ("nn.compare",))


def _clip(n: NchwBuilder, a: Operands) -> Result:
    low = a.input_number(1, a.number("min", -math.inf))
    high = a.input_number(2, a.number("max", math.inf))
    return idioms.clamp(n, a.tensor(n, 0), low, high)


def _pow(n: NchwBuilder, a: Operands) -> Result:
    exponent = a.constant(1)
    if exponent.size != 1:
        raise Unsupported("exponents that differ by element")
    return idioms.power(n, a.tensor(n, 0), float(exponent.item()))


def _swish(n: NchwBuilder, a: Operands) -> Result:
    if a.number("alpha", 1.0) != 1.0:
        raise Unsupported("alpha other than 1")
    return n.elementwise(n.b.silu, a.tensor(n, 0))


def _cast(n: NchwBuilder, a: Operands) -> Result:
    x, to = a.tensor(n, 0), a.integer("to", FLOAT)
    is_integer = n.element(x) == i32
    if is_integer and to == FLOAT:
        return n.elementwise(n.b.cast, x)
    if to not in ((INT32, INT64) if is_integer else (FLOAT,)):
        raise Unsupported(f"conversion to data type {to}; only float32")
    return x


# --- contractions


def _conv(n: NchwBuilder, a: Operands) -> Result:
    x, w = a.tensor(n, 0), a.tensor(n, 1)
    _images(x)
    require(len(w.shape) == 4, "the filter must have rank 4")
    require(a.integers("kernel_shape", w.shape[2:]) == [*w.shape[2:]], "wrong 'kernel_shape'")
    dilation = a.pair("dilations", 1)
    padding = a.padding(n, x, w.shape[2:], dilation)
    groups = a.integer("group", 1)
    return n.conv2d(x, w, a.optional(n, 2), a.pair("strides", 1), padding, dilation, groups)


def _gemm(n: NchwBuilder, a: Operands) -> Result:
    left, right = a.tensor(n, 0), a.tensor(n, 1)
    require(len(left.shape) == len(right.shape) == 2, "both operands must be matrices")
    left = n.transpose(left, (1, 0)) if a.integer("transA", 0) else left
    right = n.transpose(right, (1, 0)) if a.integer("transB", 0) else right
    y = idioms.scaled(n, n.matmul(left, right), a.number("alpha", 1.0))
    bias = a.optional(n, 2)
    if bias is None:
        return y
    return n.elementwise(n.b.add, y, idioms.scaled(n, bias, a.number("beta", 1.0)))


def _batch_norm(n: NchwBuilder, a: Operands) -> Result:
    x, scale, shift, mean, var = (a.tensor(n, i) for i in range(5))
    by_outputs = a.opset < 14 and len(a.outputs) > 1
    training = a.integer("training_mode", int(by_outputs)) == 1
    momentum = 1.0 - a.number("momentum", 0.9)
    return n.batch_norm(x, scale, shift, mean, var, a.number("epsilon", 1e-5), momentum, training)


def _dropout(n: NchwBuilder, a: Operands) -> Result:
    x = a.tensor(n, 0)
    training = a.input_number(2, 0.0) != 0.0
    return n.dropout(x, a.input_number(1, a.number("ratio", 0.5))) if training else x


# --- pooling


def _max_pool(n: NchwBuilder, a: Operands) -> Result:
    x, kernel, dilation = a.tensor(n, 0), a.pair("kernel_shape", 0), a.pair("dilations", 1)
    _images(x)
    padding = a.padding(n, x, kernel, dilation)
    ceil_mode = a.integer("ceil_mode", 0) == 1
    return idioms.max_pool2d(n, x, kernel, a.pair("strides", 1), padding, dilation, ceil_mode)


def _avg_pool(n: NchwBuilder, a: Operands) -> Result:
    x, kernel, dilation = a.tensor(n, 0), a.pair("kernel_shape", 0), a.pair("dilations", 1)
    _images(x)
    if dilation != [1, 1]:
        raise Unsupported(f"dilations={dilation}")
    padding, counts = a.padding(n, x, kernel, dilation), a.integer("count_include_pad", 0) == 1
    ceil_mode = a.integer("ceil_mode", 0) == 1
    return idioms.avg_pool2d(n, x, kernel, a.pair("strides", 1), padding, ceil_mode, counts)


def _global_pool(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Operands) -> Result:
        x = a.tensor(n, 0)
        return n.reduce(getattr(n.b, method), x, range(2, len(x.shape)), keep=True)

    return Rule(convert, (f"nn.{method}",))


# --- reductions and shapes


def _reduce(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Operands) -> Result:
        x, axes = a.tensor(n, 0), a.integers_at("axes", 1)
        if not axes and a.integer("noop_with_empty_axes", 0):
            return x
        axes = axes or range(len(x.shape))
        return n.reduce(getattr(n.b, method), x, axes, a.integer("keepdims", 1) == 1)

    return Rule(convert, (f"nn.{method}",))


def _row(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Operands) -> Result:
        x = a.tensor(n, 0)
        axis = checked_axis(a.integer("axis", -1 if a.opset >= 13 else 1), len(x.shape))
        function = getattr(n.b, method)
        if a.opset >= 13 or axis == len(x.shape) - 1:
            return n.along(function, x, axis)
        rows = n.reshape(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])
        return n.reshape(n.along(function, rows, 1), x.shape)

    return Rule(convert, (f"nn.{method}",))


def _reshape(n: NchwBuilder, a: Operands) -> Result:
    x, shape = a.tensor(n, 0), small(a.integers_at("shape", 1) or [], "shape")
    if a.integer("allowzero", 0) == 0:
        require(all(s != 0 or i < len(x.shape) for i, s in enumerate(shape)), f"shape {shape[:16]}")
        shape = [x.shape[i] if s == 0 else s for i, s in enumerate(shape)]
    return n.reshape(x, shape)


def _flatten(n: NchwBuilder, a: Operands) -> Result:
    x, axis = a.tensor(n, 0), a.integer("axis", 1)
    require(-len(x.shape) <= axis <= len(x.shape), f"no dimension {axis}")
    axis = axis + len(x.shape) if axis < 0 else axis
    return n.reshape(x, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


def _squeeze(n: NchwBuilder, a: Operands) -> Result:
    x, axes = a.tensor(n, 0), a.integers_at("axes", 1)
    return n.squeeze(x, [i for i, s in enumerate(x.shape) if s == 1] if axes is None else axes)


def _unsqueeze(n: NchwBuilder, a: Operands) -> Result:
    return n.unsqueeze(a.tensor(n, 0), a.integers_at("axes", 1) or [])


def _transpose(n: NchwBuilder, a: Operands) -> Result:
    x = a.tensor(n, 0)
    return n.transpose(x, a.integers("perm", range(len(x.shape) - 1, -1, -1)) or [])


def _pad(n: NchwBuilder, a: Operands) -> Result:
    if a.text("mode", "constant") != "constant":
        raise Unsupported(f"mode={a.text('mode', 'constant')}"[:40])
    x, pads = a.tensor(n, 0), small(a.integers_at("pads", 1) or [], "pads")
    rank = len(x.shape)
    axes = a.input_integers(3) if a.has(3) else range(rank)
    axes = [checked_axis(axis, rank) for axis in axes]
    require(len(pads) == 2 * len(axes), "'pads' must name both ends of each dimension")
    low, high = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        low[axis], high[axis] = pads[i], pads[len(axes) + i]
    return n.pad(x, low, high, a.input_number(2, a.number("value", 0.0)))


def _slice(n: NchwBuilder, a: Operands) -> Result:
    x = a.tensor(n, 0)
    starts, ends = a.integers_at("starts", 1) or [], a.integers_at("ends", 2) or []
    axes = a.integers_at("axes", 3)
    axes = list(range(len(starts))) if axes is None else axes
    steps = a.input_integers(4) if a.has(4) else [1] * len(starts)
    require(len(starts) == len(ends) == len(axes) == len(steps), "lists of different lengths")
    checked_axes(axes, len(x.shape))
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        x = n.slice_axis(x, axis, start, end, step)
    return x


def _split(n: NchwBuilder, a: Operands) -> Result:
    x, sizes = a.tensor(n, 0), a.integers_at("split", 1)
    axis = checked_axis(a.integer("axis", 0), len(x.shape))
    if sizes is None:
        count, total = a.integer("num_outputs", len(a.outputs)), x.shape[axis]
        require(count == len(a.outputs), "'num_outputs' must be the number of outputs")
        part = -(-total // count)
        sizes = [min(part, max(total - i * part, 0)) for i in range(count)]
    return n.split(x, sizes, axis)


def _concat(n: NchwBuilder, a: Operands) -> Result:
    return n.concat(a.tensors(n), a.integer("axis", 0))


def _expand(n: NchwBuilder, a: Operands) -> Result:
    shape = small(a.input_integers(1), "shape")
    require(min(shape, default=1) > 0, f"shape {shape[:16]}")
    return n.expand(a.tensor(n, 0), shape)


def _where(n: NchwBuilder, a: Operands) -> Result:
    return n.select(*(a.tensor(n, i) for i in range(3)))


def _shape(n: NchwBuilder, a: Operands) -> Result:
    known = a.known(0)
    start, end = a.integer("start", 0), a.integer("end", len(known.shape))
    return np.array(known.shape[start:end], np.int64)


def _constant(n: NchwBuilder, a: Operands) -> Result:
    array = a.content()
    return array if array.dtype.kind in "ib" else n.weight(a.outputs[0], array, fixed=True)


_REDUCE_SUM_MEAN_MAX = {
    "ReduceSum": "reduce_sum",
    "ReduceMean": "reduce_mean",
    "ReduceMax": "reduce_max",
}
RULES: Mapping[str, Rule] = {
    **{
        name: _unary(method)
        for name, method in {
            "Abs": "abs", "Erf": "erf", "Exp": "exp", "HardSwish": "hard_swish", "Log": "log",
            "Neg": "neg", "Relu": "relu", "Sigmoid": "sigmoid", "Softplus": "softplus",
            "Sqrt": "sqrt", "Tanh": "tanh",
        }.items()
    },
    **{
        name: _binary(method)
        for name, method in {
            "Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Max": "max", "Min": "min",
            "Sum": "add",
        }.items()
    },
    "Greater": _compare("gt"),
    "GreaterOrEqual": _compare("ge"),
    "Less": _compare("lt"),
    "LessOrEqual": _compare("le"),
    "Equal": _compare("eq"),
    "Where": Rule(_where, ("nn.select",)),
    "Reciprocal": Rule(lambda n, a: idioms.power(n, a.tensor(n, 0), -1.0), ("nn.div",)),
    "Pow": Rule(_pow, ("nn.mul", "nn.sqrt", "nn.rsqrt", "nn.div")),
    "Clip": Rule(_clip, ("nn.relu", "nn.relu6", "nn.max", "nn.min")),
    "LeakyRelu": Rule(
        lambda n, a: idioms.leaky_relu(n, a.tensor(n, 0), a.number("alpha", 0.01)),
        ("nn.leaky_relu",),
    ),
    "HardSigmoid": Rule(
        lambda n, a: idioms.hard_sigmoid(
            n, a.tensor(n, 0), a.number("alpha", 0.2), a.number("beta", 0.5)
        ),
        ("nn.hard_sigmoid", "nn.mul", "nn.add", "nn.max", "nn.min"),
    ),
    "Gelu": Rule(
        lambda n, a: idioms.gelu(n, a.tensor(n, 0), a.text("approximate", "none")), ("nn.gelu",)
    ),
    "Swish": Rule(_swish, ("nn.silu",)),
    "Cast": Rule(_cast, ("nn.cast",)),
    "Conv": Rule(_conv, ("nn.conv2d", "nn.add")),
    "Gemm": Rule(_gemm, ("nn.matmul", "nn.add")),
    "MatMul": Rule(lambda n, a: n.matmul(a.tensor(n, 0), a.tensor(n, 1)), ("nn.matmul",)),
    "BatchNormalization": Rule(_batch_norm, ("nn.batch_norm",)),
    "Dropout": Rule(_dropout, ("nn.dropout",)),
    "MaxPool": Rule(_max_pool, ("nn.max_pool2d",)),
    "AveragePool": Rule(_avg_pool, ("nn.avg_pool2d",)),
    "GlobalAveragePool": _global_pool("reduce_mean"),
    "GlobalMaxPool": _global_pool("reduce_max"),
    **{name: _reduce(method) for name, method in _REDUCE_SUM_MEAN_MAX.items()},
    "Softmax": _row("softmax"),
    "LogSoftmax": _row("log_softmax"),
    "Reshape": Rule(_reshape, ("nn.reshape",)),
    "Flatten": Rule(_flatten, ("nn.reshape",)),
    "Squeeze": Rule(_squeeze, ("nn.reshape",)),
    "Unsqueeze": Rule(_unsqueeze, ("nn.reshape",)),
    "Transpose": Rule(_transpose, ("nn.transpose",)),
    "Pad": Rule(_pad, ("nn.pad", "nn.slice")),
    "Slice": Rule(_slice, ("nn.slice",)),
    "Split": Rule(_split, ("nn.slice",)),
    "Concat": Rule(_concat, ("nn.concat",)),
    "Expand": Rule(_expand, ("nn.broadcast",)),
    "Identity": Rule(lambda n, a: a.known(0), ()),
    "Constant": Rule(_constant, ("train.parameter", "nn.constant")),
    "Shape": Rule(_shape, ()),
}  # fmt: skip
"""By operator name, of the standard domain."""

OPS: Mapping[str, tuple[str, ...]] = {name: rule.nn for name, rule in RULES.items()}
"""The supported operations and the nn operations that each becomes."""
