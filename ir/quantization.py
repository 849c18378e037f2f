"""Numbers of quantised arithmetic: codes of real arrays, and rescaling by integers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import i8
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.dialects.quantized_type import QuantizedType

Array = np.ndarray[Any, np.dtype[Any]]

MAX_SHIFT = 62
"""Of `nn.rescale`: the rounded product of 31 bits by 31 bits fits 63 bits."""
DEAD_SCALE = 1e-4
"""Of the median scale of a layer: below it a channel never had weights to speak of."""
FEWEST_SHIFT, SHIFT_STEP = 33, 8
"""Convolutions have few different shifts, so that they can share kernels: these many apart."""
SUM_BITS = 20
"""Bits of the multipliers of a sum of codes: two products with 9-bit differences fit 31 bits."""


@dataclass(frozen=True)
class Rescaling:
    """Real factors as integers: factor = multiplier / 2^shift."""

    multipliers: NDArray[np.int32]
    shift: int


def rescaling(factors: Sequence[float] | NDArray[np.float64], bits: int = 31) -> Rescaling:
    """Multipliers of `bits` bits with one shift for all `factors` (> 0), as exact as that allows.

    Raises VerifyException for a factor that is too great (2^30 or more).
    """
    exact = np.asarray(factors, np.float64)
    _, exponent = np.frexp(exact.max(initial=0.0))
    shift = min(bits - int(exponent), MAX_SHIFT)
    multipliers = np.rint(np.ldexp(exact, shift))
    if multipliers.max(initial=0.0) >= 2**bits:  # rounded up to the next power of two
        shift -= 1
        multipliers = np.rint(np.ldexp(exact, shift))
    if shift < 1:
        raise VerifyException(f"scales differ too much: a factor of {exact.max():g}")
    return Rescaling(multipliers.astype(np.int32), shift)


def convolution_rescaling(x: QuantizedType, w: QuantizedType, y: QuantizedType) -> Rescaling:
    """From the sums of a convolution to codes of `y`: s_x s_w[c] / s_y."""
    factors = x.scales.astype(np.float64) * w.scales.astype(np.float64) / y.scales
    exact = rescaling(factors)
    surplus = max(exact.shift - FEWEST_SHIFT, 0) % SHIFT_STEP
    return rescaling(factors, 31 - surplus) if surplus else exact


def sum_rescaling(a: QuantizedType, b: QuantizedType, y: QuantizedType) -> Rescaling:
    """From code differences of the two terms of a sum to codes of `y`: s_a / s_y and s_b / s_y."""
    scales = np.array([a.scales[0], b.scales[0]], np.float64)
    return rescaling(scales / y.scales[0].astype(np.float64), SUM_BITS)


def mean_rescaling(count: int) -> Rescaling:
    """From the sum of `count` codes to their mean."""
    return rescaling([1.0 / count])


def rescale(x: Array, multiplier: Array, shift: int, zero_point: int) -> Array:
    """`nn.rescale` of i32 arrays."""
    product = x.astype(np.int64) * multiplier.astype(np.int64)
    scaled = (product + (1 << (shift - 1))) >> shift
    return (np.clip(scaled, -(2**30), 2**30 - 1) + zero_point).astype(np.int32)


def to_codes(x: Array, element: QuantizedType) -> Array:
    """The codes of real numbers: rounded to even, clamped to the limits of the type."""
    exact = x.astype(np.float64) / element.broadcast_scales(x.ndim)
    low, high = element.limits
    dtype = np.int8 if element.storage == i8 else np.int32
    return np.clip(np.rint(exact) + element.zero_point, low, high).astype(dtype)


def from_codes(codes: Array, element: QuantizedType) -> Array:
    """The real numbers that `codes` stand for, f32."""
    differences = (codes.astype(np.int32) - np.int32(element.zero_point)).astype(np.float32)
    return differences * element.broadcast_scales(codes.ndim)


def ordinary_scales(scales: NDArray[np.float64]) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of the channels are dead, and `scales` where those have the median of the layer's."""
    median = np.median(scales[scales > 0]) if np.any(scales > 0) else 1 / 128
    dead = scales < DEAD_SCALE * median
    return dead, np.where(dead, median, scales)


def revive_dead_channels(
    weight: Array, bias: Array, w_scales: Array, x_scale: float
) -> tuple[Array, Array, Array]:
    """Filters, biases and scales where channels of vanishing scale have an ordinary one.

    A channel whose filter was all but zero when it was quantised has a scale near 0 and a bias
    near the limits of i32; an update divided by such a scale is without bound. Its filter becomes
    exactly 0, its scale the median of the layer's, and its bias keeps its real value.
    """
    scales = w_scales.astype(np.float64)
    dead, new_scales = ordinary_scales(scales)
    real_bias = bias.astype(np.float64) * scales * x_scale
    codes = np.where(dead, np.rint(real_bias / (new_scales * x_scale)), bias)
    limit = 2**30
    new_weight = np.where(dead.reshape(-1, 1, 1, 1), 0, weight).astype(np.int8)
    clipped = np.clip(codes, -limit, limit - 1).astype(np.int32)
    return new_weight, clipped, new_scales.astype(np.float32)
