"""Winograd's minimal filtering F(m, r): m outputs of r taps by m + r - 1 products.

The inputs and the filter are polynomials that are multiplied by their values at n = m + r - 1
points: 0, pairs of +p and -p, and infinity (Toom-Cook; Lavin and Gray, "Fast algorithms for
convolutional neural networks", 2015). Pairs share their even and odd parts.

Rounding grows with the number of points and their distance from 1. The largest error of outputs of
64 channels of normal numbers in f32, relative to each one's sum of |x| |w|, zero padding included:
F(2x2, 3x3) 2e-7; F(4x4, 3x3) 8e-7 with the pairs 5/8 and 3/2, which (like their squares) are exact,
instead of 3e-6 with the usual 1 and 2; F(3x3, 4x4) 2e-7.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import f32

from niwaki.backends.kernels.builder import KernelBuilder, Value

Grid = list[list[Value]]
"""[row][column]."""

_PAIRS: dict[int, tuple[float, ...]] = {4: (1.0,), 6: (0.625, 1.5)}
"""Points -> those that are neither 0 nor infinity, without their negatives."""


@dataclass(frozen=True)
class Filtering:
    """F(m, r) in two dimensions; points are in the order 0, +p, -p, ..., infinity."""

    outputs: int
    """m, in each dimension."""
    taps: int
    """r, in each dimension."""

    @property
    def points(self) -> int:
        """Products in each dimension, and inputs that a tile reads."""
        return self.outputs + self.taps - 1

    @property
    def planes(self) -> int:
        """Products of a tile."""
        return self.points**2

    def of_inputs(self, k: KernelBuilder, tile: Grid) -> Grid:
        """The values of points x points inputs."""
        return _in_two_dimensions(lambda line: self._inputs(k, line), tile)

    def of_filter(self, k: KernelBuilder, tile: Grid) -> Grid:
        """The values of taps x taps weights."""
        return _in_two_dimensions(lambda line: self._filter(k, line), tile)

    def to_outputs(self, k: KernelBuilder, products: Grid) -> Grid:
        """outputs x outputs sums from points x points products."""
        return _in_two_dimensions(lambda line: self._outputs(k, line), products)

    @property
    def _pairs(self) -> tuple[float, ...]:
        return _PAIRS[self.points]

    def _inputs(self, k: KernelBuilder, d: Sequence[Value]) -> list[Value]:
        """For each point, the product of x - y over the other points y, as weights of `d`."""
        squares = [p * p for p in self._pairs]
        all_pairs = _product_of(squares)
        result = [_weighted(k, all_pairs, d[0::2])]
        for p, square in zip(self._pairs, squares, strict=True):
            others = _product_of([s for s in squares if s != square])
            even = _weighted(k, others, d[2::2])
            odd = _weighted(k, others, d[1:-1:2])
            result += [_add_multiple(k, p, odd, even), _add_multiple(k, -p, odd, even)]
        return [*result, _weighted(k, all_pairs, d[1::2])]

    def _filter(self, k: KernelBuilder, g: Sequence[Value]) -> list[Value]:
        """The value of the polynomial `g` at each point, over the product of x - y."""
        squares = [p * p for p in self._pairs]
        result = [_weighted(k, [1 / prod(-s for s in squares)], g[:1])]
        for p, square in zip(self._pairs, squares, strict=True):
            distance = 2 * square * prod(square - s for s in squares if s != square)
            factors = [p**j / distance for j in range(len(g))]
            even, odd = (_weighted(k, factors[i::2], g[i::2]) for i in (0, 1))
            result += [k.add(even, odd), k.sub(even, odd)]
        return [*result, g[-1]]

    def _outputs(self, k: KernelBuilder, m: Sequence[Value]) -> list[Value]:
        """Output i: the sum of the products times the i-th power of their points."""
        first, *pairs, last = m
        sums = [k.add(a, b) for a, b in zip(pairs[0::2], pairs[1::2], strict=True)]
        differences = [k.sub(a, b) for a, b in zip(pairs[0::2], pairs[1::2], strict=True)]
        result = [
            _weighted(k, [p**i for p in self._pairs], differences if i % 2 else sums)
            for i in range(self.outputs)
        ]
        result[0] = k.add(result[0], first)
        result[-1] = k.add(result[-1], last)
        return result


def _in_two_dimensions(line: Callable[[Sequence[Value]], list[Value]], tile: Grid) -> Grid:
    columns = [line(column) for column in zip(*tile, strict=True)]
    return [line(row) for row in zip(*columns, strict=True)]


def _product_of(squares: Sequence[float]) -> list[float]:
    """The coefficients of the product of (z - s) over `squares`, the constant first."""
    result = [1.0]
    for s in squares:
        result = [a - s * b for a, b in zip([0.0, *result], [*result, 0.0], strict=True)]
    return result


def _weighted(k: KernelBuilder, factors: Sequence[float], values: Sequence[Value]) -> Value:
    """The sum of factor * value, from the last one on."""
    *others, (factor, value) = zip(factors, values, strict=True)
    total = value
    if factor != 1:
        total = k.mul(value, k.constant(factor, f32, k.lanes(value)))
    for factor, value in reversed(others):
        total = _add_multiple(k, factor, value, total)
    return total


def _add_multiple(k: KernelBuilder, factor: float, value: Value, total: Value) -> Value:
    if factor == 1:
        return k.add(total, value)
    if factor == -1:
        return k.sub(total, value)
    return k.fma(value, k.constant(factor, f32, k.lanes(value)), total)
