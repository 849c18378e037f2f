"""Kernels that move elements."""

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr, i8, i32

from niwaki.backends.kernels.movement import copy
from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import get_target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.kernel import PrefetchOp
from niwaki.ir.dialects.tensor_op import f32, i1, tensor, type_of
from tests.backends.kernel_cases import LANES, SIZES, check, normal, values
from tests.backends.run_kernel import POISON, Buffer, run_spec


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", SIZES)
def test_transposed_matrix(size, lanes):
    op = nn.TransposeOp.make(*values([size, 19]), permutation=[1, 0])
    check(op, [normal(size, 19)], lanes)
    op = nn.TransposeOp.make(*values([19, size]), permutation=[1, 0])
    check(op, [normal(19, size)], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize(
    "permutation", [[0, 1, 2, 3], [0, 3, 1, 2], [0, 2, 3, 1], [3, 2, 1, 0], [1, 0, 2, 3]]
)
def test_permutations(permutation, lanes):
    op = nn.TransposeOp.make(*values([2, 3, 4, 17]), permutation=permutation)
    check(op, [normal(2, 3, 4, 17)], lanes)


@pytest.mark.parametrize(("tokens", "heads", "prefetched"), [(40, 3, True), (3, 40, False)])
def test_rows_far_apart_are_prefetched(tokens, heads, prefetched):
    op = nn.TransposeOp.make(*values([2, tokens, heads, 32]), permutation=[0, 2, 1, 3])
    check(op, [normal(2, tokens, heads, 32)], 16)
    kinds = [memref_of(type_of(v)) for v in (op.x, op.y)]
    function = select(op, kinds[:1], kinds[1:], replace(get_target("host"), lanes=16)).build("move")
    assert any(isinstance(inner, PrefetchOp) for inner in function.walk()) == prefetched


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize(
    ("low", "high", "interior"),
    [
        ([0, 1, 2, 0], [0, 2, 1, 0], [0, 0, 0, 0]),
        ([0, 0, 0, 3], [0, 0, 0, 1], [0, 0, 0, 0]),
        ([0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 2, 0]),
        ([1, 0, 0, 1], [0, 0, 0, 0], [2, 0, 0, 3]),
    ],
)
def test_pad(low, high, interior, lanes):
    op = nn.PadOp.make(*values([2, 3, 4, 9]), low=low, high=high, interior=interior, value=-1.5)
    check(op, [normal(2, 3, 4, 9)], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize(
    ("starts", "sizes", "steps"),
    [
        ([0, 1, 0], [2, 3, 33], [1, 1, 1]),
        ([1, 0, 5], [1, 5, 20], [1, 1, 1]),
        ([0, 0, 1], [2, 3, 16], [1, 2, 2]),
        ([1, 4, 32], [1, 1, 1], [1, 1, 1]),
    ],
)
def test_slice(starts, sizes, steps, lanes):
    op = nn.SliceOp.make(*values([2, 5, 33]), starts=starts, sizes=sizes, steps=steps)
    check(op, [normal(2, 5, 33)], lanes)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat(axis, lanes):
    shapes = [[2, 3, 8] for _ in range(3)]
    for number, shape in enumerate(shapes):
        shape[axis] += number
    op = nn.ConcatOp.make(*values(*shapes), axis=axis)
    check(op, [normal(*s, seed=n) for n, s in enumerate(shapes)], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("element", [i8, i32])
def test_integers(element, lanes):
    dtype = {i8: np.int8, i32: np.int32}[element]
    x = np.arange(4 * 19).astype(dtype).reshape(4, 19)
    kind = ([4, 19], element)
    check(nn.TransposeOp.make(*values(kind), permutation=[1, 0]), [x], lanes)
    box = {"starts": [1, 2], "sizes": [3, 11], "steps": [1, 1]}
    check(nn.SliceOp.make(*values(kind), **box), [x], lanes)
    check(nn.ConcatOp.make(*values(kind, kind), axis=1), [x, x], lanes)
    check(nn.ReshapeOp.make(*values(kind), shape=[2, 38]), [x], lanes)


@pytest.mark.parametrize("lanes", [16, 1])
def test_masks_move_by_rows(lanes):
    x = normal(2, 3, 11) > 0
    kind = ([2, 3, 11], i1)
    check(nn.TransposeOp.make(*values(kind), permutation=[1, 0, 2]), [x], lanes)
    box = {"starts": [0, 1, 0], "sizes": [2, 2, 11], "steps": [1, 1, 1]}
    check(nn.SliceOp.make(*values(kind), **box), [x], lanes)
    check(nn.ConcatOp.make(*values(kind, kind), axis=0), [x, ~x], lanes)
    check(nn.ReshapeOp.make(*values(kind), shape=[6, 11]), [x], lanes)


@pytest.mark.parametrize("lanes", LANES)
def test_copy_touches_the_box_only(lanes):
    target = replace(get_target("host"), lanes=lanes)
    box = MemRefType(f32, [3, 2, 5], StridedLayoutAttr([36, 9, 1]))
    dense = MemRefType(f32, [3, 2, 5])
    x = normal(3, 2, 5)
    for source, destination in ((box, dense), (dense, box), (box, box)):
        given, made, workspace = Buffer(source), Buffer(destination), Buffer(MemRefType(i8, [1]))
        given.write(x, tensor([3, 2, 5]))
        run_spec(copy(source, destination, target), [given], [made], workspace, target, "jit")
        np.testing.assert_array_equal(made.read(tensor([3, 2, 5])), x)
        assert (made.untouched() == POISON).all()
