"""Constants, reductions and moves of elements."""

import numpy as np
import pytest
import torch
from xdsl.dialects.builtin import f64
from xdsl.ir import Attribute

from niwaki.ir.dialects.tensor_op import f32, i32
from tests.evaluate import evaluate

X = np.random.default_rng(2).normal(size=(2, 3, 4))


@pytest.mark.parametrize(("element", "dtype"), [(f32, "f4"), (f64, "f8"), (i32, "i4")])
def test_constant(element: Attribute, dtype: str):
    y = evaluate(lambda b: b.constant(3, (2, 1), element))
    np.testing.assert_array_equal(y, [[3], [3]])
    assert y.dtype == np.dtype(dtype)


@pytest.mark.parametrize("axes", [(), (0,), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions(dtype: type, axes: tuple[int, ...]):
    x = X.astype(dtype)
    tolerance = 1e-6 if dtype is np.float32 else 1e-15
    results = {
        "sum": evaluate(lambda b, v: b.reduce_sum(v, axes), x),
        "mean": evaluate(lambda b, v: b.reduce_mean(v, axes), x),
        "amax": evaluate(lambda b, v: b.reduce_max(v, axes), x),
    }
    for name, y in results.items():
        # torch takes an empty list of dimensions for all of them.
        expected = getattr(torch, name)(torch.tensor(x), axes, keepdim=True) if axes else x
        assert y.dtype == dtype
        np.testing.assert_allclose(y, expected, rtol=tolerance, atol=tolerance)


def test_a_long_float32_sum_is_rounded_once():
    x = np.full((100_000, 1), 0.1, np.float32)
    y = evaluate(lambda b, v: b.reduce_sum(v, [0]), x)
    assert y.item() == np.float32(100_000 * float(np.float32(0.1)))


def test_integer_sums_stay_i32():
    y = evaluate(lambda b, v: b.reduce_sum(v, [0]), np.array([1, 2, 3], np.int32))
    assert y.dtype == np.int32
    assert y.item() == 6


def test_moves():
    np.testing.assert_array_equal(
        evaluate(lambda b, v: b.reshape(v, [4, 6]), X), torch.tensor(X).reshape(4, 6)
    )
    np.testing.assert_array_equal(
        evaluate(lambda b, v: b.transpose(v, [2, 0, 1]), X), torch.tensor(X).permute(2, 0, 1)
    )
    np.testing.assert_array_equal(
        evaluate(lambda b, v: b.broadcast(v, [5, 2, 3, 4]), X), torch.tensor(X).expand(5, 2, 3, 4)
    )
    np.testing.assert_array_equal(
        evaluate(lambda b, v: b.concat([v, v], 1), X), torch.cat([torch.tensor(X)] * 2, 1)
    )


def test_slice_with_steps():
    y = evaluate(lambda b, v: b.slice(v, [1, 0, 1], [1, 2, 2], [1, 2, 2]), X)
    np.testing.assert_array_equal(y, X[1:2, 0:3:2, 1:4:2])


@pytest.mark.parametrize("interior", [(0, 0, 0), (1, 0, 3)])
def test_pad_and_slice_back(interior: tuple[int, int, int]):
    low, high = (1, 0, 2), (0, 3, 1)
    y = evaluate(lambda b, v: b.pad(v, low, high, interior, 7.0), X)
    steps = [i + 1 for i in interior]
    assert y.shape == tuple(
        lo + (size - 1) * step + 1 + hi
        for lo, size, step, hi in zip(low, X.shape, steps, high, strict=True)
    )
    np.testing.assert_array_equal(evaluate(lambda b, v: b.slice(v, low, X.shape, steps), y), X)
    assert np.count_nonzero(y == 7.0) == y.size - X.size


def test_one_hot():
    y = evaluate(lambda b, v: b.one_hot(v, 3), np.array([[2, 0], [1, 5]], np.int32))
    np.testing.assert_array_equal(y, [[[0, 0, 1], [1, 0, 0]], [[0, 1, 0], [0, 0, 0]]])
    assert y.dtype == np.float32


def test_one_hot_of_one_class():
    y = evaluate(lambda b, v: b.one_hot(v, 1), np.array([0, 1, -1], np.int32))
    np.testing.assert_array_equal(y, [[1], [0], [0]])
    assert y.dtype == np.float32


def test_count_correct_takes_the_first_maximum():
    logits = np.array([[1, 1, 0], [0, 2, 1], [0, 1, 1], [3, 0, 0]], np.float32)
    labels = np.array([0, 1, 2, 1], np.int32)
    y = evaluate(lambda b, p, q: b.count_correct(p, q), logits, labels)
    assert y.dtype == np.int32
    assert y.item() == 2


def test_gather_is_an_embedding():
    table, indices = torch.tensor(X.reshape(6, 4)), torch.tensor([[5, 0, 5], [1, 2, 3]])
    y = evaluate(lambda b, t, i: b.gather(t, i), table.numpy(), indices.numpy().astype(np.int32))
    np.testing.assert_array_equal(y, torch.nn.functional.embedding(indices, table))


def test_an_index_outside_the_table_gives_zeros():
    indices = np.array([-1, 0, 6, 2**31 - 1, -(2**31)], np.int32)
    y = evaluate(lambda b, t, i: b.gather(t, i), X.reshape(6, 4), indices)
    np.testing.assert_array_equal(y[1], X.reshape(6, 4)[0])
    assert not y[[0, 2, 3, 4]].any()


def test_scatter_add_is_the_gradient_of_an_embedding():
    indices = torch.tensor([[5, 0, 5], [1, 1, 3]])
    table = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    torch.nn.functional.embedding(indices, table).backward(torch.tensor(X))
    y = evaluate(lambda b, x, i: b.scatter_add(x, i, 6), X, indices.numpy().astype(np.int32))
    assert table.grad is not None
    np.testing.assert_allclose(y, table.grad, rtol=1e-15)


def test_scatter_add_ignores_an_index_outside_the_table():
    indices = np.array([[-1, 6, 0], [0, 2**31 - 1, 0]], np.int32)
    y = evaluate(lambda b, x, i: b.scatter_add(x, i, 6), X, indices)
    np.testing.assert_allclose(y[0], X[0, 2] + X[1, 0] + X[1, 2])
    assert not y[1:].any()


def test_add_rows_adds_to_a_table():
    table, indices = np.ones((6, X.shape[-1]), X.dtype), np.full(X.shape[:-1], 4, np.int32)
    y = evaluate(lambda b, t, x, i: b.add_rows(t, x, i), table, X, indices)
    sums = evaluate(lambda b, x, i: b.scatter_add(x, i, 6), X, indices)
    np.testing.assert_allclose(y, table + sums, rtol=1e-6)
    np.testing.assert_array_equal(table, 1)
