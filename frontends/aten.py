"""What each aten operation of an exported program becomes."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import numpy as np
from xdsl.dialects.builtin import i32

from niwaki.frontends import idioms
from niwaki.frontends.checked_json import Json
from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import (
    MAX_ELEMENTS,
    MAX_PARTS,
    Imported,
    NchwBuilder,
    checked_axis,
    small,
)
from niwaki.ir.dialects.tensor_op import broadcast_shapes, require

Result: TypeAlias = Imported | Sequence[Imported] | int
Environment: TypeAlias = Mapping[str, Imported | int]

FLOAT, INT, LONG, BOOL = 7, 4, 5, 12
"""torch's numbers of the scalar types that a model may compute in."""


class Arguments:
    """The arguments of one node, by the names of the operator schema.

    Accessors raise ModelFileError where the file states another type, VerifyException where a
    required argument is missing, Unsupported where a value was never imported.
    """

    def __init__(self, arguments: Mapping[str, Json], environment: Environment) -> None:
        self._arguments = arguments
        self._environment = environment

    def _get(self, name: str) -> tuple[str, Json] | None:
        argument = self._arguments.get(name)
        kind, value = ("as_none", None) if argument is None else argument.variant()
        return None if kind == "as_none" or value is None else (kind, value)

    def _required(self, name: str) -> tuple[str, Json]:
        argument = self._get(name)
        require(argument is not None, f"argument '{name}' is missing")
        assert argument is not None
        return argument

    def _look_up(self, name: Json) -> Imported | int:
        value = self._environment.get(name.text())
        if value is None:
            raise Unsupported(f"reads '{name.text()}', which has no value here")
        return value

    def _tensor(self, reference: Json) -> Imported:
        value = self._look_up(reference["name"])
        if isinstance(value, int):
            raise reference.fail("expected the name of a tensor")
        return value

    def _size(self, reference: Json) -> int:
        """A symbolic integer: stated, or computed by a node."""
        kind, value = reference.variant()
        if kind == "as_int":
            return value.integer()
        size = self._look_up(value)
        if not isinstance(size, int):
            raise reference.fail("expected the name of an integer")
        return size

    def has(self, name: str) -> bool:
        """Whether the argument is given and not None."""
        return self._get(name) is not None

    def tensor(self, name: str) -> Imported:
        """A tensor."""
        kind, value = self._required(name)
        if kind != "as_tensor":
            raise value.fail("expected a tensor")
        return self._tensor(value)

    def optional_tensor(self, name: str) -> Imported | None:
        """A tensor or None."""
        return self.tensor(name) if self.has(name) else None

    def tensors(self, name: str) -> list[Imported]:
        """A list of tensors."""
        kind, value = self._required(name)
        if kind != "as_tensors":
            raise value.fail("expected tensors")
        return [self._tensor(v) for v in value.elements()]

    def operand(self, n: NchwBuilder, name: str, like: str) -> Imported:
        """A tensor, or a number as a constant of the element type of the argument `like`."""
        kind, value = self._required(name)
        if kind == "as_tensor":
            return self._tensor(value)
        return n.scalar(self.number(name), self.tensor(like))

    def index(self, name: str, default: int) -> int:
        """An integer of any size, as slices have."""
        argument = self._get(name)
        if argument is None:
            return default
        kind, value = argument
        return self._size(value) if kind == "as_sym_int" else value.integer()

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer of 32 bits."""
        if default is None:
            self._required(name)
        return small([self.index(name, 0 if default is None else default)], name)[0]

    def integers(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """One or several integers of 32 bits; an absent or empty list is `default`."""
        argument = self._get(name) if default is not None else self._required(name)
        if argument is None:
            return list(default or ())
        kind, value = argument
        match kind:
            case "as_int" | "as_sym_int":
                sizes = [self.index(name, 0)]
            case "as_sym_ints":
                sizes = [self._size(v) for v in value.elements()]
            case _:
                sizes = [v.integer() for v in value.elements()]
        return list(default) if default is not None and not sizes else small(sizes, name)

    def pair(self, name: str, default: Sequence[int] | None = None) -> list[int]:
        """Two integers, or one for both."""
        values = self.integers(name, default)
        require(len(values) in (1, 2), f"'{name}' must be one or two integers")
        return values if len(values) == 2 else values * 2

    def number(self, name: str, default: float | None = None) -> float:
        """A number."""
        argument = self._get(name) if default is not None else self._required(name)
        if argument is None:
            return 0.0 if default is None else default
        kind, value = argument
        return float(self._size(value)) if kind == "as_sym_int" else value.number()

    def flag(self, name: str, default: bool = False) -> bool:
        """A boolean."""
        argument = self._get(name)
        return default if argument is None else argument[1].flag()

    def text(self, name: str, default: str) -> str:
        """A string."""
        argument = self._get(name)
        return default if argument is None else argument[1].text()

    def only(self, name: str, value: float | str | None) -> None:
        """Raises Unsupported unless the argument is absent, None or `value`."""
        argument = self._get(name)
        if argument is not None and (value is None or argument[1].value != value):
            raise Unsupported(f"{name}={argument[1].value!r}"[:80])


@dataclass(frozen=True)
class Rule:
    """How an operation is imported."""

    convert: Callable[[NchwBuilder, Arguments], Result]
    nn: tuple[str, ...]
    """The nn operations that it becomes, for the documentation."""


def _unary(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        return n.elementwise(getattr(n.b, method), a.tensor("self"))

    return Rule(convert, (f"nn.{method}",))


def _binary(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        x = a.operand(n, "self", like="other")
        other = idioms.scaled(n, a.operand(n, "other", like="self"), a.number("alpha", 1.0))
        return n.elementwise(getattr(n.b, method), x, other)

    return Rule(convert, (f"nn.{method}",))


def _reversed_sub(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    return n.elementwise(
        n.b.sub, a.operand(n, "other", like="self"), idioms.scaled(n, x, a.number("alpha", 1.0))
    )


def _log1p(n: NchwBuilder, a: Arguments) -> Result:
    return n.elementwise(n.b.log, n.elementwise(n.b.add, a.tensor("self"), n.scalar(1.0)))


def _compare(predicate: str) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        x = a.tensor("self")
        other = a.operand(n, "other", like="self")
        return n.elementwise(partial(n.b.compare, predicate=predicate), x, other)

    return Rule(convert, ("nn.compare",))


def _where(n: NchwBuilder, a: Arguments) -> Result:
    return n.select(a.tensor("condition"), a.tensor("self"), a.tensor("other"))


def _same(name: str = "self") -> Rule:
    return Rule(lambda n, a: a.tensor(name), ())


def _cast(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    if not a.has("dtype"):
        return x
    dtype = a.integer("dtype")
    is_integer = n.element(x) == i32
    if is_integer and dtype == FLOAT:
        return n.elementwise(n.b.cast, x)
    if dtype not in ((INT, LONG) if is_integer else (FLOAT,)):
        raise Unsupported(f"conversion to scalar type {dtype}; only float32")
    return x


def _scalar_tensor(n: NchwBuilder, a: Arguments) -> Result:
    if a.integer("dtype", FLOAT) != FLOAT:
        raise Unsupported("constant that is not float32")
    return n.scalar(a.number("s"))


def _full_like(n: NchwBuilder, a: Arguments) -> Result:
    if a.integer("dtype", FLOAT) != FLOAT:
        raise Unsupported("constant that is not float32")
    return n.full(a.number("fill_value"), a.tensor("self").shape)


def _full(n: NchwBuilder, a: Arguments) -> Result:
    size = a.integers("size")
    if a.integer("dtype", FLOAT) == BOOL:
        return _is_true(n, n.full(float(a.flag("fill_value")), size))
    if a.integer("dtype", FLOAT) != FLOAT:
        raise Unsupported("constant that is neither float32 nor bool")
    return n.full(a.number("fill_value"), size)


def _arange(n: NchwBuilder, a: Arguments) -> Result:
    start, end, step = a.number("start", 0.0), a.number("end"), a.number("step", 1.0)
    whole = all(v.is_integer() for v in (start, end, step))
    dtype = a.integer("dtype", LONG if whole else FLOAT)
    if dtype not in (FLOAT, INT, LONG):
        raise Unsupported(f"numbers of scalar type {dtype}")
    require(step != 0 and 0 < (end - start) / step <= MAX_ELEMENTS, "a range without an end")
    element = np.float32 if dtype == FLOAT else np.int32
    name = f"range.{start:g}.{end:g}.{step:g}.{element.__name__}"
    return n.table(name, lambda: np.arange(start, end, step).astype(element))


def _is_true(n: NchwBuilder, numbers: Imported) -> Imported:
    """0 and 1 as bits."""
    return n.elementwise(partial(n.b.compare, predicate="gt"), numbers, n.scalar(0.5))


def _logical_not(n: NchwBuilder, a: Arguments) -> Result:
    numbers = n.elementwise(n.b.cast, a.tensor("self"))
    return n.elementwise(partial(n.b.compare, predicate="lt"), numbers, n.scalar(0.5))


def _logical_and(n: NchwBuilder, a: Arguments) -> Result:
    return n.elementwise(n.b.logical_and, a.tensor("self"), a.tensor("other"))


def _any(n: NchwBuilder, a: Arguments) -> Result:
    numbers = n.elementwise(n.b.cast, a.tensor("self"))
    axes = [a.integer("dim")]
    return _is_true(n, n.reduce(n.b.reduce_max, numbers, axes, a.flag("keepdim")))


# --- contractions


def _convolution(n: NchwBuilder, a: Arguments) -> Result:
    a.only("transposed", False)
    top, left = a.pair("padding", [0])
    return _conv(n, a, [top, left, top, left])


def _same_or_valid_convolution(n: NchwBuilder, a: Arguments) -> Result:
    if a.text("padding", "valid") == "valid":
        return _conv(n, a, [0] * 4)
    strides, dilation = a.pair("stride", [1]), a.pair("dilation", [1])
    x, w = a.tensor("input"), a.tensor("weight")
    require(len(x.shape) == len(w.shape) == 4, "input and weight must have rank 4")
    return _conv(n, a, n.same_padding(x.shape[2:], w.shape[2:], strides, dilation, upper=True))


def _conv(n: NchwBuilder, a: Arguments, padding: Sequence[int]) -> Imported:
    return n.conv2d(
        a.tensor("input"),
        a.tensor("weight"),
        a.optional_tensor("bias"),
        a.pair("stride", [1]),
        padding,
        a.pair("dilation", [1]),
        a.integer("groups", 1),
    )


def _linear(n: NchwBuilder, a: Arguments) -> Result:
    return n.linear(a.tensor("input"), a.tensor("weight"), a.optional_tensor("bias"))


def _addmm(n: NchwBuilder, a: Arguments) -> Result:
    product = n.matmul(a.tensor("mat1"), a.tensor("mat2"))
    return n.elementwise(
        n.b.add,
        idioms.scaled(n, product, a.number("alpha", 1.0)),
        idioms.scaled(n, a.tensor("self"), a.number("beta", 1.0)),
    )


def _matmul(second: str) -> Rule:
    return Rule(lambda n, a: n.matmul(a.tensor("self"), a.tensor(second)), ("nn.matmul",))


def _batch_norm(training: bool | None) -> Rule:
    """`training` None: the node says."""

    def convert(n: NchwBuilder, a: Arguments) -> Result:
        mean, var = a.optional_tensor("running_mean"), a.optional_tensor("running_var")
        if mean is None or var is None:
            raise Unsupported("batch norm without running statistics")
        return n.batch_norm(
            a.tensor("input"),
            a.optional_tensor("weight"),
            a.optional_tensor("bias"),
            mean,
            var,
            a.number("eps", 1e-5),
            a.number("momentum", 0.1),
            a.flag("training") if training is None else training,
        )

    return Rule(convert, ("nn.batch_norm",))


def _dropout(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("input")
    return n.dropout(x, a.number("p")) if a.flag("train") else x


def _embedding(n: NchwBuilder, a: Arguments) -> Result:
    a.only("scale_grad_by_freq", False)
    table, padding = a.tensor("weight"), a.integer("padding_idx", -1)
    require(padding < table.shape[0], f"'padding_idx' is {padding}")
    return idioms.embedding(n, table, a.tensor("indices"), None if padding < 0 else padding)


def _last_dimensions(n: NchwBuilder, a: Arguments) -> tuple[Imported, list[Imported | None]]:
    """x, and its scale and shift, with the dimensions to normalise over as one."""
    x, sizes = a.tensor("input"), a.integers("normalized_shape")
    require(0 < len(sizes) <= len(x.shape), f"'normalized_shape' is {sizes}")
    require(list(x.shape[-len(sizes) :]) == sizes, f"'normalized_shape' is {sizes}")
    values = [a.optional_tensor(name) for name in ("weight", "bias")]
    rows = n.reshape(x, [*x.shape[: -len(sizes)], math.prod(sizes)])
    return rows, [None if v is None else n.reshape(v, [math.prod(sizes)]) for v in values]


def _layer_norm(n: NchwBuilder, a: Arguments) -> Result:
    x, (scale, shift) = _last_dimensions(n, a)
    y = n.layer_norm(x, scale, shift, a.number("eps", 1e-5))
    return n.reshape(y, a.tensor("input").shape)


def _native_layer_norm(n: NchwBuilder, a: Arguments) -> Result:
    y = _layer_norm(n, a)
    assert isinstance(y, Imported)
    return [y]  # the mean and the deviation are for a backward pass of torch's own


def _rms_norm(n: NchwBuilder, a: Arguments) -> Result:
    x, (scale, _) = _last_dimensions(n, a)
    y = n.rms_norm(x, scale, a.number("eps", float(np.finfo(np.float32).eps)))
    return n.reshape(y, a.tensor("input").shape)


def _attention(n: NchwBuilder, a: Arguments) -> Result:
    return idioms.attention(
        n,
        a.tensor("query"),
        a.tensor("key"),
        a.tensor("value"),
        a.optional_tensor("attn_mask"),
        a.flag("is_causal"),
        a.number("scale") if a.has("scale") else None,
        a.number("dropout_p", 0.0),
    )


# --- pooling


def _max_pool(n: NchwBuilder, a: Arguments) -> Result:
    kernel = a.pair("kernel_size")
    return idioms.max_pool2d(
        n,
        a.tensor("self"),
        kernel,
        a.pair("stride", kernel),
        a.pair("padding", [0]) * 2,
        a.pair("dilation", [1]),
        a.flag("ceil_mode"),
    )


def _avg_pool(n: NchwBuilder, a: Arguments) -> Result:
    a.only("divisor_override", None)
    kernel = a.pair("kernel_size")
    return idioms.avg_pool2d(
        n,
        a.tensor("self"),
        kernel,
        a.pair("stride", kernel),
        a.pair("padding", [0]) * 2,
        a.flag("ceil_mode"),
        a.flag("count_include_pad", True),
    )


def _adaptive_avg_pool(n: NchwBuilder, a: Arguments) -> Result:
    x, size = a.tensor("self"), a.pair("output_size")
    if size == [1, 1]:
        return n.reduce(n.b.reduce_mean, x, [-2, -1], keep=True)
    require(len(x.shape) == 4 and min(size) > 0, "input and output must be images")
    if any(have % want for have, want in zip(x.shape[2:], size, strict=True)):
        raise Unsupported(f"from {list(x.shape[2:])} to {size}; only whole windows")
    kernel = [have // want for have, want in zip(x.shape[2:], size, strict=True)]
    return n.avg_pool2d(x, kernel, kernel, [0] * 4, True)


# --- elementwise with parameters


def _clamp(low: str, high: str, defaults: tuple[float, float]) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        low_value, high_value = a.number(low, defaults[0]), a.number(high, defaults[1])
        return idioms.clamp(n, a.tensor("self"), low_value, high_value)

    return Rule(convert, ("nn.relu", "nn.relu6", "nn.max", "nn.min"))


def _softplus(n: NchwBuilder, a: Arguments) -> Result:
    a.only("beta", 1)
    return n.elementwise(n.b.softplus, a.tensor("self"))


# --- reductions and shapes


def _reduce(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        x = a.tensor("self")
        axes = a.integers("dim", range(len(x.shape)))
        return n.reduce(getattr(n.b, method), x, axes, a.flag("keepdim"))

    return Rule(convert, (f"nn.{method}",))


def _row(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        return n.along(getattr(n.b, method), a.tensor("self"), a.integer("dim"))

    return Rule(convert, (f"nn.{method}",))


def _reshape(size: str) -> Rule:
    return Rule(lambda n, a: n.reshape(a.tensor("self"), a.integers(size)), ("nn.reshape",))


def _flatten(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    if not x.shape:
        return n.reshape(x, [1])
    first = checked_axis(a.integer("start_dim", 0), len(x.shape))
    last = checked_axis(a.integer("end_dim", -1), len(x.shape))
    require(first <= last, "'start_dim' is behind 'end_dim'")
    merged = math.prod(x.shape[first : last + 1])
    return n.reshape(x, [*x.shape[:first], merged, *x.shape[last + 1 :]])


def _squeeze(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    axes = [checked_axis(d, len(x.shape)) for d in a.integers("dim", range(len(x.shape)))]
    return n.squeeze(x, [d for d in axes if x.shape[d] == 1])


def _transpose(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    first, second = (checked_axis(a.integer(d), len(x.shape)) for d in ("dim0", "dim1"))
    permutation = list(range(len(x.shape)))
    permutation[first], permutation[second] = second, first
    return n.transpose(x, permutation)


def _unflatten(n: NchwBuilder, a: Arguments) -> Result:
    x, sizes = a.tensor("self"), a.integers("sizes")
    axis = checked_axis(a.integer("dim"), len(x.shape))
    require(sizes.count(-1) <= 1 and min(sizes, default=0) >= -1, f"sizes {sizes}")
    known = math.prod(s for s in sizes if s != -1)
    require(known > 0, f"sizes {sizes}")
    sizes = [x.shape[axis] // known if s == -1 else s for s in sizes]
    return n.reshape(x, [*x.shape[:axis], *sizes, *x.shape[axis + 1 :]])


def _stack(n: NchwBuilder, a: Arguments) -> Result:
    xs, axis = a.tensors("tensors"), a.integer("dim", 0)
    return n.concat([n.unsqueeze(x, [axis]) for x in xs], axis)


def _matrix_transpose(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    require(len(x.shape) >= 2, "no matrix")
    return n.transpose(x, [*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2])


def _t(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    require(len(x.shape) <= 2, "only matrices")
    return n.transpose(x, range(len(x.shape) - 1, -1, -1))


def _expand(n: NchwBuilder, a: Arguments) -> Result:
    x, size = a.tensor("self"), a.integers("size")
    missing = len(size) - len(x.shape)
    require(missing >= 0, f"{list(x.shape)} does not expand to {size}")
    old = [-1] * missing + list(x.shape)
    return n.expand(x, [o if s == -1 else s for s, o in zip(size, old, strict=True)])


def _broadcast_tensors(n: NchwBuilder, a: Arguments) -> Result:
    xs = a.tensors("tensors")
    shape = broadcast_shapes(*(x.shape for x in xs))
    return [n.expand(x, shape) for x in xs]


def _pad(n: NchwBuilder, a: Arguments) -> Result:
    x, pads = a.tensor("self"), a.integers("pad")
    rank = len(x.shape)
    require(len(pads) % 2 == 0 and len(pads) <= 2 * rank, f"padding {pads} of rank {rank}")
    low, high = [0] * rank, [0] * rank
    for i in range(len(pads) // 2):
        low[rank - 1 - i], high[rank - 1 - i] = pads[2 * i], pads[2 * i + 1]
    return n.pad(x, low, high, a.number("value", 0.0))


def _constant_mode_pad(n: NchwBuilder, a: Arguments) -> Result:
    a.only("mode", "constant")
    return _pad(n, a)


def _slice(n: NchwBuilder, a: Arguments) -> Result:
    return n.slice_axis(
        a.tensor("self"),
        a.integer("dim", 0),
        a.index("start", 0),
        a.index("end", 2**63 - 1),
        a.integer("step", 1),
    )


def _select(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    axis, index = checked_axis(a.integer("dim"), len(x.shape)), a.integer("index")
    index = checked_axis(index, x.shape[axis])
    return n.squeeze(n.slice_axis(x, axis, index, index + 1, 1), [axis])


def _split(n: NchwBuilder, a: Arguments) -> Result:
    return n.split(a.tensor("self"), a.integers("split_sizes"), a.integer("dim", 0))


def _split_evenly(n: NchwBuilder, x: Imported, size: int, axis: int) -> list[Imported]:
    require(size > 0, "parts must have elements")
    total = x.shape[checked_axis(axis, len(x.shape))]
    if -(-total // size) > MAX_PARTS:
        raise Unsupported(f"split into more than {MAX_PARTS} parts")
    sizes = [min(size, total - start) for start in range(0, total, size)]
    return n.split(x, sizes, axis)


def _split_by_size(n: NchwBuilder, a: Arguments) -> Result:
    return _split_evenly(n, a.tensor("self"), a.integer("split_size"), a.integer("dim", 0))


def _chunk(n: NchwBuilder, a: Arguments) -> Result:
    x, chunks, axis = a.tensor("self"), a.integer("chunks"), a.integer("dim", 0)
    require(chunks > 0, "'chunks' must be positive")
    return _split_evenly(n, x, -(-x.shape[checked_axis(axis, len(x.shape))] // chunks), axis)


def _size(n: NchwBuilder, a: Arguments) -> Result:
    x = a.tensor("self")
    return x.shape[checked_axis(a.integer("dim"), len(x.shape))]


# --- losses


def _mean_loss(a: Arguments) -> None:
    a.only("weight", None)
    a.only("pos_weight", None)
    a.only("reduction", 1)


def _cross_entropy(n: NchwBuilder, a: Arguments) -> Result:
    _mean_loss(a)
    a.only("ignore_index", -100)
    a.only("label_smoothing", 0.0)
    return n.loss(n.b.cross_entropy, a.tensor("self"), a.tensor("target"))


def _nll(n: NchwBuilder, a: Arguments) -> Result:
    _mean_loss(a)
    a.only("ignore_index", -100)
    return idioms.negative_log_likelihood(n, a.tensor("self"), a.tensor("target"))


def _loss(method: str) -> Rule:
    def convert(n: NchwBuilder, a: Arguments) -> Result:
        _mean_loss(a)
        return n.loss(getattr(n.b, method), a.tensor("self"), a.tensor("target"))

    return Rule(convert, (f"nn.{method}",))


def _reciprocal(n: NchwBuilder, a: Arguments) -> Result:
    return idioms.power(n, a.tensor("self"), -1.0)


_SUBTRACTION = Rule(_reversed_sub, ("nn.sub",))
_CLAMP = _clamp("min", "max", (-math.inf, math.inf))
_CONVOLUTION = Rule(_convolution, ("nn.conv2d", "nn.add"))
_MAX_POOL = Rule(_max_pool, ("nn.max_pool2d",))
_ADAPTIVE = Rule(_adaptive_avg_pool, ("nn.reduce_mean", "nn.avg_pool2d"))
_CAST = Rule(_cast, ("nn.cast",))
_TRANSPOSE = ("nn.transpose",)
_SPLIT = ("nn.slice",)
_NLL = Rule(_nll, ("nn.one_hot", "nn.mul", "nn.reduce_sum"))
_SQUEEZE = Rule(_squeeze, ("nn.reshape",))
_POWER = Rule(
    lambda n, a: idioms.power(n, a.tensor("self"), a.number("exponent")),
    ("nn.mul", "nn.sqrt", "nn.rsqrt", "nn.div"),
)

RULES: Mapping[str, Rule] = {
    **{
        f"aten.{name}.default": _unary(method)
        for name, method in {
            "abs": "abs", "erf": "erf", "exp": "exp", "hardsigmoid": "hard_sigmoid",
            "hardswish": "hard_swish", "log": "log", "neg": "neg", "relu": "relu",
            "relu6": "relu6", "rsqrt": "rsqrt", "sigmoid": "sigmoid", "silu": "silu",
            "sqrt": "sqrt", "tanh": "tanh",
        }.items()
    },
    **{
        f"aten.{name}.{overload}": _binary(name)
        for name in ("add", "sub", "mul", "div")
        for overload in ("Tensor", "Scalar")
    },
    "aten.maximum.default": _binary("max"),
    "aten.minimum.default": _binary("min"),
    **{
        f"aten.{name}.{overload}": _compare(name)
        for name in ("gt", "ge", "lt", "le", "eq")
        for overload in ("Tensor", "Scalar")
    },
    "aten.rsub.Scalar": _SUBTRACTION,
    "aten.rsub.Tensor": _SUBTRACTION,
    "aten.reciprocal.default": Rule(_reciprocal, ("nn.div",)),
    "aten.square.default": Rule(lambda n, a: idioms.power(n, a.tensor("self"), 2.0), ("nn.mul",)),
    "aten.log1p.default": Rule(_log1p, ("nn.add", "nn.log")),
    "aten.pow.Tensor_Scalar": _POWER,
    "aten.where.self": Rule(_where, ("nn.select",)),
    "aten.clamp.default": _CLAMP,
    "aten.clamp_min.default": _CLAMP,
    "aten.clamp_max.default": _CLAMP,
    "aten.hardtanh.default": _clamp("min_val", "max_val", (-1.0, 1.0)),
    "aten.leaky_relu.default": Rule(
        lambda n, a: idioms.leaky_relu(n, a.tensor("self"), a.number("negative_slope", 0.01)),
        ("nn.leaky_relu",),
    ),
    "aten.gelu.default": Rule(
        lambda n, a: idioms.gelu(n, a.tensor("self"), a.text("approximate", "none")), ("nn.gelu",)
    ),
    "aten.softplus.default": Rule(_softplus, ("nn.softplus",)),
    "aten.scalar_tensor.default": Rule(_scalar_tensor, ("nn.constant",)),
    "aten.full.default": Rule(_full, ("nn.constant",)),
    "aten.arange.default": Rule(_arange, ()),
    "aten.arange.start": Rule(_arange, ()),
    "aten.arange.start_step": Rule(_arange, ()),
    "aten.logical_not.default": Rule(_logical_not, ("nn.cast", "nn.compare")),
    "aten.logical_and.default": Rule(_logical_and, ("nn.and",)),
    "aten.any.dim": Rule(_any, ("nn.cast", "nn.reduce_max", "nn.compare")),
    "aten.full_like.default": Rule(_full_like, ("nn.constant",)),
    "aten.conv2d.default": _CONVOLUTION,
    "aten.convolution.default": _CONVOLUTION,
    "aten.conv2d.padding": Rule(_same_or_valid_convolution, ("nn.conv2d", "nn.add")),
    "aten.linear.default": Rule(_linear, ("nn.matmul", "nn.add")),
    "aten.addmm.default": Rule(_addmm, ("nn.matmul", "nn.add")),
    "aten.mm.default": _matmul("mat2"),
    "aten.bmm.default": _matmul("mat2"),
    "aten.matmul.default": _matmul("other"),
    "aten.embedding.default": Rule(_embedding, ("nn.gather", "nn.compare", "nn.select")),
    "aten.scaled_dot_product_attention.default": Rule(
        _attention, ("nn.matmul", "nn.mul", "nn.add", "nn.select", "nn.softmax", "nn.dropout")
    ),
    "aten.layer_norm.default": Rule(_layer_norm, ("nn.layer_norm",)),
    "aten.native_layer_norm.default": Rule(_native_layer_norm, ("nn.layer_norm",)),
    "aten.rms_norm.default": Rule(_rms_norm, ("nn.rms_norm",)),
    "aten.batch_norm.default": _batch_norm(None),
    "aten.native_batch_norm.default": _batch_norm(None),
    "aten._native_batch_norm_legit.default": _batch_norm(None),
    "aten._native_batch_norm_legit_functional.default": _batch_norm(None),
    "aten._native_batch_norm_legit_no_training.default": _batch_norm(False),
    "aten.dropout.default": Rule(_dropout, ("nn.dropout",)),
    "aten.native_dropout.default": Rule(_dropout, ("nn.dropout",)),
    "aten.max_pool2d.default": _MAX_POOL,
    "aten.max_pool2d_with_indices.default": _MAX_POOL,
    "aten.avg_pool2d.default": Rule(_avg_pool, ("nn.avg_pool2d",)),
    "aten.adaptive_avg_pool2d.default": _ADAPTIVE,
    "aten._adaptive_avg_pool2d.default": _ADAPTIVE,
    "aten.mean.default": _reduce("reduce_mean"),
    "aten.mean.dim": _reduce("reduce_mean"),
    "aten.sum.default": _reduce("reduce_sum"),
    "aten.sum.dim_IntList": _reduce("reduce_sum"),
    "aten.amax.default": _reduce("reduce_max"),
    "aten.softmax.int": _row("softmax"),
    "aten._softmax.default": _row("softmax"),
    "aten.log_softmax.int": _row("log_softmax"),
    "aten._log_softmax.default": _row("log_softmax"),
    "aten.view.default": _reshape("size"),
    "aten._unsafe_view.default": _reshape("size"),
    "aten.reshape.default": _reshape("shape"),
    "aten.flatten.using_ints": Rule(_flatten, ("nn.reshape",)),
    "aten.squeeze.default": _SQUEEZE,
    "aten.squeeze.dim": _SQUEEZE,
    "aten.squeeze.dims": _SQUEEZE,
    "aten.unsqueeze.default": Rule(
        lambda n, a: n.unsqueeze(a.tensor("self"), [a.integer("dim")]), ("nn.reshape",)
    ),
    "aten.permute.default": Rule(
        lambda n, a: n.transpose(a.tensor("self"), a.integers("dims")), _TRANSPOSE
    ),
    "aten.transpose.int": Rule(_transpose, _TRANSPOSE),
    "aten.t.default": Rule(_t, _TRANSPOSE),
    "aten.mT.default": Rule(_matrix_transpose, _TRANSPOSE),
    "aten.unflatten.int": Rule(_unflatten, ("nn.reshape",)),
    "aten.stack.default": Rule(_stack, ("nn.reshape", "nn.concat")),
    "aten.expand.default": Rule(_expand, ("nn.broadcast",)),
    "aten.broadcast_tensors.default": Rule(_broadcast_tensors, ("nn.broadcast",)),
    "aten.constant_pad_nd.default": Rule(_pad, ("nn.pad", "nn.slice")),
    "aten.pad.default": Rule(_constant_mode_pad, ("nn.pad", "nn.slice")),
    "aten.slice.Tensor": Rule(_slice, _SPLIT),
    "aten.select.int": Rule(_select, ("nn.slice", "nn.reshape")),
    "aten.split_with_sizes.default": Rule(_split, _SPLIT),
    "aten.split.Tensor": Rule(_split_by_size, _SPLIT),
    "aten.chunk.default": Rule(_chunk, _SPLIT),
    "aten.cat.default": Rule(
        lambda n, a: n.concat(a.tensors("tensors"), a.integer("dim", 0)), ("nn.concat",)
    ),
    **{
        f"aten.{name}": _same()
        for name in (
            "alias.default", "clone.default", "contiguous.default", "detach.default",
            "detach_.default", "lift_fresh_copy.default",
        )
    },
    "aten._to_copy.default": _CAST,
    "aten.to.dtype": _CAST,
    "aten.sym_size.int": Rule(_size, ()),
    "aten.cross_entropy_loss.default": Rule(_cross_entropy, ("nn.cross_entropy",)),
    "aten.nll_loss_forward.default": _NLL,
    "aten.nll_loss.default": _NLL,
    "aten.nll_loss_nd.default": _NLL,
    "aten.mse_loss.default": _loss("mse"),
    "aten.binary_cross_entropy_with_logits.default": _loss("bce_with_logits"),
}  # fmt: skip
"""By the name of the operation and its overload, without the "_" of in-place variants."""

VIEWS = frozenset(
    f"aten.{name}"
    for name in (
        "alias.default", "contiguous.default", "detach.default", "expand.default",
        "flatten.using_ints", "permute.default", "reshape.default", "select.int", "slice.Tensor",
        "squeeze.default", "squeeze.dim", "squeeze.dims", "t.default", "transpose.int",
        "unsqueeze.default", "view.default", "split.Tensor", "split_with_sizes.default",
        "chunk.default", "to.dtype", "dropout.default", "mT.default", "unflatten.int",
    )
)  # fmt: skip
"""Operations whose result may share memory with their first argument."""

OPS: Mapping[str, tuple[str, ...]] = {name: rule.nn for name, rule in RULES.items()}
"""The supported operations and the nn operations that each becomes."""
