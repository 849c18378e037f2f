"""Rescaling by integers against exact fractions, codes of real numbers, dead channels."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xdsl.dialects.builtin import i8, i32
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.quantization import (
    FEWEST_SHIFT,
    SHIFT_STEP,
    convolution_rescaling,
    from_codes,
    rescale,
    rescaling,
    revive_dead_channels,
    to_codes,
)

words = st.integers(-(2**31), 2**31 - 1)


@given(words, st.integers(0, 2**31 - 1), st.integers(1, 62), st.integers(-128, 127))
def test_rescale_rounds_half_up_exactly(x: int, multiplier: int, shift: int, zero: int) -> None:
    exact = floor(Fraction(x * multiplier, 2**shift) + Fraction(1, 2))
    saturated = min(max(exact, -(2**30)), 2**30 - 1)

    result = rescale(np.array([x], np.int32), np.array([multiplier], np.int32), shift, zero)

    assert result.tolist() == [saturated + zero]


@given(st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=5), st.sampled_from([20, 31]))
def test_the_largest_factor_keeps_all_bits(factors: list[float], bits: int) -> None:
    found = rescaling(factors, bits)

    exact = np.array(factors) * 2.0**found.shift
    assert np.all(np.abs(found.multipliers - exact) <= 0.5)
    assert found.shift == 62 or found.multipliers.max() >= 2 ** (bits - 1) - 1


@given(st.floats(1e-4, 0.2), st.floats(0.5, 1.0))
def test_convolutions_share_shifts(largest: float, other: float) -> None:
    x, y = QuantizedType.of(i8, 1.0), QuantizedType.of(i8, 1.0)
    w = QuantizedType.of(i8, [largest, largest * other], axis=0)

    found = convolution_rescaling(x, w, y)

    assert (found.shift - FEWEST_SHIFT) % SHIFT_STEP == 0
    exact = w.scales.astype(np.float64) * 2.0**found.shift
    assert np.all(np.abs(found.multipliers - exact) <= 0.5)
    assert found.multipliers[0] >= 2 ** (30 - SHIFT_STEP)


def test_a_factor_out_of_reach_is_refused() -> None:
    with pytest.raises(VerifyException, match="scales differ too much"):
        rescaling([2.0**31])


def test_codes_round_to_even_and_clamp() -> None:
    element = QuantizedType.of(i8, 0.5, 3)

    codes = to_codes(np.array([0.25, 0.75, -0.25, 100.0, -100.0], np.float32), element)

    assert codes.tolist() == [3, 5, 3, 127, -128]
    assert from_codes(codes[:2], element).tolist() == [0.0, 1.0]


def test_codes_of_channels_have_their_own_scales() -> None:
    element = QuantizedType.of(i32, [0.5, 2.0], axis=0)
    x = np.array([[1.0, 2.0], [4.0, 8.0]], np.float32)

    assert to_codes(x, element).tolist() == [[2, 4], [2, 4]]
    assert np.array_equal(from_codes(to_codes(x, element), element), x)


def test_dead_channels_get_an_ordinary_scale_and_keep_their_value() -> None:
    weight = np.ones((3, 1, 1, 2), np.int8)
    bias = np.array([10, -(2**31), 20], np.int32)
    scales = np.array([0.01, 4e-9, 0.03], np.float32)

    new_weight, new_bias, new_scales = revive_dead_channels(weight, bias, scales, 0.5)

    assert new_weight[:, 0, 0, 0].tolist() == [1, 0, 1]
    assert new_scales.tolist() == pytest.approx([0.01, 0.01, 0.03])
    assert new_bias[1] * 0.01 * 0.5 == pytest.approx(-(2**31) * 4e-9 * 0.5, abs=0.01 * 0.5)
    assert new_bias[[0, 2]].tolist() == [10, 20]
