"""Random small networks from plain specifications: [(kind of layer, number)], NHWC.

Together the kinds contain every operation that a frontend makes. A layer keeps the batch and
whatever its operation leaves of height, width and channels; what does not fit passes x on.
"""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.program import Program

Spec: TypeAlias = list[tuple[int, int]]
"""Kinds of layers (modulo what there is), each with a number that varies it."""

BATCH, CLASSES = 2, 3
_MOST_CHANNELS = 12


class Net:
    """Builds layers; weights are drawn in order."""

    def __init__(self) -> None:
        self.b = ProgramBuilder()
        self.random = np.random.default_rng(0)

    def weight(self, *shape: int, offset: float = 0.0) -> Value:
        array = self.random.standard_normal(shape).astype(np.float32) * np.float32(0.5)
        return self.b.weight(f"w{len(self.b.store)}", array + np.float32(offset))

    def conv(
        self,
        x: Value,
        channels: int,
        kernel: int,
        groups: int = 1,
        stride: int = 1,
        dilation: int = 1,
    ) -> Value:
        w = self.weight(channels, kernel, kernel, shape_of(x)[3] // groups)
        padding = kernel // 2 * dilation
        y = self.b.conv2d(x, w, stride, padding, dilation, groups)
        return self.b.add(y, self.weight(channels))

    def gate(self, x: Value) -> Value:
        """[N, 1, 1, C] out of the means of the channels."""
        n, _, _, c = shape_of(x)
        return self.b.reshape(
            self.b.sigmoid(self.b.dense(self.b.global_avg_pool(x), self.weight(c, c))), [n, 1, 1, c]
        )


def _conv(net: Net, x: Value, n: int) -> Value:
    return net.conv(x, 2 + n % 7, 1 + n % 3, stride=1 + n % 2)


def _dilated(net: Net, x: Value, n: int) -> Value:
    return net.conv(x, 1 + n % 5, 3, dilation=2)


def _depthwise(net: Net, x: Value, n: int) -> Value:
    return net.conv(x, shape_of(x)[3], 3, shape_of(x)[3], 1 + n % 2)


def _grouped(net: Net, x: Value, n: int) -> Value:
    return net.conv(net.b.concat([x, x], 3), 4, 3, groups=2, stride=1 + n % 2)


def _residual(net: Net, x: Value, n: int) -> Value:
    return net.b.add(x, net.b.relu6(net.conv(x, shape_of(x)[3], 3)))


def _squeeze_excite(net: Net, x: Value, n: int) -> Value:
    return net.b.mul(x, net.gate(x))


def _rectified(net: Net, x: Value, n: int) -> Value:
    b = net.b
    return [b.relu6, b.neg, b.relu, b.abs, lambda x: b.leaky_relu(x, 0.1)][n % 5](x)


def _smooth(net: Net, x: Value, n: int) -> Value:
    b = net.b
    return [b.sigmoid, b.tanh, b.silu, b.softplus, b.erf, b.gelu, lambda x: b.gelu(x, "tanh")][
        n % 7
    ](x)


def _hard(net: Net, x: Value, n: int) -> Value:
    return [net.b.hard_sigmoid, net.b.hard_swish][n % 2](x)


def _powers(net: Net, x: Value, n: int) -> Value:
    b = net.b
    positive = b.add(b.mul(x, x), b.number(0.5, x))
    root = [b.sqrt, b.rsqrt, b.log, lambda v: b.exp(b.neg(v))][n % 4](positive)
    return b.div(root, b.add(positive, net.weight(shape_of(x)[3], offset=2.0)))


def _bounds(net: Net, x: Value, n: int) -> Value:
    b, c = net.b, shape_of(x)[3]
    return b.max(b.min(x, net.weight(c, offset=1.0)), b.sub(net.weight(c), b.number(1.0, x)))


def _masks(net: Net, x: Value, n: int) -> Value:
    b = net.b
    predicate = ["lt", "le", "gt", "ge"][n % 4]
    small = b.compare(x, b.number(0.75, x), predicate)
    both = b.logical_and(small, b.compare(x, b.number(-0.5, x), "gt"))
    return b.add(b.select(both, b.scale(x, 2.0), b.scale(x, 0.5)), b.cast(small))


def _norm(net: Net, x: Value, training: bool) -> Value:
    c = shape_of(x)[3]
    gamma, beta, mean = net.weight(c, offset=1.0), net.weight(c), net.weight(c)
    var = net.weight(c, offset=4.0)
    return net.b.batch_norm(x, gamma, beta, mean, var, training=training)


def _trained_norm(net: Net, x: Value, n: int) -> Value:
    return _norm(net, x, training=True)


def _frozen_norm(net: Net, x: Value, n: int) -> Value:
    return _norm(net, x, training=False)


def _max_pool(net: Net, x: Value, n: int) -> Value:
    if min(shape_of(x)[1:3]) < 2:
        return x
    return net.b.max_pool2d(x, 2 + n % 2, 1 + n % 2, n % 2)


def _avg_pool(net: Net, x: Value, n: int) -> Value:
    if min(shape_of(x)[1:3]) < 2:
        return x
    return net.b.avg_pool2d(x, 2, 1 + n % 2, n % 2, n % 3 == 0)


def _dropout(net: Net, x: Value, n: int) -> Value:
    return net.b.dropout(x, 0.25, n)


def _concat(net: Net, x: Value, n: int) -> Value:
    axis = 1 + n % 3
    return net.b.concat([x, net.b.tanh(x)], axis) if shape_of(x)[axis] < _MOST_CHANNELS else x


def _pad(net: Net, x: Value, n: int) -> Value:
    shape = shape_of(x)
    padded = net.b.pad(x, [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, n % 2, 0], value=0.25)
    return net.b.slice(padded, [0, 1, 0, 0], shape)


def _slice(net: Net, x: Value, n: int) -> Value:
    batch, height, width, channels = shape_of(x)
    step = 1 + n % 2
    kept = (width + step - 1) // step
    start = min(n % 3, channels - 1)
    return net.b.slice(
        x, [0, 0, 0, start], [batch, height, kept, channels - start], [1, 1, step, 1]
    )


def _transpose(net: Net, x: Value, n: int) -> Value:
    order = [[0, 2, 1, 3], [0, 3, 1, 2], [0, 2, 3, 1]][n % 3]
    return net.b.transpose(x, order) if shape_of(x)[order[3]] <= _MOST_CHANNELS else x


def _softmax(net: Net, x: Value, n: int) -> Value:
    kind = [net.b.softmax, net.b.log_softmax][n % 2]
    return kind(x, 1 + n % 3)


def _reductions(net: Net, x: Value, n: int) -> Value:
    b = net.b
    axes = [[3], [1, 2], [1], [0, 1, 2]][n % 4]
    reduced = [b.reduce_max, b.reduce_mean, b.reduce_sum][n % 3](x, axes)
    return b.sub(x, b.scale(b.broadcast(reduced, shape_of(x)), 0.1))


def _attention(net: Net, x: Value, n: int) -> Value:
    """All positions look at each other."""
    b, shape = net.b, shape_of(x)
    rows = b.reshape(x, [shape[0] * shape[1] * shape[2], shape[3]])
    weights = b.softmax(b.scale(b.matmul(rows, rows, transpose_b=True), 0.3))
    return b.reshape(b.matmul(weights, rows), shape)


def _scale(net: Net, x: Value, n: int) -> Value:
    return net.b.mul(x, net.weight(shape_of(x)[3], offset=1.0))


LAYERS: tuple[Callable[[Net, Value, int], Value], ...] = (
    _conv, _dilated, _depthwise, _grouped, _residual, _squeeze_excite, _rectified, _smooth, _hard,
    _powers, _bounds, _masks, _trained_norm, _frozen_norm, _max_pool, _avg_pool, _dropout, _concat,
    _pad, _slice, _transpose, _softmax, _reductions, _attention, _scale,
)  # fmt: skip

VARIED = tuple(LAYERS.index(f) for f in (_rectified, _smooth, _powers, _masks))
"""Kinds that choose among many operations by their number."""

SPECS = st.lists(st.tuples(st.integers(0, len(LAYERS) - 1), st.integers(0, 11)), max_size=6)


def build(spec: Spec) -> Program:
    """A convolution, the layers of `spec`, global pooling and a dense head: [2, 6, 5, 3] in."""
    net = Net()
    x = _conv(net, net.b.input([BATCH, 6, 5, 3]), 4)
    for kind, number in spec:
        x = LAYERS[kind % len(LAYERS)](net, x, number)
    features = net.b.global_avg_pool(x)
    w = net.weight(CLASSES, shape_of(features)[1])
    return net.b.finish(net.b.dense(features, w, net.weight(CLASSES)))


def inputs(loss: str) -> tuple[NDArray[np.float32], NDArray[np.generic]]:
    """Images, and the target that `loss` takes."""
    random = np.random.default_rng(1)
    x = random.standard_normal((BATCH, 6, 5, 3)).astype(np.float32)
    if loss == "cross_entropy":
        return x, random.integers(0, CLASSES, BATCH).astype(np.int32)
    return x, random.random((BATCH, CLASSES)).astype(np.float32)
