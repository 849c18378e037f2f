"""Kernels of integers against the reference semantics, bit for bit, at edge sizes."""

import numpy as np
import pytest
from xdsl.dialects.builtin import f32, i8, i32

from niwaki.backends.targets import Target, get_target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import TensorOp
from tests.backends.kernel_cases import INTEGER_TARGETS, values
from tests.backends.run_kernel import reference, run_op

targets = pytest.mark.parametrize("target", INTEGER_TARGETS.values(), ids=INTEGER_TARGETS)

CONVOLUTIONS = {
    "1x1": ((1, 5, 5, 8), (6, 1, 1, 8), 1, 0, 1),
    "1x1 odd": ((1, 3, 3, 7), (5, 1, 1, 7), 1, 0, 1),
    "1x1 stride": ((1, 5, 5, 8), (4, 1, 1, 8), 2, 0, 1),
    "3x3": ((2, 5, 6, 4), (5, 3, 3, 4), 1, 1, 1),
    "3x3 stride": ((1, 6, 5, 8), (3, 3, 3, 8), 2, 1, 1),
    "stem": ((1, 9, 9, 3), (4, 3, 3, 3), 2, 1, 1),
    "two codes": ((1, 5, 5, 2), (3, 3, 3, 2), 1, 1, 1),
    "groups": ((1, 5, 5, 8), (4, 3, 3, 4), 1, 1, 2),
    "depthwise": ((1, 6, 5, 8), (8, 3, 3, 1), 1, 1, 8),
    "depthwise stride": ((2, 7, 7, 12), (12, 5, 5, 1), 2, 2, 12),
    "depthwise odd": ((1, 5, 5, 6), (6, 3, 3, 1), 1, 1, 6),
    "depthwise large": ((1, 4, 4, 4), (4, 7, 7, 1), 1, 3, 4),
    "one output": ((1, 3, 3, 5), (1, 3, 3, 5), 1, 0, 1),
}


def _codes(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.integers(-128, 128, shape).astype(np.int8)


@targets
@pytest.mark.parametrize("zero_point", [0, -128, 5])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_convolution(name: str, zero_point: int, target: Target) -> None:
    x, w, stride, padding, groups = CONVOLUTIONS[name]
    op = nn.IntegerConv2dOp.make(
        *values((x, i8), (w, i8)),
        strides=[stride] * 2,
        padding=[padding] * 4,
        dilation=[1, 1],
        groups=groups,
        zero_point=zero_point,
    )
    rng = np.random.default_rng(0)
    arrays = [_codes(rng, x), _codes(rng, w)]

    (actual,) = run_op(op, arrays, target)

    assert np.array_equal(actual, reference(op, arrays)[0])


def _check_elementwise(op: TensorOp, arrays: list[np.ndarray], target: Target) -> None:
    (actual,) = run_op(op, arrays, target)
    assert np.array_equal(actual, reference(op, arrays)[0])


@targets
@pytest.mark.parametrize("zero_point", [0, -128, 127])
@pytest.mark.parametrize("shift", [1, 20, 31, 32, 33, 40, 54, 55, 62])
def test_rescale(shift: int, zero_point: int, target: Target) -> None:
    rng = np.random.default_rng(shift)
    shape = (3, 21)
    x = rng.integers(-(2**31), 2**31, shape).astype(np.int32)
    multipliers = rng.integers(0, 2**31, shape[1:]).astype(np.int32)
    x[0, :3], multipliers[:2] = (-(2**31), 2**31 - 1, 0), 2**31 - 1
    op = nn.RescaleOp.make(
        *values((shape, i32), (shape[1:], i32)), shift=shift, zero_point=zero_point
    )

    _check_elementwise(op, [x, multipliers], target)


@targets
@pytest.mark.parametrize(
    ("source", "to", "numbers"),
    [
        (i8, i32, [-128, -1, 0, 127]),
        (i8, f32, [-128, -1, 0, 127]),
        (i32, i8, [-128, -1, 0, 127]),
        (i32, f32, [-(2**31), -1, 2**24 + 1, 2**31 - 1]),
        (f32, i32, [-(2.0**30), -1.5, 0.99, 2.0**30]),
        (f32, i8, [-128.0, -1.5, 0.99, 127.0]),
    ],
)
def test_cast(source: object, to: object, numbers: list[float], target: Target) -> None:
    x = np.array(numbers * 5, {i8: np.int8, i32: np.int32, f32: np.float32}[source])  # pyright: ignore[reportArgumentType]
    op = nn.CastOp.make(*values((x.shape, source)), to=to)  # pyright: ignore[reportArgumentType]

    _check_elementwise(op, [x], target)


@targets
def test_round(target: Target) -> None:
    x = np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.49999997, 8388607.5, -1e30], np.float32)

    _check_elementwise(nn.RoundOp.make(*values(x.shape)), [x], target)


@targets
def test_random_uniform(target: Target) -> None:
    like, counter = values((5, 13), ((), i32))
    op = nn.RandomUniformOp.make(like, counter, seed=2**31 + 7)
    step = np.array(3, np.int32)

    (actual,) = run_op(op, [np.zeros((5, 13), np.float32), step], target)

    assert np.array_equal(actual, reference(op, [np.zeros((5, 13), np.float32), step])[0])
    assert len(np.unique(actual)) == actual.size
    assert actual.min() >= 0
    assert actual.max() < 1


def test_integers_multiply_and_add_to_the_last_bit() -> None:
    """The f32 path would lose bits beyond 2^24."""
    a, b = values(((2,), i32), ((2,), i32))
    op = nn.MulOp.make(a, b)
    arrays = [np.array([2**15 + 1, -(2**15)], np.int32), np.array([2**15 - 1, 2**15], np.int32)]

    _check_elementwise(op, arrays, get_target("host"))
