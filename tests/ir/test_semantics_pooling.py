"""Pooling and its cotangents against torch, in float64."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from niwaki.ir.dialects import nn
from tests.evaluate import evaluate, evaluate_all

TOLERANCE = 1e-13


@dataclass(frozen=True)
class Case:
    """Sizes of a pooling with symmetric padding, as torch knows it."""

    x: tuple[int, int, int, int]
    kernel: tuple[int, int]
    strides: tuple[int, int]
    padding: tuple[int, int] = (0, 0)

    @property
    def attributes(self) -> dict[str, tuple[int, ...]]:
        return {
            "kernel_size": self.kernel,
            "strides": self.strides,
            "padding": (*self.padding, *self.padding),
        }


CASES = {
    "one-element": Case((1, 1, 1, 1), (1, 1), (1, 1)),
    "tiles": Case((2, 4, 6, 3), (2, 2), (2, 2)),
    "overlap": Case((1, 7, 5, 2), (3, 3), (2, 2), (1, 1)),
    "stride-3-unused-rows": Case((1, 8, 9, 2), (2, 2), (3, 3)),
    "oblong": Case((1, 6, 9, 2), (1, 4), (1, 3), (0, 2)),
    "padding-over-a-small-input": Case((1, 2, 1, 2), (3, 2), (1, 1), (1, 1)),
    "window-is-input": Case((2, 4, 3, 2), (4, 3), (1, 1)),
}


def _nchw(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x).permute(0, 3, 1, 2)


def _nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


def _samples(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(11).normal(size=shape)


@pytest.mark.parametrize("name", CASES)
def test_max_pool2d_and_its_cotangent(name: str):
    case = CASES[name]
    x = _samples(case.x) - 5  # below 0: padding of zeros would win
    torch_x = _nchw(x).requires_grad_()
    torch_y = torch.nn.functional.max_pool2d(torch_x, case.kernel, case.strides, case.padding)
    dy = np.random.default_rng(4).normal(size=_nhwc(torch_y).shape)
    (torch_dx,) = torch.autograd.grad(torch_y, torch_x, _nchw(dy))

    y, index = evaluate_all(
        lambda b, v: b.insert(nn.MaxPool2dOp.make(v, **case.attributes)).results, x
    )
    dx = evaluate(
        lambda b, p, q: b.one(
            nn.MaxPool2dGradOp.make(p, q, input_size=case.x[1:3], **case.attributes)
        ),
        dy,
        index,
    )

    np.testing.assert_array_equal(y, _nhwc(torch_y))
    assert index.dtype == np.int8
    np.testing.assert_allclose(dx, _nhwc(torch_dx), rtol=TOLERANCE, atol=TOLERANCE)


def test_max_pool2d_takes_the_first_of_equal_maxima_by_rows():
    x = np.array([[1, 3, 3], [3, 0, 3]], np.float32).reshape(1, 2, 3, 1)
    y, index = evaluate_all(
        lambda b, v: (
            b.insert(
                nn.MaxPool2dOp.make(v, kernel_size=(2, 3), strides=(1, 1), padding=(1, 1, 0, 0))
            ).results
        ),
        x,
    )
    # Row 0 of the windows is padding: its taps 0..2 never win. Taps are i * 3 + j.
    np.testing.assert_array_equal(y[0, :, :, 0], [[3, 3], [3, 3]])
    np.testing.assert_array_equal(index[0, :, :, 0], [[5, 4], [2, 1]])


def test_max_pool2d_of_minus_infinity_stays_inside():
    x = np.full((1, 1, 1, 1), -np.inf, np.float32)
    y, index = evaluate_all(
        lambda b, v: (
            b.insert(
                nn.MaxPool2dOp.make(v, kernel_size=(3, 3), strides=(1, 1), padding=(1, 1, 1, 1))
            ).results
        ),
        x,
    )
    assert y.item() == -np.inf
    assert index.item() == 4


@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_avg_pool2d_and_its_cotangent(name: str, count_include_pad: bool):
    case = CASES[name]
    x = _samples(case.x)
    torch_x = _nchw(x).requires_grad_()
    torch_y = torch.nn.functional.avg_pool2d(
        torch_x, case.kernel, case.strides, case.padding, count_include_pad=count_include_pad
    )
    dy = np.random.default_rng(4).normal(size=_nhwc(torch_y).shape)
    (torch_dx,) = torch.autograd.grad(torch_y, torch_x, _nchw(dy))
    attributes = {**case.attributes, "count_include_pad": count_include_pad}

    y = evaluate(lambda b, v: b.one(nn.AvgPool2dOp.make(v, **attributes)), x)
    dx = evaluate(
        lambda b, v: b.one(nn.AvgPool2dGradOp.make(v, input_size=case.x[1:3], **attributes)), dy
    )

    np.testing.assert_allclose(y, _nhwc(torch_y), rtol=TOLERANCE, atol=TOLERANCE)
    np.testing.assert_allclose(dx, _nhwc(torch_dx), rtol=TOLERANCE, atol=TOLERANCE)


def test_avg_pool2d_with_asymmetric_padding():
    x = np.ones((1, 2, 2, 1), np.float32)
    y = evaluate(lambda b, v: b.avg_pool2d(v, 2, 2, (1, 0, 1, 0), False), x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[1], [1]])
    y = evaluate(lambda b, v: b.avg_pool2d(v, 2, 2, (1, 0, 1, 0), True), x)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0.5], [0.5]])
    assert y.dtype == np.float32
