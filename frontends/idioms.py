"""Operations of model files that are a few `nn` operations, the same for every frontend."""

import math
from collections.abc import Sequence
from functools import partial

from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import Imported, NchwBuilder, as_f32


def clamp(n: NchwBuilder, x: Imported, low: float, high: float) -> Imported:
    """min(max(x, low), high); infinite bounds do nothing."""
    if (low, high) == (0.0, math.inf):
        return n.elementwise(n.b.relu, x)
    if (low, high) == (0.0, 6.0):
        return n.elementwise(n.b.relu6, x)
    if low != -math.inf:
        x = n.elementwise(n.b.max, x, n.scalar(low, x))
    if high != math.inf:
        x = n.elementwise(n.b.min, x, n.scalar(high, x))
    return x


def power(n: NchwBuilder, x: Imported, exponent: float) -> Imported:
    """x to the power of 2, 3, 1/2, 1, -1/2 or -1."""
    match exponent:
        case 1.0:
            return x
        case 2.0:
            return n.elementwise(n.b.mul, x, x)
        case 3.0:
            return n.elementwise(n.b.mul, n.elementwise(n.b.mul, x, x), x)
        case 0.5:
            return n.elementwise(n.b.sqrt, x)
        case -0.5:
            return n.elementwise(n.b.rsqrt, x)
        case -1.0:
            return n.elementwise(n.b.div, n.scalar(1.0, x), x)
        case _:
            raise Unsupported(f"exponent {exponent}; known are 2, 3, 0.5, 1, -0.5, -1")


def scaled(n: NchwBuilder, x: Imported, factor: float) -> Imported:
    """factor * x."""
    return x if factor == 1.0 else n.elementwise(n.b.mul, x, n.scalar(factor, x))


def hard_sigmoid(n: NchwBuilder, x: Imported, alpha: float, beta: float) -> Imported:
    """clip(alpha * x + beta, 0, 1)."""
    if (as_f32(alpha), as_f32(beta)) == (as_f32(1 / 6), 0.5):
        return n.elementwise(n.b.hard_sigmoid, x)
    line = n.elementwise(n.b.add, scaled(n, x, alpha), n.scalar(beta))
    return clamp(n, line, 0.0, 1.0)


def leaky_relu(n: NchwBuilder, x: Imported, slope: float) -> Imported:
    """x where positive, else slope * x."""
    return n.elementwise(partial(n.b.leaky_relu, slope=as_f32(slope)), x)


def gelu(n: NchwBuilder, x: Imported, approximate: str) -> Imported:
    """x * Phi(x)."""
    return n.elementwise(partial(n.b.gelu, approximate=approximate), x)


def max_pool2d(
    n: NchwBuilder,
    x: Imported,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    ceil_mode: bool,
) -> Imported:
    """Max pooling; rounding the output up is padding at the end, which no maximum sees."""
    if any(d != 1 for d in dilation):
        raise Unsupported(f"dilation {list(dilation)}")
    if ceil_mode:
        padding = n.ceil_padding(x.shape[2:], kernel, strides, padding)
    return n.max_pool2d(x, kernel, strides, padding)


def avg_pool2d(
    n: NchwBuilder,
    x: Imported,
    kernel: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
) -> Imported:
    """Average pooling; rounding the output up where the extra border is not counted."""
    grown = n.ceil_padding(x.shape[2:], kernel, strides, padding) if ceil_mode else padding
    if list(grown) != list(padding) and count_include_pad:
        # The border by `padding` counts, the one by rounding does not: two kinds of padding.
        if any(padding):
            raise Unsupported("ceil_mode with padding that counts")
        count_include_pad = False
    return n.avg_pool2d(x, kernel, strides, grown, count_include_pad)


def negative_log_likelihood(n: NchwBuilder, x: Imported, labels: Imported) -> Imported:
    """-mean of x [N, C] at the labels [N]."""
    if len(x.shape) != 2:
        raise Unsupported(f"input of rank {len(x.shape)}; only [N, C]")
    chosen = n.elementwise(n.b.mul, n.one_hot(labels, x.shape[1]), x)
    total = n.reduce(n.b.reduce_sum, chosen, [0, 1], keep=False)
    return scaled(n, total, -1.0 / x.shape[0])
