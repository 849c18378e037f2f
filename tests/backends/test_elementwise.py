"""Kernels of elementwise operations and fused groups of them."""

import numpy as np
import pytest
from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr, i32

from niwaki.backends.kernels.scalar import RULES
from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import get_target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.nn.elementwise import OPS
from niwaki.ir.dialects.tensor_op import bf16, f32, i1, i8, type_of
from tests.backends.kernel_cases import LANES, SIZES, FusedBuilder, check, normal, values
from tests.backends.run_kernel import run_op

ATTRIBUTES = {
    nn.LeakyReluOp: [{"slope": 0.1}],
    nn.GeluOp: [{"approximate": "none"}, {"approximate": "tanh"}],
    nn.CompareOp: [{"predicate": p} for p in nn.CompareOp.PREDICATES],
    nn.NarrowOp: [{"to": bf16}, {"to": i8}],
}
UNARY = [
    pytest.param(kind, attributes, id="-".join([kind.name, *map(str, attributes.values())]))
    for kind in OPS
    if issubclass(kind, nn.Unary) and kind is not nn.CastOp
    for attributes in ATTRIBUTES.get(kind, [{}])
]
BINARY = [
    pytest.param(kind, attributes, id="-".join([kind.name, *map(str, attributes.values())]))
    for kind in OPS
    if issubclass(kind, nn.Binary) and kind is not nn.AndOp
    for attributes in ATTRIBUTES.get(kind, [{}])
]
ULPS = 2e-6


def test_every_elementwise_operation_has_a_rule():
    placed = {nn.RandomUniformOp, nn.OneHotOp}  # depend on where an element is: pointwise.py
    every = {op for op in nn.NN.operations if issubclass(op, nn.Elementwise)}
    assert set(RULES) == every - placed
    assert set(OPS) <= every


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize(("kind", "attributes"), UNARY)
def test_unary(kind, attributes, lanes):
    x = np.concatenate([normal(30) * 3, np.array([0.0, -0.0, 3.0, -3.0, 6.0], np.float32)])
    if kind in (nn.LogOp, nn.SqrtOp, nn.RsqrtOp):
        x = np.abs(x) + np.float32(0.1)
    check(kind.make(*values([35]), **attributes), [x], lanes, ULPS)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize(("kind", "attributes"), BINARY)
def test_binary(kind, attributes, lanes):
    a, b = normal(35), normal(35, seed=1)
    a[::5] = b[::5]
    check(kind.make(*values([35], [35]), **attributes), [a, b], lanes, ULPS)


@pytest.mark.parametrize("kind", [nn.SigmoidOp, nn.SiluOp, nn.SoftplusOp, nn.TanhOp])
def test_large_arguments_stay_finite(kind):
    x = np.array([-1000, -100, -88, 88, 100, 1000, 0, -20], np.float32)
    check(kind.make(*values([8])), [x], 8, 1e-6)


def test_softplus_of_very_negative_arguments_keeps_its_digits():
    x = np.array([-10, -15, -20, -30, -60, -80], np.float32)
    (y,) = run_op(nn.SoftplusOp.make(*values([6])), [x], get_target("host"))
    np.testing.assert_allclose(y, np.exp(x.astype(np.float64)), rtol=5e-5)


@pytest.mark.parametrize("kind", [nn.ReluOp, nn.Relu6Op])
def test_nan_passes_through_relu(kind):
    (y,) = run_op(kind.make(*values([1])), [np.array([np.nan], np.float32)], get_target("host"))
    assert np.isnan(y[0])


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("in_place", [False, True])
def test_sizes(size, lanes, in_place):
    arrays = [normal(3, size), normal(size, seed=1)]
    check(nn.AddOp.make(*values([3, size], [size])), arrays, lanes, in_place=in_place)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(
    ("a", "b"),
    [
        ([], []),
        ([1, 1], [1]),
        ([4, 1], [1, 9]),
        ([2, 3, 5], [3, 1]),
        ([2, 1, 3, 8], [5, 1, 1]),
        ([3, 4, 1], [3, 4, 17]),
    ],
)
def test_broadcasting(a, b, lanes):
    check(nn.SubOp.make(*values(a, b)), [normal(*a), normal(*b, seed=1)], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", SIZES)
def test_masks(size, lanes):
    a, b = normal(3, size), normal(3, size, seed=1)
    check(nn.CompareOp.make(*values([3, size], [3, size]), predicate="gt"), [a, b], lanes)
    select_op = nn.SelectOp.make(*values(([3, size], i1), [3, size], [3, size]))
    check(select_op, [a > b, a, b], lanes)
    both = nn.AndOp.make(*values(([3, size], i1), ([3, size], i1)))
    check(both, [a > b, a > 0], lanes)
    check(both, [a > b, a > 0], lanes, in_place=True)
    check(nn.CastOp.make(*values(([3, size], i1)), to=f32), [a > b], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("mask", [[], [1], [5, 1], [1, 1, 9], [4, 1, 1], [4, 5, 1]])
def test_masks_broadcast(mask, lanes):
    op = nn.SelectOp.make(*values((mask, i1), [4, 5, 9], [9]))
    arrays = [np.asarray(normal(*mask) > 0), normal(4, 5, 9), normal(9, seed=1)]
    check(op, arrays, lanes)


@pytest.mark.parametrize("lanes", [16, 1])
def test_mask_rows_of_one_element(lanes):
    a, b = normal(9, 1), normal(9, 1, seed=1)
    check(nn.CompareOp.make(*values([9, 1], [9, 1]), predicate="lt"), [a, b], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
def test_integers(lanes):
    rng = np.random.default_rng(0)
    a, b = (rng.integers(-9, 9, (3, 7)).astype(np.int32) for _ in range(2))
    kinds = [([3, 7], i32), ([3, 7], i32)]
    for kind in (nn.AddOp, nn.SubOp, nn.MulOp, nn.MaxOp, nn.MinOp):
        check(kind.make(*values(*kinds)), [a, b], lanes)
    for kind in (nn.NegOp, nn.AbsOp):
        check(kind.make(*values(kinds[0])), [a], lanes)
    check(nn.CompareOp.make(*values(*kinds), predicate="le"), [a, b], lanes)
    check(nn.CastOp.make(*values(kinds[0]), to=f32), [a], lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_a_box_of_a_larger_parameter(lanes):
    op = nn.AddOp.make(*values([3, 2, 5], [3, 2, 5]))
    box = MemRefType(f32, [3, 2, 5], StridedLayoutAttr([4 * 9, 9, 1]))
    dense = memref_of(type_of(op.results[0]))
    arrays = [normal(3, 2, 5), normal(3, 2, 5, seed=1)]
    check(op, arrays, lanes, operands=[box, dense], results=[box])
    check(op, arrays, lanes, operands=[box, dense], results=[box], in_place=True)
    column = MemRefType(f32, [3, 2, 5], StridedLayoutAttr([20, 10, 2]))
    check(op, arrays, lanes, operands=[column, dense], results=[dense])


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", [1, 9, 32])
def test_fused_group(size, lanes):
    operands = values([4, size], [size], [])
    b = FusedBuilder(operands)
    x, bias, rate = b.args
    shifted = b.add(x, b.mul(bias, rate))
    mask = b.compare(shifted, b.constant(0.0), "gt")
    clipped = b.select(mask, shifted, b.broadcast(b.constant(0.5), [4, size]))
    op = b.finish(clipped, mask, shifted)
    arrays = [normal(4, size), normal(size), np.array(0.3, np.float32)]
    check(op, arrays, lanes, 1e-6)
    check(op, arrays, lanes, 1e-6, in_place=True)


@pytest.mark.parametrize("lanes", [16, 1])
def test_constant_and_broadcast_alone(lanes):
    b = FusedBuilder([])
    check(b.constant(2.5, [3, 9]).owner, [], lanes)
    check(nn.BroadcastOp.make(*values([3, 1]), shape=[2, 3, 9]), [normal(3, 1)], lanes)
    mask = nn.BroadcastOp.make(*values(([9], i1)), shape=[3, 9])
    check(mask, [normal(9) > 0], lanes)


def test_in_place_pairs_exclude_what_broadcasts():
    op = nn.AddOp.make(*values([1, 8], [4, 8]))
    kinds = [memref_of(type_of(v)) for v in (*op.operands, *op.results)]
    spec = select(op, kinds[:2], kinds[2:], get_target("host"))
    assert spec.in_place == ((1, 0),)
    assert spec.flops == 32
