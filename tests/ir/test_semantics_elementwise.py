"""Elementwise operations against torch."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from niwaki.ir.builder import Builder, Value
from tests.evaluate import evaluate

UNARY: dict[str, tuple[Callable[[Builder, Value], Value], Callable[..., torch.Tensor]]] = {
    "neg": (lambda b, x: b.neg(x), torch.neg),
    "abs": (lambda b, x: b.abs(x), torch.abs),
    "exp": (lambda b, x: b.exp(x), torch.exp),
    "erf": (lambda b, x: b.erf(x), torch.erf),
    "relu": (lambda b, x: b.relu(x), torch.relu),
    "relu6": (lambda b, x: b.relu6(x), torch.nn.functional.relu6),
    "leaky_relu": (
        lambda b, x: b.leaky_relu(x, 0.125),
        lambda x: torch.nn.functional.leaky_relu(x, 0.125),
    ),
    "sigmoid": (lambda b, x: b.sigmoid(x), torch.sigmoid),
    "tanh": (lambda b, x: b.tanh(x), torch.tanh),
    "hard_sigmoid": (lambda b, x: b.hard_sigmoid(x), torch.nn.functional.hardsigmoid),
    "hard_swish": (lambda b, x: b.hard_swish(x), torch.nn.functional.hardswish),
    "silu": (lambda b, x: b.silu(x), torch.nn.functional.silu),
    "softplus": (lambda b, x: b.softplus(x), lambda x: torch.logaddexp(x, torch.zeros_like(x))),
    "gelu": (lambda b, x: b.gelu(x), torch.nn.functional.gelu),
    "gelu_tanh": (
        lambda b, x: b.gelu(x, "tanh"),
        lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    ),
}
POSITIVE: dict[str, tuple[Callable[[Builder, Value], Value], Callable[..., torch.Tensor]]] = {
    "log": (lambda b, x: b.log(x), torch.log),
    "sqrt": (lambda b, x: b.sqrt(x), torch.sqrt),
    "rsqrt": (lambda b, x: b.rsqrt(x), torch.rsqrt),
}
BINARY: dict[str, tuple[Callable[[Builder, Value, Value], Value], Callable[..., torch.Tensor]]] = {
    "add": (lambda b, x, y: b.add(x, y), torch.add),
    "sub": (lambda b, x, y: b.sub(x, y), torch.sub),
    "mul": (lambda b, x, y: b.mul(x, y), torch.mul),
    "div": (lambda b, x, y: b.div(x, y), torch.div),
    "max": (lambda b, x, y: b.max(x, y), torch.maximum),
    "min": (lambda b, x, y: b.min(x, y), torch.minimum),
}
# Absolute and relative: a few units in the last place of each dtype.
TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}
DTYPES = [np.float32, np.float64]
SHAPES = [(), (1,), (2, 3, 1, 5)]


def _samples(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    values = np.random.default_rng(7).normal(scale=4, size=shape).astype(dtype)
    # The kinks of the activations, where they fit.
    corners = np.array([0, -3, 3, 6, -100, 80], dtype)[: values.size]
    if values.size > len(corners):
        values.reshape(-1)[: len(corners)] = corners
    return values


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [*UNARY, *POSITIVE])
def test_unary(name: str, dtype: type, shape: tuple[int, ...]):
    build, expected = UNARY[name] if name in UNARY else POSITIVE[name]
    x = _samples(shape, dtype) if name in UNARY else np.abs(_samples(shape, dtype)) + dtype(0.01)
    y = evaluate(build, x)
    assert y.dtype == dtype
    tolerance = TOLERANCE[dtype]
    np.testing.assert_allclose(y, expected(torch.tensor(x)), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "shapes", [((), ()), ((2, 3), (2, 3)), ((2, 1, 4), (3, 1)), ((4,), (2, 3, 4)), ((1,), ())]
)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", BINARY)
def test_binary_broadcasts(name: str, dtype: type, shapes: tuple[tuple[int, ...], ...]):
    build, expected = BINARY[name]
    a, b = _samples(shapes[0], dtype), _samples(shapes[1], dtype) + dtype(0.25)
    y = evaluate(build, a, b)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected(torch.tensor(a), torch.tensor(b)))


@pytest.mark.parametrize("predicate", ["gt", "ge", "lt", "le", "eq"])
def test_compare(predicate: str):
    a = np.array([[1, 2, 3]], np.float32)
    b = np.array([[2], [3]], np.float32)
    y = evaluate(lambda f, p, q: f.compare(p, q, predicate), a, b)
    assert y.dtype == np.bool_
    np.testing.assert_array_equal(y, getattr(torch, predicate)(torch.tensor(a), torch.tensor(b)))


def test_and():
    a, b = np.array([True, True, False, False]), np.array([True, False, True, False])
    np.testing.assert_array_equal(evaluate(lambda f, p, q: f.logical_and(p, q), a, b), a & b)


def test_select_broadcasts():
    mask = np.array([[True], [False]])
    a, b = np.arange(3, dtype=np.float64), np.array(9.0)
    y = evaluate(lambda f, *values: f.select(*values), mask, a, b)
    np.testing.assert_array_equal(y, [[0, 1, 2], [9, 9, 9]])
    assert y.dtype == np.float64


@pytest.mark.parametrize("x", [np.array([True, False]), np.array([-3, 7], np.int32)])
def test_cast(x: np.ndarray):
    y = evaluate(lambda f, v: f.cast(v), x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, x.astype(np.float32))


def test_integers_stay_integers_and_divide_towards_zero():
    a, b = np.array([7, -7], np.int32), np.array(2, np.int32)
    y = evaluate(lambda f, p, q: f.div(p, q), a, b)
    assert y.dtype == np.int32
    np.testing.assert_array_equal(y, [3, -3])


def test_ieee_754_without_warnings():
    x = np.array([-1000, 1000, np.inf, -np.inf], np.float32)
    np.testing.assert_array_equal(evaluate(lambda f, v: f.sigmoid(v), x), [0, 1, 1, 0])
    np.testing.assert_array_equal(evaluate(lambda f, v: f.softplus(v), x), [0, 1000, np.inf, 0])
    assert np.isnan(evaluate(lambda f, v: f.relu(v), np.array(np.nan, np.float32)))
