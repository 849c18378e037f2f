"""exp, tanh and erf of vectors, to the last places."""

import math

import numpy as np
import pytest

from niwaki.backends.targets import get_target
from niwaki.ir.dialects import nn
from tests.backends.kernel_cases import values
from tests.backends.run_kernel import run_op

CASES = {
    "exp": (nn.ExpOp, math.exp, 1.0),
    "tanh": (nn.TanhOp, math.tanh, 1.5),
    "erf": (nn.ErfOp, math.erf, 2.5),
}


def compute(kind, x):
    padded = np.concatenate([x, np.zeros(-len(x) % 16, np.float32)])
    (y,) = run_op(kind.make(*values([len(padded)])), [padded], get_target("host"))
    return y[: len(x)]


@pytest.mark.parametrize("name", CASES)
def test_last_places(name):
    kind, exact, places = CASES[name]
    tiny = np.geomspace(1e-30, 10, 999)
    x = np.concatenate([np.linspace(-86, 88.7, 20001), np.linspace(-4, 4, 20001), tiny, -tiny])
    x = x.astype(np.float32)
    expected = np.array([exact(v) for v in x.tolist()])
    last = np.spacing(np.abs(expected.astype(np.float32))).astype(np.float64)
    assert np.max(np.abs(compute(kind, x) - expected) / last) <= places


@pytest.mark.parametrize(
    ("name", "x", "expected"),
    [
        ("exp", [0, -100, 88.73, 1000, np.inf, -np.inf, np.nan], [1, 0, *[np.inf] * 3, 0, np.nan]),
        ("tanh", [0, 50, -50, np.inf, -np.inf, np.nan], [0, 1, -1, 1, -1, np.nan]),
        ("erf", [0, 50, -50, np.inf, -np.inf, np.nan], [0, 1, -1, 1, -1, np.nan]),
    ],
)
def test_limits(name, x, expected):
    np.testing.assert_array_equal(compute(CASES[name][0], np.array(x, np.float32)), expected)
