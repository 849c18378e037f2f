"""Element types of codes from the numbers that they are to stand for.

Ranges of activations: least and greatest, percentiles, or those of least mean squared error
(Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3.1). Percentiles and
errors come from histograms: the data is seen twice and never kept.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import i8

from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.quantization import ordinary_scales

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]
Floats: TypeAlias = NDArray[np.floating[Any]]

METHODS = ("min_max", "percentile", "mse")
"""How ranges are chosen."""

PERCENTILE = 99.99
"""Of the numbers at or below the end of the range; as many at or above its start."""
BINS = 2048
_FACTORS = np.linspace(0.2, 1.0, 81)
"""Of the whole range: what the search for the least error tries."""
_LEVELS = 127


@dataclass(frozen=True)
class Range:
    """Numbers from `low` <= 0 to `high` >= 0."""

    low: float
    high: float

    def element(self) -> QuantizedType:
        """i8 codes for the range; 0 is exact."""
        scale = (self.high - self.low) / 255
        if scale < float(np.finfo(np.float32).tiny):
            return QuantizedType.of(i8, 1.0)
        zero_point = int(np.clip(np.rint(-128 - self.low / scale), -128, 127))
        return QuantizedType.of(i8, scale, zero_point)


@dataclass
class Histogram:
    """How often numbers of a range were seen."""

    range: Range
    counts: NDArray[np.int64]

    @classmethod
    def empty(cls, range: Range) -> "Histogram":
        """Nothing was seen yet."""
        return cls(range, np.zeros(BINS, np.int64))

    def add(self, numbers: Array) -> None:
        """Counts `numbers`, all within the range."""
        ends = (self.range.low, self.range.high)
        if ends[0] < ends[1]:
            self.counts += np.histogram(numbers.astype(np.float64), BINS, ends)[0]

    def percentile(self) -> Range:
        """Without the tails beyond PERCENTILE."""
        if not self.counts.any():
            return self.range
        seen = np.cumsum(self.counts) / self.counts.sum()
        tail = 1 - PERCENTILE / 100
        edges = np.linspace(self.range.low, self.range.high, BINS + 1)
        low = edges[int(np.searchsorted(seen, tail, "right"))]
        high = edges[int(np.searchsorted(seen, 1 - tail)) + 1]
        return Range(min(float(low), 0.0), max(float(high), 0.0))

    def least_error(self) -> Range:
        """Of least squared error, each end searched in turn, twice."""
        width = (self.range.high - self.range.low) / BINS
        centres = self.range.low + width * (np.arange(BINS) + 0.5)
        best = self.range
        for _ in range(2):
            highs = [Range(best.low, f * self.range.high) for f in _FACTORS]
            best = min(highs, key=lambda r: self._error(centres, r))
            lows = [Range(f * self.range.low, best.high) for f in _FACTORS]
            best = min(lows, key=lambda r: self._error(centres, r))
        return best

    def _error(self, centres: Floats, candidate: Range) -> float:
        element = candidate.element()
        scale, zero_point = float(element.scales[0]), element.zero_point
        codes = np.clip(np.rint(centres / scale) + zero_point, -128, 127)
        return float(self.counts @ (scale * (codes - zero_point) - centres) ** 2)


_RANGES: dict[str, Callable[[Histogram], Range]] = {
    "percentile": Histogram.percentile,
    "mse": Histogram.least_error,
}


def ranges_of(observe: Callable[[], Iterable[list[Array]]], method: str) -> list[Range]:
    """The range of each observed tensor.

    `observe` gives, anew each time it is called, for each batch the same tensors. A range is not
    finite where the numbers are not.
    """
    wholes = _extremes(observe())
    if method == "min_max" or not all(np.isfinite([r.low, r.high]).all() for r in wholes):
        return wholes
    histograms = [Histogram.empty(r) for r in wholes]
    for tensors in observe():
        for histogram, numbers in zip(histograms, tensors, strict=True):
            histogram.add(numbers)
    return [_RANGES[method](h) for h in histograms]


def _extremes(batches: Iterable[list[Array]]) -> list[Range]:
    ends = [
        [(min(float(t.min()), 0.0), max(float(t.max()), 0.0)) for t in tensors]
        for tensors in batches
    ]
    stacked = np.array(ends)
    lows, highs = stacked[..., 0].min(axis=0), stacked[..., 1].max(axis=0)
    return [Range(float(low), float(high)) for low, high in zip(lows, highs, strict=True)]


def filter_element(weight: Array, axis: int, method: str) -> QuantizedType:
    """Symmetric i8 codes, a scale per index of `axis`; "mse": those of least squared error.

    A channel of zeros gets an ordinary scale: updates are divided by it.
    """
    rows = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1).astype(np.float64)
    scales = np.abs(rows).max(axis=1) / _LEVELS
    if method == "mse":
        scales = _least_error_scales(rows, scales)
    _, scales = ordinary_scales(scales)
    return QuantizedType.of(i8, scales, axis=axis)


def _least_error_scales(
    rows: NDArray[np.float64], whole: NDArray[np.float64]
) -> NDArray[np.float64]:
    positive = np.where(whole > 0, whole, 1.0)

    def errors(factor: float) -> Floats:
        scales = (positive * factor)[:, None]
        codes = np.clip(np.rint(rows / scales), -_LEVELS - 1, _LEVELS)
        return ((scales * codes - rows) ** 2).sum(axis=1)

    best = np.argmin([errors(f) for f in _FACTORS], axis=0)
    return whole * _FACTORS[best]
