"""Every alternative of a contraction computes what the reference semantics say, chosen or not."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.ir import Operation

from niwaki.backends.kernels.select import alternatives, select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import Target, get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from tests.backends.run_kernel import Array, reference, run_op

# Of sums of up to 800 products in another order, over the largest of them.
TOLERANCE = 1e-5


def offered(op: Operation, target: Target) -> list[str]:
    """The names, the model's choice first."""
    kinds = (
        [memref_of(type_of(v)) for v in op.operands],
        [memref_of(type_of(v)) for v in op.results],
    )
    return [a.name for a in alternatives(op, *kinds, target)]


def check(op: Operation, shapes: Sequence[tuple[int, ...]], target: Target) -> None:
    rng = np.random.default_rng(0)
    arrays: list[Array] = [rng.standard_normal(s).astype(np.float32) for s in shapes]
    (expected,) = reference(op, arrays)
    scale = max(1.0, float(np.abs(expected).max()))
    for name in offered(op, target):
        (actual,) = run_op(op, arrays, target, alternative=name)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale, err_msg=name)


def _target(lanes: int, registers: int, cache: int) -> Target:
    host = get_target("host")
    return replace(host, lanes=lanes, vector_registers=registers, cache_bytes=cache)


targets = st.builds(
    _target,
    st.sampled_from([16, 8, 4, 1]),
    st.sampled_from([16, 32]),
    st.sampled_from([1 << 12, 1 << 20]),
)


@settings(max_examples=12)
@given(
    stack=st.integers(1, 2),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 70), st.integers(1, 40)),
    form=st.tuples(st.booleans(), st.booleans()),
    target=targets,
)
def test_products(
    stack: int, sizes: tuple[int, int, int], form: tuple[bool, bool], target: Target
) -> None:
    (rows, columns, length), (ta, tb) = sizes, form
    shapes = [
        (stack, length, rows) if ta else (stack, rows, length),
        (stack, columns, length) if tb else (stack, length, columns),
    ]
    b = ProgramBuilder()
    y = b.matmul(*map(b.input, shapes), transpose_a=ta, transpose_b=tb)
    assert isinstance(y.owner, Operation)
    check(y.owner, shapes, target)


@settings(max_examples=12)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    groups=st.integers(1, 2),
    target=targets,
)
def test_convolutions(
    size: tuple[int, int],
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    groups: int,
    target: Target,
) -> None:
    inputs, outputs = (n * groups for n in channels)
    x, w = (2, *size, inputs), (outputs, kernel, kernel, inputs // groups)
    window = nn.Window((stride, stride), (padding, padding, padding, padding), (1, 1), groups)
    b = ProgramBuilder()
    y = b.conv2d(b.input(x), b.input(w), stride, padding, 1, groups)
    dy = shape_of(y)
    dx = b.conv2d_dx(b.input(dy), b.input(w), window, size)
    dw = b.conv2d_dw(b.input(x), b.input(dy), window, (kernel, kernel))
    for value, shapes in ((y, [x, w]), (dx, [dy, w]), (dw, [x, dy])):
        assert isinstance(value.owner, Operation)
        check(value.owner, shapes, target)


def product(rows: int, columns: int, length: int, transpose_b: bool = False) -> Operation:
    b = ProgramBuilder()
    right = (columns, length) if transpose_b else (length, columns)
    y = b.matmul(b.input((rows, length)), b.input(right), transpose_b=transpose_b)
    assert isinstance(y.owner, Operation)
    return y.owner


def test_the_model_chooses_the_first() -> None:
    target = replace(get_target("host"), lanes=16, vector_registers=32)
    op = product(128, 512, 512, transpose_b=True)
    kinds = (
        [memref_of(type_of(v)) for v in op.operands],
        [memref_of(type_of(v)) for v in op.results],
    )
    found = alternatives(op, *kinds, target)
    assert len({a.name for a in found}) == len(found) > 4
    # The packed product needs scratch, of which the model's choice is told.
    assert found[0].name == "packed-product"
    assert select(op, *kinds, target).workspace == found[0].spec().workspace > 0


@pytest.mark.parametrize(
    ("rows", "transpose_b", "expected"),
    [(1, True, "dot-products"), (1, False, "outer-products"), (512, False, "packed-product")],
)
def test_model_by_shape(rows: int, transpose_b: bool, expected: str) -> None:
    target = replace(get_target("host"), lanes=16, vector_registers=32)
    assert offered(product(rows, 768, 768, transpose_b), target)[0].startswith(expected)


def test_scalar_machines_do_not_pack() -> None:
    assert offered(product(128, 512, 512), get_target("cortex-m4")) == ["outer-products"]


@pytest.mark.parametrize(
    ("size", "channels", "expected"),
    [
        (28, 16, ["windows", "gathered", "winograd F(2x2)"]),
        (56, 64, ["winograd F(4x4)", "winograd F(2x2)", "windows", "gathered"]),
    ],
)
def test_fewer_multiplications_are_alternatives(
    size: int, channels: int, expected: list[str]
) -> None:
    """Where they are the model's choice, and where not."""
    target = replace(get_target("host"), lanes=16, vector_registers=32, cache_bytes=1 << 20)
    b = ProgramBuilder()
    y = b.conv2d(b.input((1, size, size, channels)), b.input((channels, 3, 3, channels)), padding=1)
    assert isinstance(y.owner, Operation)
    found = [name for name in offered(y.owner, target) if not name.startswith("windows ")]
    assert found == expected
