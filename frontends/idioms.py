"""Operations of model files that are a few `nn` operations, the same for every frontend."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
from xdsl.dialects.builtin import i1

from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import Imported, NchwBuilder, as_f32

MASKED = -1e9
"""Added to the scores of tokens that must not be seen: no weight is left of them."""


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


def embedding(n: NchwBuilder, table: Imported, indices: Imported, padding: int | None) -> Imported:
    """Rows of `table`; those at the index `padding` never change."""
    if padding is None:
        return n.gather(table, indices)
    is_padding = partial(n.b.compare, predicate="eq")
    number = n.scalar(padding, indices)
    # An index outside the table reads zeros and leads no gradient anywhere.
    outside = n.select(n.elementwise(is_padding, indices, number), n.scalar(-1, indices), indices)
    rows = n.gather(table, outside)
    weight = table.tensor.weight
    if weight is None or table.array is None:
        raise Unsupported("padding in a table that is computed")
    row = table.array[padding].copy()
    if not row.any():
        return rows
    kept = n.table(f"{weight.name}.padding", lambda: row)
    at = n.elementwise(is_padding, n.unsqueeze(indices, [len(indices.shape)]), number)
    return n.elementwise(n.b.add, rows, n.select(at, kept, n.full(0.0, kept.shape)))


def attention(
    n: NchwBuilder,
    query: Imported,
    key: Imported,
    value: Imported,
    mask: Imported | None,
    causal: bool,
    scale: float | None,
    dropout: float,
) -> Imported:
    """softmax(query @ key transposed * scale + mask) @ value (Vaswani et al. 2017).

    [..., tokens, size of a head]; fewer heads of keys and values (dimension -3) serve several of
    queries each. `scale`: default 1 / sqrt(size). `mask`: added, or bits of what may be seen;
    `causal`: each token sees itself and those before it.
    """
    heads = query.shape[-3] if len(query.shape) > 2 else 1
    key, value = (_shared_heads(n, x, heads) for x in (key, value))
    rank = len(key.shape)
    turned = n.transpose(key, [*range(rank - 2), rank - 1, rank - 2])
    factor = 1 / math.sqrt(query.shape[rank - 1]) if scale is None else scale
    scores = scaled(n, n.matmul(query, turned), as_f32(factor))
    if causal:
        rows, columns = scores.shape[-2:]
        later = n.table(
            f"causal_mask.{rows}.{columns}",
            lambda: np.triu(np.full((rows, columns), MASKED, np.float32), 1),
        )
        scores = n.elementwise(n.b.add, scores, later)
    if mask is not None and n.element(mask) == i1:
        scores = n.select(mask, scores, n.scalar(MASKED))
    elif mask is not None:
        scores = n.elementwise(n.b.add, scores, mask)
    weights = n.along(n.b.softmax, scores, -1)
    return n.matmul(n.dropout(weights, dropout), value)


def _shared_heads(n: NchwBuilder, x: Imported, heads: int) -> Imported:
    """x with as many heads as the queries have, each repeated for its group."""
    if len(x.shape) < 3 or heads == 1 or x.shape[-3] in (1, heads):
        return x
    *outer, own, rows, columns = x.shape
    if heads % own:
        raise Unsupported(f"{heads} heads of queries, {own} of keys")
    grouped = n.unsqueeze(x, [len(outer) + 1])
    repeated = n.expand(grouped, [*outer, own, heads // own, rows, columns])
    return n.reshape(repeated, [*outer, heads, rows, columns])


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
