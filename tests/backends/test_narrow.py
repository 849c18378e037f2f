"""Kernels on bf16 and i8: rounding, widening, and products that read such operands."""

import numpy as np
import pytest
from xdsl.ir import SSAValue

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import bf16, f32, i8
from tests.backends.kernel_cases import LANES, SIZES, FusedBuilder, check, normal, values

NARROW = [pytest.param(bf16, id="bf16"), pytest.param(i8, id="i8")]
ODD = np.array(
    [0, -0.0, 0.5, 1.5, 2.5, -2.5, 126.5, 127.5, 1e30, -1e30, np.inf, -np.inf, 1e-45, -1e-40,
     3.4028235e38, 1.00390625, 1.01171875, 1.0039063, 6.0, 5.999],
    np.float32,
)  # fmt: skip
"""Ties, ends of the ranges, subnormal numbers."""
NANS = np.array([0x7F800001, 0x7FFFFFFF, 0xFF800001, 0x7FC00000], np.uint32).view(np.float32)


def _stored(element, *shape: int) -> np.ndarray:
    """Random elements as they lie in memory."""
    rng = np.random.default_rng([7, *shape])
    if element == f32:
        return normal(*shape)
    if element == i8:
        return rng.integers(-127, 128, shape).astype(np.int8)
    return (rng.standard_normal(shape, np.float32).view(np.int32) >> 16).astype(np.int16)


def _value(element, *shape: int) -> SSAValue:
    (value,) = values((shape, element))
    return value


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("element", NARROW)
def test_rounding_is_exact(element, lanes):
    x = np.concatenate([ODD, NANS, normal(999) * 40])
    check(nn.NarrowOp.make(*values([x.size]), to=element), [x], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("element", NARROW)
def test_widening_is_exact(element, size, lanes):
    check(nn.CastOp.make(_value(element, 3, size), to=f32), [_stored(element, 3, size)], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("element", NARROW)
def test_between_other_elementwise_operations(element, lanes):
    b = FusedBuilder([*values([3, 9], [1, 1]), _value(element, 3, 9)])
    x, scale, stored = b.args
    kept = b.narrow(b.mul(x, scale), element)
    op = b.finish(kept, b.mul(b.cast(stored), scale))
    arrays = [normal(3, 9) * 9, np.array([[1.25]], np.float32), _stored(element, 3, 9)]
    check(op, arrays, lanes)


@pytest.mark.parametrize("lanes", [8, 1])
@pytest.mark.parametrize("element", NARROW)
def test_before_a_reduction(element, lanes):
    b = FusedBuilder([_value(element, 2, 5, 9)])
    op = b.finish(b.reduce_sum(b.cast(b.args[0]), [0, 1]))
    check(op, [_stored(element, 2, 5, 9)], lanes, 1e-6)


@pytest.mark.parametrize("lanes", [16, 8, 1])
@pytest.mark.parametrize("element", NARROW)
@pytest.mark.parametrize(("groups", "inputs", "outputs"), [(1, 9, 5), (1, 1, 20), (2, 6, 8)])
def test_filter_gradient(element, groups, inputs, outputs, lanes):
    x, dy = _value(element, 2, 6, 7, inputs), *values([2, 3, 4, outputs])
    op = nn.Conv2dDwOp.make(
        x, dy, strides=[2, 2], padding=[1, 1, 1, 1], dilation=[1, 1], groups=groups,
        kernel_size=[3, 3],
    )  # fmt: skip
    check(op, [_stored(element, 2, 6, 7, inputs), normal(2, 3, 4, outputs)], lanes, 1e-5)


@pytest.mark.parametrize("lanes", [8, 1])
@pytest.mark.parametrize("element", NARROW)
def test_depthwise_filter_gradient(element, lanes):
    x, (dy,) = _value(element, 2, 5, 5, 9), values([2, 5, 5, 9])
    op = nn.Conv2dDwOp.make(
        x, dy, strides=[1, 1], padding=[1, 1, 1, 1], dilation=[1, 1], groups=9, kernel_size=[3, 3]
    )
    check(op, [_stored(element, 2, 5, 5, 9), normal(2, 5, 5, 9)], lanes, 1e-5)


@pytest.mark.parametrize("lanes", [8, 1])
@pytest.mark.parametrize("element", NARROW)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_matmul(element, transpose_a, transpose_b, first, lanes):
    shapes = [(11, 4) if transpose_a else (4, 11), (9, 11) if transpose_b else (11, 9)]
    kinds = [element, f32] if first else [f32, element]
    operands = [_value(kind, *shape) for kind, shape in zip(kinds, shapes, strict=True)]
    arrays = [_stored(kind, *shape) for kind, shape in zip(kinds, shapes, strict=True)]
    op = nn.MatmulOp.make(*operands, transpose_a=transpose_a, transpose_b=transpose_b)
    check(op, arrays, lanes, 1e-5)
