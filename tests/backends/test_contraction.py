"""Convolution and matrix-product kernels against the reference semantics, at edge sizes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import BoolAttr
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from niwaki.backends.c.emit_kernel import KernelEmitter
from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.targets import Target, get_target
from niwaki.ir.builder import Builder, ProgramBuilder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.kernel import CompareOp, PrefetchOp
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.interpreter import run
from tests.backends.kernel_cases import FusedBuilder, normal, values
from tests.backends.run_kernel import reference, run_op

# Sums of up to 4,608 products of unit-variance f32 in another order than NumPy's.
TOLERANCE = 1e-5

Make = Callable[[Builder, SSAValue, SSAValue], SSAValue]


def lanes(count: int) -> Target:
    return replace(get_target("host"), lanes=count)


def check(make: Make, shapes: list[tuple[int, ...]], target: Target) -> None:
    rng = np.random.default_rng(0)
    b = ProgramBuilder()
    left, right = (b.input(shape) for shape in shapes)
    y = make(b, left, right)
    program = b.finish(y)
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in shapes]
    (expected,) = run(program, "forward", arrays)
    assert not isinstance(y.owner, type(None))
    (actual,) = run_op(y.owner, arrays, target)  # pyright: ignore[reportArgumentType]
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale)


@pytest.mark.parametrize("count", [16, 8, 4, 1])
@pytest.mark.parametrize(
    ("rows", "columns", "length"), [(1, 1, 1), (7, 9, 5), (31, 33, 65), (16, 10, 400), (64, 70, 31)]
)
def test_matmul(rows: int, columns: int, length: int, count: int) -> None:
    for a, b in [(False, False), (False, True), (True, False), (True, True)]:
        check(
            lambda k, x, y, a=a, b=b: k.matmul(x, y, transpose_a=a, transpose_b=b),
            [
                (length, rows) if a else (rows, length),
                (columns, length) if b else (length, columns),
            ],
            lanes(count),
        )


def test_matmul_of_far_columns() -> None:
    """A transposed A of many columns is copied strip by strip."""
    check(
        lambda k, x, y: k.matmul(x, y, transpose_a=True),
        [(33, 300), (33, 40)],
        replace(lanes(16), cache_bytes=1 << 14),
    )


@pytest.mark.parametrize("count", [16, 4])
def test_matmul_in_strips(count: int) -> None:
    """More rows than pass a panel together: all of B is packed, then strips of A follow."""
    for a, b in [(False, False), (False, True), (True, False), (True, True)]:
        check(
            lambda k, x, y, a=a, b=b: k.matmul(x, y, transpose_a=a, transpose_b=b),
            [(33, 270) if a else (270, 33), (50, 33) if b else (33, 50)],
            replace(lanes(count), cache_bytes=1 << 13),
        )


def test_matmul_of_long_rows() -> None:
    """Long sums over transposed B: packed, whether its panels are whole or not."""
    for columns in (64, 70):
        check(
            lambda k, x, y: k.matmul(x, y, transpose_b=True), [(49, 300), (columns, 300)], lanes(16)
        )


def _update(rows: int, columns: int, length: int) -> FuncOp:
    """The kernel of w - 0.1 * x^T y for w [rows, columns]."""
    k = FusedBuilder(values((length, rows), (length, columns), (rows, columns)))
    x, y, w = k.args
    fused = k.finish(k.sub(w, k.scale(k.matmul(x, y, transpose_a=True), 0.1)))
    kinds = [memref_of(type_of(v)) for v in (*fused.operands, *fused.results)]
    return select(fused, kinds[:3], kinds[3:], lanes(16)).build("update")


@pytest.mark.parametrize(("rows", "columns"), [(40, 40), (300, 70)])
def test_updates_prefetch_the_parameter(rows: int, columns: int) -> None:
    """And the result. Where columns are read in place, and where they are packed."""
    function = _update(rows, columns, 33)
    x, y, parameter, result, *_ = function.body.block.args
    prefetched = {op.ref for op in function.walk() if isinstance(op, PrefetchOp)} - {x, y}
    assert prefetched == {parameter, result}
    assert "prefetch" in emit_module([function], [], lanes(16))
    assert "prefetch" not in KernelEmitter(function).text().body


def test_products_prefetch_the_panel_to_be_packed() -> None:
    """None where the columns stay in cache."""

    def prefetched(columns: int, length: int) -> bool:
        x, w = values((40, length), (length, columns))
        product = nn.MatmulOp.make(
            x, w, transpose_a=BoolAttr.from_bool(False), transpose_b=BoolAttr.from_bool(False)
        )
        kinds = [memref_of(type_of(v)) for v in (x, w, product.y)]
        function = select(product, kinds[:2], kinds[2:], lanes(16)).build("product")
        _, packed, _, *_ = function.body.block.args
        return any(isinstance(op, PrefetchOp) and op.ref is packed for op in function.walk())

    assert prefetched(1000, 700)
    assert not prefetched(100, 70)


def _prefetches_left(product: nn.MatmulOp, cache_bytes: int) -> bool:
    kinds = [memref_of(type_of(v)) for v in (product.a, product.b, product.y)]
    target = replace(lanes(16), cache_bytes=cache_bytes)
    function = select(product, kinds[:2], kinds[2:], target).build("product")
    left, *_ = function.body.block.args
    return any(isinstance(op, PrefetchOp) and op.ref is left for op in function.walk())


@pytest.mark.parametrize(("rows", "length", "prefetched"), [(300, 90, True), (200, 90, False)])
def test_products_prefetch_columns_far_apart(rows: int, length: int, prefetched: bool) -> None:
    """Of the transposed A: none where several terms are in reach at once."""
    x, y = values((length, rows), (length, 100))
    product = nn.MatmulOp.make(
        x, y, transpose_a=BoolAttr.from_bool(True), transpose_b=BoolAttr.from_bool(False)
    )
    assert _prefetches_left(product, 1 << 16) == prefetched


@pytest.mark.parametrize(("stack", "prefetched"), [(9, True), (5, False)])
@pytest.mark.parametrize("transpose_a", [False, True])
def test_stacks_prefetch_the_following_matrix(
    stack: int, prefetched: bool, transpose_a: bool
) -> None:
    """None where the whole stack stays in cache."""
    x, y = values((stack, 40, 40), (stack, 40, 30))
    product = nn.MatmulOp.make(
        x, y, transpose_a=BoolAttr.from_bool(transpose_a), transpose_b=BoolAttr.from_bool(False)
    )
    assert _prefetches_left(product, 1 << 15) == prefetched


@pytest.mark.parametrize("count", [16, 4])
def test_matmul_with_gelu(count: int) -> None:
    """Every element of a tile goes through the same few instructions."""
    rows, columns, length = 40, 70, 33
    k = FusedBuilder(values((rows, length), (length, columns), (columns,)))
    x, w, bias = k.args
    before = k.add(k.matmul(x, w), bias)
    fused = k.finish(before, k.gelu(before))
    target = replace(lanes(count), cache_bytes=1 << 10)
    arrays = [normal(rows, length), normal(length, columns), normal(columns)]
    for got, expected in zip(run_op(fused, arrays, target), reference(fused, arrays), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=100 * TOLERANCE)
    kinds = [memref_of(type_of(v)) for v in (*fused.operands, *fused.results)]
    function = select(fused, kinds[:3], kinds[3:], target).build("product")
    vectors = rows * columns // count
    assert sum(isinstance(op, CompareOp) for op in function.walk()) < vectors // 4


@settings(max_examples=15)
@given(
    sizes=st.tuples(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40)),
    count=st.sampled_from([16, 8, 4]),
    registers=st.sampled_from([16, 32]),
    cache=st.sampled_from([1 << 10, 1 << 14]),
)
def test_matmul_beyond_cache(
    sizes: tuple[int, int, int], count: int, registers: int, cache: int
) -> None:
    rows, columns, length = sizes
    target = replace(lanes(count), vector_registers=registers, cache_bytes=cache)
    for a, b in [(False, False), (False, True), (True, False), (True, True)]:
        check(
            lambda k, x, y, a=a, b=b: k.matmul(x, y, transpose_a=a, transpose_b=b),
            [
                (length, rows) if a else (rows, length),
                (columns, length) if b else (length, columns),
            ],
            target,
        )


@pytest.mark.parametrize("count", [16, 1])
@pytest.mark.parametrize(("rows", "columns", "length"), [(1, 1, 1), (7, 9, 5), (33, 17, 16)])
def test_matmul_of_stacks(rows: int, columns: int, length: int, count: int) -> None:
    for a, b in [(False, False), (False, True), (True, False), (True, True)]:
        check(
            lambda k, x, y, a=a, b=b: k.matmul(x, y, transpose_a=a, transpose_b=b),
            [
                (2, 3, *((length, rows) if a else (rows, length))),
                (2, 3, *((columns, length) if b else (length, columns))),
            ],
            lanes(count),
        )


@dataclass(frozen=True)
class Case:
    """A convolution: input NHWC, output channels, kernel, and its window."""

    x: tuple[int, int, int, int]
    outputs: int
    kernel: int
    stride: int = 1
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: int = 1
    groups: int = 1


CASES = {
    "stem": Case((1, 8, 8, 3), 16, 3, padding=(1, 1, 1, 1)),
    "odd-stride-2": Case((2, 9, 7, 5), 9, 3, 2, (1, 1, 1, 1)),
    "pointwise": Case((1, 6, 6, 17), 25, 1),
    "pointwise-stride-2": Case((2, 5, 5, 8), 12, 1, 2),
    "asymmetric": Case((1, 8, 6, 4), 7, 3, 2, (0, 1, 2, 1)),
    "dilated-grouped": Case((1, 9, 9, 6), 8, 3, 1, (2, 2, 2, 2), 2, 2),
    "many-to-few": Case((1, 3, 3, 64), 20, 3, padding=(1, 1, 1, 1)),
    "wide": Case((2, 8, 8, 33), 70, 3, padding=(1, 1, 1, 1)),
    "multiplier-2": Case((1, 8, 8, 4), 8, 3, padding=(1, 1, 1, 1), groups=4),
    "depthwise": Case((1, 8, 8, 8), 8, 3, padding=(1, 1, 1, 1), groups=8),
    "depthwise-stride-2": Case((2, 9, 9, 20), 20, 3, 2, (1, 1, 1, 1), 1, 20),
    "depthwise-5": Case((1, 10, 10, 24), 24, 5, 1, (2, 2, 2, 2), 1, 24),
    "depthwise-7-stride-2": Case((1, 9, 11, 12), 12, 7, 2, (3, 3, 3, 3), 1, 12),
    "depthwise-of-images": Case((8, 11, 12, 20), 20, 3, 1, (1, 1, 1, 1), 1, 20),
    "depthwise-of-rows": Case((1, 43, 24, 20), 20, 3, 1, (1, 1, 1, 1), 1, 20),
    "depthwise-of-rows-stride-2": Case((3, 40, 43, 9), 9, 3, 2, (1, 1, 1, 1), 1, 9),
    "depthwise-dilated": Case((1, 8, 8, 6), 6, 3, 2, (2, 1, 2, 3), 2, 6),
    "stride-beyond-kernel": Case((1, 8, 8, 6), 5, 2, 3),
    "one-pixel": Case((1, 1, 1, 7), 9, 3, 1, (1, 1, 1, 1)),
}


@pytest.mark.parametrize("count", [16, 4, 1])
@pytest.mark.parametrize("name", CASES)
def test_convolution(name: str, count: int) -> None:
    check_convolution(CASES[name], lanes(count))


@pytest.mark.parametrize("count", [16, 4])
@pytest.mark.parametrize("name", CASES)
def test_convolution_beyond_cache(name: str, count: int) -> None:
    """Kernels that prefetch, and share what they read between neighbouring rows."""
    check_convolution(CASES[name], replace(lanes(count), cache_bytes=1 << 8))


@pytest.mark.parametrize("groups", [1, 24])
def test_convolutions_prefetch_what_streams_past(groups: int) -> None:
    """Pointwise and depthwise ones and their cotangents, where operands exceed the cache."""
    kernel, pad = (1, 0) if groups == 1 else (3, 1)
    x, w = (2, 14, 14, 24), (24, kernel, kernel, 24 // groups)
    window = nn.Window((1, 1), (pad, pad, pad, pad), (1, 1), groups)
    makes: list[Make] = [
        lambda b, x, w: b.conv2d(x, w, 1, pad, 1, groups),
        lambda b, g, w: b.conv2d_dx(g, w, window, x[1:3]),
        lambda b, x, g: b.conv2d_dw(x, g, window, w[1:3]),
    ]

    def prefetched(make: Make, second: tuple[int, ...], cache: int) -> bool:
        b = ProgramBuilder()
        y = make(b, b.input(x), b.input(second))
        op = y.owner
        assert isinstance(op, Operation)
        kinds = [[memref_of(type_of(v)) for v in side] for side in (op.operands, op.results)]
        target = replace(lanes(16), cache_bytes=cache)
        function = select(op, kinds[0], kinds[1], target).build("kernel")
        return any(isinstance(op, PrefetchOp) for op in function.walk())

    for make, second in zip(makes, (w, w, x), strict=True):
        assert prefetched(make, second, 1 << 14)
        assert not prefetched(make, second, 1 << 20)


def check_convolution(case: Case, target: Target) -> None:
    """Forward and both cotangents."""
    w = (case.outputs, case.kernel, case.kernel, case.x[3] // case.groups)
    window = nn.Window(
        (case.stride, case.stride), case.padding, (case.dilation, case.dilation), case.groups
    )

    def forward(b: Builder, x: SSAValue, w: SSAValue) -> SSAValue:
        return b.conv2d(x, w, case.stride, case.padding, case.dilation, case.groups)

    b = ProgramBuilder()
    dy = shape_of(forward(b, b.input(case.x), b.input(w)))
    check(forward, [case.x, w], target)
    check(lambda b, g, w: b.conv2d_dx(g, w, window, case.x[1:3]), [dy, w], target)
    check(lambda b, x, g: b.conv2d_dw(x, g, window, w[1:3]), [case.x, dy], target)


@pytest.mark.parametrize("count", [16, 8, 1])
def test_epilogue(count: int) -> None:
    """Bias, residual, relu6 and its mask, in the kernel of the convolution."""
    rng = np.random.default_rng(1)
    shape, channels = (2, 5, 5, 6), 11
    b = ProgramBuilder()
    x, w = b.input(shape), b.input((channels, 3, 3, 6))
    bias, residual = b.input((channels,)), b.input((2, 5, 5, channels))
    # The group as the fusion pass makes it, built by hand.
    from xdsl.ir import Block, Region

    inner = Block(arg_types=[v.type for v in (x, w, bias, residual)])
    k = Builder.at_end(inner)
    y = k.conv2d(inner.args[0], inner.args[1], 1, 1)
    y = k.relu6(k.add(k.add(y, inner.args[2]), inner.args[3]))
    mask = k.logical_and(k.compare(y, k.constant(0.0), "gt"), k.compare(y, k.constant(6.0), "lt"))
    k.insert(nn.YieldOp(y, mask))
    fused = nn.FusedOp.create(
        operands=[x, w, bias, residual], result_types=[y.type, mask.type], regions=[Region(inner)]
    )
    b.insert(fused)
    program = b.finish(*fused.results)
    arrays = [
        rng.standard_normal(s).astype(np.float32)
        for s in (shape, (channels, 3, 3, 6), (channels,), (2, 5, 5, channels))
    ]
    expected = run(program, "forward", arrays)
    actual = run_op(fused, arrays, lanes(count))
    np.testing.assert_allclose(actual[0], expected[0], rtol=0, atol=6 * TOLERANCE)
    np.testing.assert_array_equal(actual[1], expected[1])
