"""Ranges of activations and scales of weights from numbers."""

from collections.abc import Iterator

import numpy as np
import pytest
from xdsl.dialects.builtin import i8

from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.quantization import from_codes, to_codes
from niwaki.passes.calibration import METHODS, Range, filter_element, ranges_of


def of(numbers: np.ndarray, method: str, batches: int = 4) -> Range:
    def observe() -> Iterator[list[np.ndarray]]:
        for part in np.split(numbers.astype(np.float32), batches):
            yield [part]

    (found,) = ranges_of(observe, method)
    return found


def error(numbers: np.ndarray, element: QuantizedType) -> float:
    real = from_codes(to_codes(numbers, element), element)
    return float(np.square(real - numbers).mean())


NORMAL = np.random.default_rng(0).standard_normal(40_000)


def test_min_max_covers_everything() -> None:
    found = of(NORMAL, "min_max")

    assert (found.low, found.high) == (
        pytest.approx(NORMAL.min(), rel=1e-6),
        pytest.approx(NORMAL.max(), rel=1e-6),
    )


def test_percentile_leaves_out_the_tails() -> None:
    """One number in ten thousand at each end, to within the width of a bin."""
    numbers = NORMAL.copy()
    numbers[:2] = 50, -30
    found = of(numbers, "percentile")
    low, high = np.percentile(numbers, [0.01, 99.99])

    width = 80 / 2048
    assert found.low == pytest.approx(low, abs=width)
    assert found.high == pytest.approx(high, abs=width)


def test_mse_has_the_least_error() -> None:
    """Of numbers whose tails are not worth their share of the codes."""
    numbers = np.random.default_rng(1).laplace(size=40_000)
    errors = {method: error(numbers, of(numbers, method).element()) for method in METHODS}

    assert errors["mse"] < 0.95 * errors["min_max"]
    assert errors["mse"] <= 1.01 * errors["percentile"]


@pytest.mark.parametrize("method", METHODS)
def test_positive_numbers_start_at_the_least_code(method: str) -> None:
    element = of(np.maximum(NORMAL, 0), method).element()

    assert element.zero_point == -128
    assert of(NORMAL + 9, method).low == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("value", [0.0, 1e-42])
def test_zeros_have_a_type(method: str, value: float) -> None:
    element = of(np.full(8, value), method).element()

    assert from_codes(to_codes(np.zeros(1), element), element) == 0


def test_zero_is_exact() -> None:
    for low, high in [(-1.0, 3.0), (-0.001, 5.0), (-7.3, 0.0), (-0.2, 0.1)]:
        element = Range(low, high).element()
        real = from_codes(to_codes(np.array([low, 0.0, high]), element), element)
        assert real[1] == 0
        assert np.abs(real - [low, 0, high]).max() <= 1.01 * element.scales[0]


def test_what_is_not_finite_shows() -> None:
    assert not np.isfinite(of(np.array([1.0, np.inf, 2, 3]), "mse").high)
    assert np.isnan(of(np.array([1.0, np.nan, 2, 3]), "percentile").high)


def test_weights_have_a_scale_per_output() -> None:
    weight = np.random.default_rng(2).standard_normal((3, 2, 2, 4)) * [[[[1]]], [[[10]]], [[[0.1]]]]
    element = filter_element(weight, 0, "min_max")

    largest = np.abs(weight).max(axis=(1, 2, 3))
    np.testing.assert_allclose(element.scales, largest / 127, rtol=1e-6)
    assert element == QuantizedType.of(i8, largest / 127, axis=0)
    other = filter_element(np.moveaxis(weight, 0, -1), 3, "min_max")
    np.testing.assert_array_equal(other.scales, element.scales)
    assert other.axis == 3


def test_mse_weights_have_less_error() -> None:
    weight = np.random.default_rng(3).laplace(size=(4, 1, 1, 500))
    errors = [error(weight, filter_element(weight, 0, m)) for m in ("mse", "min_max")]

    assert errors[0] < errors[1]


@pytest.mark.parametrize("method", METHODS)
def test_dead_channels_have_an_ordinary_scale(method: str) -> None:
    weight = np.ones((4, 3))
    weight[1], weight[2] = 0, 1e-9
    element = filter_element(weight, 0, method)

    assert len(set(element.scales.tolist())) == 1
    assert np.all(filter_element(np.zeros((2, 3)), 0, method).scales > 1e-3)
