"""What each ONNX operation becomes."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from xdsl.dialects.builtin import f32, i32

from niwaki.frontends import idioms, onnx_quantized
from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import (
    Imported,
    NchwBuilder,
    checked_axes,
    checked_axis,
    narrowed,
    small,
)
from niwaki.frontends.onnx_operands import FLOAT, INT32, INT64, Operands, Result
from niwaki.ir.dialects.tensor_op import require


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


def _last_dimensions(n: NchwBuilder, a: Operands) -> tuple[Imported, list[Imported | None]]:
    """x, and its scale and shift, with the dimensions to normalise over as one."""
    x = a.tensor(n, 0)
    axis = checked_axis(a.integer("axis", -1), len(x.shape))
    size = math.prod(x.shape[axis:])
    values: list[Imported | None] = []
    for index in (1, 2):
        value = a.optional(n, index)
        if value is not None:
            value = n.reshape(n.expand(value, x.shape[axis:]), [size])
        values.append(value)
    return n.reshape(x, [*x.shape[:axis], size]), values


def _layer_norm(n: NchwBuilder, a: Operands) -> Result:
    x, (scale, shift) = _last_dimensions(n, a)
    y = n.layer_norm(x, scale, shift, a.number("epsilon", 1e-5))
    return n.reshape(y, a.tensor(n, 0).shape)


def _rms_norm(n: NchwBuilder, a: Operands) -> Result:
    x, (scale, _) = _last_dimensions(n, a)
    y = n.rms_norm(x, scale, a.number("epsilon", 1e-5))
    return n.reshape(y, a.tensor(n, 0).shape)


def _gather(n: NchwBuilder, a: Operands) -> Result:
    """Rows at integer indices; one element at a known index along any dimension."""
    x = a.tensor(n, 0)
    axis, indices = checked_axis(a.integer("axis", 0), len(x.shape)), a.known(1)
    if not isinstance(indices, Imported):
        numbers, size = indices.astype(np.int64), x.shape[axis]
        require(bool(np.all((numbers >= -size) & (numbers < size))), "an index leaves the input")
        indices = np.asarray(numbers % size)
        if indices.ndim == 0:
            index = int(indices)
            return n.squeeze(n.slice_axis(x, axis, index, index + 1, 1), [axis])
        indices = n.weight(f"{a.outputs[0]}.indices", narrowed(indices), fixed=True)
    if axis != 0 or n.element(x) != f32:
        raise Unsupported(f"at several indices along axis {axis}; only rows of numbers")
    rows = n.gather(n.reshape(x, [x.shape[0], math.prod(x.shape[1:])]), indices)
    return n.reshape(rows, [*indices.shape, *x.shape[1:]])


def _trilu(n: NchwBuilder, a: Operands) -> Result:
    x, diagonal = a.tensor(n, 0), int(a.input_number(1, 0.0))
    require(len(x.shape) >= 2, "no matrix")
    upper, shape = a.integer("upper", 1) == 1, x.shape[-2:]
    cut = np.triu if upper else np.tril
    name = f"{cut.__name__}.{shape[0]}.{shape[1]}.{diagonal}"
    kept = n.table(name, lambda: cut(np.ones(shape, np.float32), diagonal))
    mask = n.elementwise(partial(n.b.compare, predicate="gt"), kept, n.scalar(0.5))
    return n.select(mask, x, n.scalar(0.0, x))


def _attention(n: NchwBuilder, a: Operands) -> Result:
    for index in (4, 5, 6):
        if a.has(index):
            raise Unsupported("past keys and values")
    a.only("qk_matmul_output_mode", 0)
    a.only("left_window_size", -1)
    a.only("right_window_size", -1)
    if a.number("softcap", 0.0) != 0.0:
        raise Unsupported("softcap")
    query, key, value = (a.tensor(n, index) for index in range(3))
    joined = len(query.shape) == 3
    if joined:
        query = _split_heads(n, query, a.integer("q_num_heads", 0))
        keys = a.integer("kv_num_heads", 0)
        key, value = (_split_heads(n, x, keys) for x in (key, value))
    scale = a.number("scale", 0.0) or None
    causal = a.integer("is_causal", 0) == 1
    y = idioms.attention(n, query, key, value, _mask(n, a), causal, scale, 0.0)
    if not joined:
        return y
    batch, heads, tokens, size = y.shape
    return n.reshape(n.transpose(y, (0, 2, 1, 3)), [batch, tokens, heads * size])


def _split_heads(n: NchwBuilder, x: Imported, heads: int) -> Imported:
    require(len(x.shape) == 3 and heads > 0, "no number of heads")
    batch, tokens, width = x.shape
    require(width % heads == 0, f"{heads} heads of {width} elements")
    return n.transpose(n.reshape(x, [batch, tokens, heads, width // heads]), (0, 2, 1, 3))


def _mask(n: NchwBuilder, a: Operands) -> Imported | None:
    known = a.known(3) if a.has(3) else None
    if known is None or isinstance(known, Imported):
        return known
    if known.dtype != np.bool_:
        raise Unsupported("a mask of integers")
    seen = np.tril(known) if a.integer("is_causal", 0) == 1 and known.ndim > 1 else known
    if not seen.any(-1).all():
        raise Unsupported("a token that sees no other")
    added = np.where(known, 0.0, idioms.MASKED).astype(np.float32)
    return n.weight(f"{a.outputs[0]}.mask", added, fixed=True)


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
    return array if array.dtype.kind in "iub" else n.weight(a.outputs[0], array, fixed=True)


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
    "QuantizeLinear": Rule(onnx_quantized.quantize, ("nn.quantize",)),
    "DequantizeLinear": Rule(onnx_quantized.dequantize, ("nn.dequantize",)),
    "Conv": Rule(_conv, ("nn.conv2d", "nn.add")),
    "Gemm": Rule(_gemm, ("nn.matmul", "nn.add")),
    "MatMul": Rule(lambda n, a: n.matmul(a.tensor(n, 0), a.tensor(n, 1)), ("nn.matmul",)),
    "BatchNormalization": Rule(_batch_norm, ("nn.batch_norm",)),
    "LayerNormalization": Rule(_layer_norm, ("nn.layer_norm",)),
    "RMSNormalization": Rule(_rms_norm, ("nn.rms_norm",)),
    "Attention": Rule(
        _attention, ("nn.matmul", "nn.mul", "nn.add", "nn.select", "nn.softmax")
    ),
    "Gather": Rule(_gather, ("nn.gather", "nn.slice")),
    "Trilu": Rule(_trilu, ("nn.compare", "nn.select")),
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
