"""Kernels of labels and random masks."""

import numpy as np
import pytest
from xdsl.dialects.builtin import i32

from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import get_target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import type_of
from tests.backends.kernel_cases import LANES, SIZES, FusedBuilder, check, normal, values


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("depth", [2, 9, 33])
def test_one_hot(depth, lanes):
    labels = np.array([[0, depth - 1, depth], [-1, depth // 2, 2**31 - 1]], np.int32)
    op = nn.OneHotOp.make(*values(([2, 3, 1], i32)), depth=depth)
    check(op, [labels[..., None]], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("columns", [1, 2, 10])
def test_count_correct(columns, lanes):
    logits = np.round(normal(40, columns))
    labels = np.random.default_rng(0).integers(0, columns, 40).astype(np.int32)
    op = nn.CountCorrectOp.make(*values([40, columns], ([40], i32)))
    check(op, [logits, labels], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("rate", "seed"), [(0.0, 1), (0.1, -5), (0.5, 2**31), (0.999, 7)])
def test_random_mask(size, rate, seed, lanes):
    op = nn.RandomMaskOp.make(*values([2, 3, size], ([], i32)), rate=rate, seed=seed)
    check(op, [normal(2, 3, size), np.array(12345, np.int32)], lanes)


def test_random_mask_of_a_scalar():
    op = nn.RandomMaskOp.make(*values([], ([], i32)), rate=0.5, seed=3)
    check(op, [normal(), np.array(-1, np.int32)], 8)


def test_unknown_operation_is_named():
    op = nn.SoftmaxOp.make(*values([2, 3]), axis=1)
    kinds = [memref_of(type_of(v)) for v in (*op.operands, *op.results)]
    with pytest.raises(NotImplementedError, match=r"no kernel for 'nn\.softmax'$"):
        select(op, kinds[:1], kinds[1:], get_target("host"))


def test_unfusable_operation_is_named():
    b = FusedBuilder(values([2, 3]))
    op = b.finish(b.relu(b.transpose(b.args[0], [1, 0])))
    kinds = [memref_of(type_of(v)) for v in (*op.operands, *op.results)]
    with pytest.raises(NotImplementedError, match=r"no kernel for 'nn\.transpose' in nn\.fused"):
        select(op, kinds[:1], kinds[1:], get_target("host"))
