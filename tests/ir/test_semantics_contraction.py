"""Convolutions, their backward products and matrix products against torch, in float64."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from niwaki.ir.dialects import nn
from tests.evaluate import evaluate

# Absolute and relative: sums of at most a few hundred float64 products of order 1.
TOLERANCE = 1e-12


@dataclass(frozen=True)
class Case:
    """Sizes of a convolution."""

    x: tuple[int, int, int, int]
    outputs: int
    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    @property
    def window(self) -> nn.Window:
        return nn.Window(self.strides, self.padding, self.dilation, self.groups)


CASES = {
    "one-element": Case((1, 1, 1, 1), 1, (1, 1)),
    "pointwise": Case((2, 3, 4, 5), 6, (1, 1)),
    "same": Case((2, 5, 7, 3), 4, (3, 3), padding=(1, 1, 1, 1)),
    "stride-2": Case((1, 8, 9, 2), 3, (3, 3), (2, 2), (1, 1, 1, 1)),
    "stride-3-unused-rows": Case((1, 8, 9, 2), 3, (2, 2), (3, 3)),
    "asymmetric-padding": Case((1, 5, 6, 2), 3, (3, 2), (2, 1), (0, 1, 2, 3)),
    "dilation": Case((1, 9, 8, 2), 3, (3, 2), (1, 2), (2, 0, 1, 1), (2, 3)),
    "kernel-is-input": Case((3, 4, 5, 2), 6, (4, 5)),
    "groups": Case((2, 5, 5, 6), 4, (3, 3), padding=(1, 1, 1, 1), groups=2),
    "depthwise": Case((2, 6, 5, 4), 4, (3, 3), (2, 2), (1, 1, 1, 1), groups=4),
    "depthwise-multiplier-2": Case((1, 5, 5, 3), 6, (3, 3), padding=(1, 1, 1, 1), groups=3),
    "depthwise-one-channel": Case((1, 5, 5, 1), 1, (3, 3), (3, 3), groups=1),
}


def _nchw(x: np.ndarray) -> torch.Tensor:
    return torch.tensor(x).permute(0, 3, 1, 2)


def _nhwc(x: torch.Tensor) -> np.ndarray:
    return x.detach().permute(0, 2, 3, 1).numpy()


def _operands(case: Case) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    filters = (case.outputs, *case.kernel, case.x[3] // case.groups)
    return rng.normal(size=case.x), rng.normal(size=filters)


def _torch_conv(case: Case, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = case.padding
    return torch.nn.functional.conv2d(
        torch.nn.functional.pad(x, (left, right, top, bottom)),
        w,
        stride=case.strides,
        dilation=case.dilation,
        groups=case.groups,
    )


def _conv(case: Case, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    return evaluate(
        lambda b, p, q: b.conv2d(p, q, case.strides, case.padding, case.dilation, case.groups), x, w
    )


@pytest.mark.parametrize("name", CASES)
def test_conv2d_and_its_cotangents(name: str):
    case = CASES[name]
    x, w = _operands(case)
    torch_x, torch_w = _nchw(x).requires_grad_(), _nchw(w).requires_grad_()
    torch_y = _torch_conv(case, torch_x, torch_w)
    dy = np.random.default_rng(4).normal(size=_nhwc(torch_y).shape)
    torch_dx, torch_dw = torch.autograd.grad(torch_y, (torch_x, torch_w), _nchw(dy))

    y = _conv(case, x, w)
    dx = evaluate(lambda b, p, q: b.conv2d_dx(p, q, case.window, case.x[1:3]), dy, w)
    dw = evaluate(lambda b, p, q: b.conv2d_dw(p, q, case.window, case.kernel), x, dy)

    for ours, theirs in ((y, torch_y), (dx, torch_dx), (dw, torch_dw)):
        assert ours.dtype == np.float64
        np.testing.assert_allclose(ours, _nhwc(theirs), rtol=TOLERANCE, atol=TOLERANCE)


def test_float32_stays_float32():
    case = CASES["groups"]
    x, w = (a.astype(np.float32) for a in _operands(case))
    y = _conv(case, x, w)
    assert y.dtype == np.float32
    expected = _nhwc(_torch_conv(case, _nchw(x), _nchw(w)))
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


def test_dw_of_leading_input_channels_is_the_box_of_the_full_one():
    case = CASES["same"]
    x, w = _operands(case)
    dy = np.random.default_rng(4).normal(size=_conv(case, x, w).shape)
    full = evaluate(lambda b, p, q: b.conv2d_dw(p, q, case.window, case.kernel), x, dy)
    box = evaluate(lambda b, p, q: b.conv2d_dw(p, q, case.window, case.kernel), x[..., :2], dy)
    np.testing.assert_allclose(box, full[..., :2], rtol=TOLERANCE, atol=TOLERANCE)


def test_dw_of_leading_depthwise_channels_is_the_box_of_the_full_one():
    case = CASES["depthwise"]
    x, w = _operands(case)
    dy = np.random.default_rng(4).normal(size=_conv(case, x, w).shape)
    leading = nn.Window(case.strides, case.padding, case.dilation, 3)
    full = evaluate(lambda b, p, q: b.conv2d_dw(p, q, case.window, case.kernel), x, dy)
    box = evaluate(lambda b, p, q: b.conv2d_dw(p, q, leading, case.kernel), x[..., :3], dy[..., :3])
    np.testing.assert_allclose(box, full[:3], rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (2, 3, 4), (7, 1, 9)])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_matmul(sizes: tuple[int, int, int], transpose_a: bool, transpose_b: bool):
    m, k, n = sizes
    rng = np.random.default_rng(5)
    a = rng.normal(size=(k, m) if transpose_a else (m, k))
    b = rng.normal(size=(n, k) if transpose_b else (k, n))
    y = evaluate(lambda f, p, q: f.matmul(p, q, transpose_a, transpose_b), a, b)
    expected = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_matmul_of_stacks(transpose_a: bool, transpose_b: bool):
    rng = np.random.default_rng(6)
    a = rng.normal(size=(2, 3, 5, 4) if transpose_a else (2, 3, 4, 5))
    b = rng.normal(size=(2, 3, 6, 5) if transpose_b else (2, 3, 5, 6))
    y = evaluate(lambda f, p, q: f.matmul(p, q, transpose_a, transpose_b), a, b)
    pair = "nmki" if transpose_a else "nmik", "nmjk" if transpose_b else "nmkj"
    expected = np.einsum(f"{pair[0]},{pair[1]}->nmij", a, b)
    np.testing.assert_allclose(y, expected, rtol=TOLERANCE, atol=TOLERANCE)
