"""Kernels of reductions, with what is fused around them."""

from dataclasses import replace

import numpy as np
import pytest
from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr, i32

from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.kernels.threads.on_threads import on_threads
from niwaki.backends.targets import get_target, with_threads
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.kernel import ParallelOp, PrefetchOp
from niwaki.ir.dialects.tensor_op import f32, i1, type_of
from tests.backends.kernel_cases import LANES, SIZES, FusedBuilder, check, normal, values
from tests.backends.run_kernel import run_op

ROUNDING = 1e-6
KINDS = [nn.ReduceSumOp, nn.ReduceMeanOp, nn.ReduceMaxOp]


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", SIZES)
def test_rows_and_columns(size, lanes):
    x = np.abs(normal(5, size))
    check(nn.ReduceSumOp.make(*values([5, size]), axes=[1]), [x], lanes, ROUNDING)
    check(nn.ReduceSumOp.make(*values([5, size]), axes=[0]), [x], lanes, ROUNDING)
    check(nn.ReduceSumOp.make(*values([size, 5]), axes=[0]), [x.T.copy()], lanes, ROUNDING)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("axes", [[], [0], [3], [0, 2], [1, 3], [0, 1, 2], [0, 1, 2, 3]])
@pytest.mark.parametrize("kind", KINDS)
def test_axes(kind, axes, lanes):
    op = kind.make(*values([3, 4, 5, 18]), axes=axes)
    check(op, [normal(3, 4, 5, 18)], lanes, ROUNDING)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("shape", [(1, 1, 7), (3, 1, 1), (1, 1), (1, 2, 1, 2)])
def test_sizes_of_one(shape, lanes):
    x = normal(*shape)
    for axes in ([0], [len(shape) - 1], list(range(len(shape)))):
        check(nn.ReduceSumOp.make(*values(shape), axes=axes), [x], lanes, ROUNDING)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize(("shape", "axis"), [((100003,), 0), ((20001, 3), 0), ((2, 30011), 1)])
def test_long_sums_keep_their_digits(shape, axis, lanes):
    x = np.abs(normal(*shape)) + np.float32(1)
    check(nn.ReduceSumOp.make(*values(shape), axes=[axis]), [x], lanes, ROUNDING)


def test_a_wide_row_of_columns():
    check(nn.ReduceSumOp.make(*values([6, 300]), axes=[0]), [normal(6, 300)], 16, ROUNDING)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
def test_integers(axes, lanes):
    x = np.random.default_rng(0).integers(-9, 9, (3, 19)).astype(np.int32)
    for kind in (nn.ReduceSumOp, nn.ReduceMaxOp):
        check(kind.make(*values(([3, 19], i32)), axes=axes), [x], lanes)


def test_maximum_of_negative_numbers():
    x = -np.abs(normal(3, 9))
    x[1] = -np.inf
    check(nn.ReduceMaxOp.make(*values([3, 9]), axes=[1]), [x], 8)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("axes", [[0], [1]])
def test_strided(axes, lanes):
    op = nn.ReduceSumOp.make(*values([6, 20]), axes=axes)
    kind = MemRefType(f32, [6, 20], StridedLayoutAttr([50, 2]))
    results = [memref_of(type_of(op.results[0]))]
    check(op, [normal(6, 20)], lanes, ROUNDING, operands=[kind], results=results)


@pytest.mark.parametrize("lanes", [16, 1])
@pytest.mark.parametrize("size", [1, 9, 40])
@pytest.mark.parametrize("axes", [[0, 1], [2], [0, 1, 2]])
def test_prologue_and_epilogue(axes, size, lanes):
    shape = [1 if a in axes else s for a, s in enumerate((3, 4, size))]
    operands = values([3, 4, size], [size], shape, [])
    b = FusedBuilder(operands)
    x, mean, old, momentum = b.args
    centred = b.sub(x, mean)
    var = b.reduce_mean(b.mul(centred, centred), axes)
    moved = b.add(b.mul(old, momentum), var)
    arrays = [normal(3, 4, size), normal(size), normal(*shape), np.array(0.9, np.float32)]
    check(b.finish(moved, b.sqrt(var)), arrays, lanes, ROUNDING)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("size", [7, 40])
@pytest.mark.parametrize("axes", [[0, 1], [2]])
@pytest.mark.parametrize("in_place", [False, True])
def test_results_of_the_prologue_are_stored_on_the_way(axes, size, lanes, in_place):
    shape = [3, 4, size]
    b = FusedBuilder(values(shape, (shape, i1)))
    dy, mask = b.args
    kept = b.select(mask, dy, b.constant(0.0))
    op = b.finish(kept, b.reduce_sum(kept, axes), b.logical_and(mask, mask))
    arrays = [normal(*shape), normal(*shape, seed=1) > 0]
    check(op, arrays, lanes, ROUNDING, in_place=in_place)


@pytest.mark.parametrize("lanes", [16, 4])
@pytest.mark.parametrize("columns", [3, 40, 150])
@pytest.mark.parametrize("in_place", [False, True])
def test_bands_of_long_columns(columns, lanes, in_place):
    shape = [2, 515, columns]  # 8 bands of 128 rows, and six rows more
    b = FusedBuilder(values(shape, (shape, i1)))
    dy, mask = b.args
    kept = b.select(mask, dy, b.constant(0.0))
    op = b.finish(kept, b.reduce_mean(kept, [0, 1]))
    arrays = [normal(*shape), normal(*shape, seed=1) > 0]
    check(op, arrays, lanes, ROUNDING, in_place=in_place)


@pytest.mark.parametrize(("columns", "prefetched"), [(128, False), (192, True)])
def test_parts_of_rows_are_prefetched(columns, prefetched):
    """Whole rows are one stream, which the machine prefetches."""
    op = nn.ReduceSumOp.make(*values([1024, columns]), axes=[0])
    kinds = [memref_of(type_of(v)) for v in (op.x, op.y)]
    target = replace(get_target("host"), lanes=16, vector_registers=32)
    function = select(op, kinds[:1], kinds[1:], target).build("sum")
    assert any(isinstance(inner, PrefetchOp) for inner in function.walk()) == prefetched


def test_bands_are_shared_by_threads():
    op = nn.ReduceSumOp.make(*values([4000, 37]), axes=[0])
    kinds = [[memref_of(type_of(v)) for v in side] for side in (op.operands, op.results)]
    target = with_threads(get_target("host"), 2)
    spec = select(op, *kinds, target)
    assert spec.workspace == 8 * 37 * 4
    kernel = on_threads(spec, target).build("kernel")
    assert any(isinstance(op, ParallelOp) for op in kernel.walk())


def test_runs_are_bitwise_equal():
    op = nn.ReduceSumOp.make(*values([1000, 37]), axes=[0, 1])
    first, second = (run_op(op, [normal(1000, 37)], get_target("host"))[0] for _ in range(2))
    assert first.tobytes() == second.tobytes()
