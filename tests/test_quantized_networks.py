"""The shared networks: split in two they are the same, and in real numbers nearly."""

from typing import Any

import numpy as np
import pytest

from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from tests.quantized_networks import NETWORKS, find_data, layers, load, load_float

RESOLUTION = 32

Array = np.ndarray[Any, np.dtype[Any]]

pytestmark = pytest.mark.skipif(
    find_data(f"{NETWORKS[0]}-int8.npz") is None, reason="the shared data is absent"
)


def _images() -> Array:
    rng = np.random.default_rng(0)
    coarse = rng.integers(-128, 128, (1, RESOLUTION // 4, RESOLUTION // 4, 3))
    return coarse.repeat(4, axis=1).repeat(4, axis=2).astype(np.int8)


def _forward(program: Program, x: Array) -> Array:
    return np.asarray(run(program, "forward", [x])[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_split_network_computes_the_same(name: str) -> None:
    whole = _forward(load(name, 10, 1, RESOLUTION), _images())

    middle = _forward(load(name, 10, 1, RESOLUTION, stop="B8"), _images())

    np.testing.assert_array_equal(
        _forward(load(name, 10, 1, RESOLUTION, first="B8"), middle), whole
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_the_float_network_is_close(name: str) -> None:
    codes = _forward(load(name, 10, 1, RESOLUTION), _images())
    pixels = _images() * np.float32(1 / 127.5)
    numbers = _forward(load_float(name, 10, 1, RESOLUTION), pixels)
    split = _forward(load_float(name, 10, 1, RESOLUTION, stop="B8"), pixels)

    assert np.corrcoef(codes.ravel(), numbers.ravel())[0, 1] > 0.9
    np.testing.assert_allclose(
        _forward(load_float(name, 10, 1, RESOLUTION, first="B8"), split), numbers, rtol=1e-5
    )


@pytest.mark.parametrize(("name", "count"), [("mcunet-5fps", 43), ("mbv2-w0.35", 52)])
def test_layers_are_counted_without_additions(name: str, count: int) -> None:
    names = layers(name)

    assert (len(names), names[0], names[-1]) == (count, "stem", "fc")
