"""Kernels of pooling and its gradients."""

import numpy as np
import pytest
from xdsl.dialects.builtin import i8

from niwaki.ir.dialects import nn
from tests.backends.kernel_cases import LANES, SIZES, FusedBuilder, check, normal, values

ROUNDING = 1e-6
WINDOWS = {
    "one": ((1, 1), (1, 1), (0, 0, 0, 0), (3, 4)),
    "tiles": ((2, 2), (2, 2), (0, 0, 0, 0), (6, 8)),
    "unused-rows": ((2, 2), (3, 3), (0, 0, 0, 0), (7, 9)),
    "overlapping": ((3, 3), (2, 2), (1, 1, 1, 1), (7, 8)),
    "one-side": ((3, 2), (2, 1), (0, 0, 1, 1), (6, 5)),
    "dense": ((3, 3), (1, 1), (1, 1, 1, 1), (4, 3)),
    "large": ((5, 7), (4, 3), (2, 3, 2, 3), (11, 10)),
    "small-input": ((3, 3), (1, 1), (2, 2, 2, 2), (1, 2)),
}


def attributes(name):
    kernel, strides, padding, size = WINDOWS[name]
    return {"kernel_size": kernel, "strides": strides, "padding": padding}, size


def max_pool(name, channels):
    window, size = attributes(name)
    return nn.MaxPool2dOp.make(*values([2, *size, channels]), **window)


def check_all(name, channels, lanes):
    window, size = attributes(name)
    x = normal(2, *size, channels)
    x[:, ::2] = np.round(x[:, ::2])
    forward = max_pool(name, channels)
    check(forward, [x], lanes)

    shape = forward.y.type.get_shape()
    dy = normal(*shape, seed=1)
    kernel = window["kernel_size"]
    index = np.random.default_rng(0).integers(0, kernel[0] * kernel[1], shape).astype(np.int8)
    grad = nn.MaxPool2dGradOp.make(*values(shape, (shape, i8)), **window, input_size=size)
    check(grad, [dy, index], lanes, ROUNDING)

    for whole in (True, False):
        average = nn.AvgPool2dOp.make(*values(x.shape), **window, count_include_pad=whole)
        grad = nn.AvgPool2dGradOp.make(
            *values(shape), **window, input_size=size, count_include_pad=whole
        )
        # Windows in the padding alone have no mean.
        if whole or name != "small-input":
            check(average, [x], lanes, ROUNDING)
            check(grad, [dy], lanes, ROUNDING)


@pytest.mark.parametrize("name", WINDOWS)
@pytest.mark.parametrize("lanes", [16, 1])
def test_windows(name, lanes):
    check_all(name, 5, lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("channels", SIZES)
def test_channels(channels, lanes):
    _, size = attributes("overlapping")
    check(max_pool("overlapping", channels), [normal(2, *size, channels)], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("name", ["tiles", "overlapping", "small-input"])
def test_max_pool_of_codes(name, lanes):
    window, size = attributes(name)
    shape = (2, *size, 9)
    codes = np.random.default_rng(0).integers(-128, 128, shape).astype(np.int8)
    check(nn.MaxPool2dOp.make(*values((shape, i8)), **window), [codes], lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_fused_around_max_pool(lanes):
    window, size = attributes("overlapping")
    b = FusedBuilder(values([2, *size, 9], [9]))
    x, bias = b.args
    pooled = b.insert(nn.MaxPool2dOp.make(b.add(x, bias), **window))
    y, index = pooled.results
    mask = b.compare(y, b.constant(0.0), "gt")
    op = b.finish(b.relu(y), index, mask)
    check(op, [normal(2, *size, 9), normal(9)], lanes, ROUNDING)


@pytest.mark.parametrize("lanes", LANES)
def test_fused_after_gradient(lanes):
    window, size = attributes("tiles")
    shape = [2, 3, 4, 9]
    b = FusedBuilder(values(shape, (shape, i8), [2, *size, 9]))
    dy, index, x = b.args
    dx = b.one(nn.MaxPool2dGradOp.make(dy, index, **window, input_size=size))
    op = b.finish(b.mul(dx, x))
    indices = np.random.default_rng(0).integers(0, 4, shape).astype(np.int8)
    check(op, [normal(*shape), indices, normal(2, *size, 9)], lanes, ROUNDING)


def test_a_window_of_nan_stays_nan():
    window, size = attributes("tiles")
    x = np.full((1, *size, 3), np.nan, np.float32)
    check(nn.MaxPool2dOp.make(*values(x.shape), **window), [x], 8)
