"""Composites against torch; the random mask against its bits."""

import numpy as np
import pytest
import torch

from niwaki.ir.dialects import nn
from tests.evaluate import evaluate, evaluate_all

TOLERANCE = {np.float32: 2e-6, np.float64: 1e-14}
DTYPES = [np.float32, np.float64]
functional = torch.nn.functional


def _samples(shape: tuple[int, ...], dtype: type, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=3, size=shape).astype(dtype)


def _check(ours: np.ndarray, theirs: torch.Tensor, dtype: type) -> None:
    assert ours.dtype == dtype
    assert ours.shape == tuple(theirs.shape)
    np.testing.assert_allclose(ours, theirs, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_softmax_and_log_softmax(dtype: type, axis: int):
    x = _samples((2, 3, 4), dtype)
    x[0, 0, 0] = 100
    _check(
        evaluate(lambda b, v: b.softmax(v, axis), x),
        functional.softmax(torch.tensor(x), axis),
        dtype,
    )
    _check(
        evaluate(lambda b, v: b.log_softmax(v, axis), x),
        functional.log_softmax(torch.tensor(x), axis),
        dtype,
    )


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_uses_the_running_statistics(dtype: type, training: bool):
    x = _samples((2, 3, 4, 5), dtype)
    gamma, beta, mean = (_samples((5,), dtype, seed) for seed in (2, 3, 4))
    var = np.abs(_samples((5,), dtype, 5)) + dtype(0.5)
    y = evaluate(
        lambda b, *values: b.batch_norm(*values, epsilon=0.5, training=training),
        x, gamma, beta, mean, var,
    )  # fmt: skip
    theirs = functional.batch_norm(
        torch.tensor(x).movedim(-1, 1), *map(torch.tensor, (mean, var, gamma, beta)), eps=0.5
    )
    _check(y, theirs.movedim(1, -1), dtype)


@pytest.mark.parametrize("shape", [(1, 2, 1, 3), (4, 3, 5, 2), (6, 4)])
@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_train(dtype: type, shape: tuple[int, ...]):
    x = _samples(shape, dtype)
    gamma, beta = (_samples(shape[-1:], dtype, seed) for seed in (2, 3))
    y, mean, var = evaluate_all(
        lambda b, *values: b.insert(nn.BatchNormTrainOp.make(*values, epsilon=0.25)).results,
        x, gamma, beta,
    )  # fmt: skip
    theirs = functional.batch_norm(
        torch.tensor(x).movedim(-1, 1), None, None, torch.tensor(gamma), torch.tensor(beta),
        training=True, eps=0.25,
    )  # fmt: skip
    rows = torch.tensor(x).reshape(-1, shape[-1])
    _check(y, theirs.movedim(1, -1), dtype)
    _check(mean, rows.mean(0), dtype)
    _check(var, rows.var(0, correction=0), dtype)


def test_dropout_is_the_identity():
    x = _samples((3, 2), np.float32)
    np.testing.assert_array_equal(evaluate(lambda b, v: b.dropout(v, 0.5, 1), x), x)


@pytest.mark.parametrize("dtype", DTYPES)
def test_losses(dtype: type):
    x, target = _samples((4, 5), dtype), _samples((4, 5), dtype, 2)
    labels = np.array([0, 4, 2, 2], np.int32)
    probabilities = functional.softmax(torch.tensor(target), 1).numpy()
    _check(
        evaluate(lambda b, *v: b.cross_entropy(*v), x, labels),
        functional.cross_entropy(torch.tensor(x), torch.tensor(labels).long()),
        dtype,
    )
    _check(
        evaluate(lambda b, *v: b.cross_entropy(*v), x, probabilities),
        functional.cross_entropy(torch.tensor(x), torch.tensor(probabilities)),
        dtype,
    )
    _check(
        evaluate(lambda b, *v: b.mse(*v), x, target),
        functional.mse_loss(torch.tensor(x), torch.tensor(target)),
        dtype,
    )
    _check(
        evaluate(lambda b, *v: b.bce_with_logits(*v), 30 * x, probabilities),
        functional.binary_cross_entropy_with_logits(
            torch.tensor(30 * x), torch.tensor(probabilities)
        ),
        dtype,
    )


def test_integer_cross_entropy_of_minus_infinity_logits_is_finite():
    x = np.array([[0, -np.inf, 0]], np.float32)
    loss = evaluate(lambda b, *v: b.cross_entropy(*v), x, np.array([0], np.int32))
    np.testing.assert_allclose(loss, np.log(2), rtol=1e-6)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_cross_entropy_of_zero_is_not_negative(classes: int):
    certain = 200 * np.eye(1, classes, dtype=np.float32)
    loss = evaluate(lambda b, *v: b.cross_entropy(*v), certain, np.array([0], np.int32))
    assert (loss, np.signbit(loss)) == (0, False)


def _mask(shape: tuple[int, ...], counter: int, rate: float, seed: int) -> np.ndarray:
    return evaluate(
        lambda b, like, step: b.one(nn.RandomMaskOp.make(like, step, rate=rate, seed=seed)),
        np.zeros(shape, np.float32),
        np.array(counter, np.int32),
    )


def _lowbias32(x: int) -> int:
    x ^= x >> 16
    x = x * 0x7FEB352D & 0xFFFFFFFF
    x ^= x >> 15
    x = x * 0x846CA68B & 0xFFFFFFFF
    return x ^ x >> 16


def test_random_mask_bits():
    mask = _mask((2, 4, 4), counter=3, rate=0.5, seed=12345)
    assert mask.dtype == np.bool_
    bits = "".join("01"[int(bit)] for bit in mask.reshape(-1))
    assert bits == "10000001110000010011111101100100"


@pytest.mark.parametrize(("counter", "seed"), [(0, 0), (2**31 - 1, 2**32 - 1), (-1, -7)])
def test_random_mask_is_the_documented_hash(counter: int, seed: int):
    start = _lowbias32((seed & 0xFFFFFFFF) ^ _lowbias32(counter & 0xFFFFFFFF))
    hashes = [_lowbias32((start + i) & 0xFFFFFFFF) for i in range(60)]
    np.testing.assert_array_equal(
        _mask((3, 20), counter, 0.25, seed).reshape(-1), [h >= 0.25 * 2**32 for h in hashes]
    )


def test_random_mask_rate():
    mask = _mask((100_000,), counter=1, rate=0.2, seed=9)
    # Five standard deviations of a binomial.
    assert abs(np.mean(~mask) - 0.2) < 5 * np.sqrt(0.2 * 0.8 / 100_000)
    assert _mask((1000,), counter=1, rate=0.0, seed=9).all()
    assert (_mask((1000,), 1, 0.5, 9) != _mask((1000,), 2, 0.5, 9)).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rms_norm(dtype: type):
    x, gamma = _samples((2, 3, 5), dtype), _samples((5,), dtype, 2)
    y = evaluate(lambda b, v, g: b.rms_norm(v, g, 0.25), x, gamma)
    _check(y, functional.rms_norm(torch.tensor(x), (5,), torch.tensor(gamma), 0.25), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_layer_norm(dtype: type):
    arrays = _samples((2, 3, 5), dtype), _samples((5,), dtype, 2), _samples((5,), dtype, 3)
    y = evaluate(lambda b, v, g, h: b.layer_norm(v, g, h, 0.25), *arrays)
    x, gamma, beta = (torch.tensor(a) for a in arrays)
    _check(y, functional.layer_norm(x, (5,), gamma, beta, 0.25), dtype)
