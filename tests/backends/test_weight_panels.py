"""Kernels with weights that come packed: the same bits as those that pack them, and no packing."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import MemRefType, i8
from xdsl.ir import Operation, SSAValue

from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import KernelSpec, memref_of
from niwaki.backends.targets import Target, get_target
from niwaki.ir.builder import Builder, ProgramBuilder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import bf16, shape_of, type_of
from tests.backends.kernel_cases import normal
from tests.backends.run_kernel import Array, Buffer, run_spec

Make = Callable[[Builder, SSAValue, SSAValue], SSAValue]

TARGETS = st.builds(
    replace,
    st.just(get_target("host")),
    lanes=st.sampled_from([16, 8, 4]),
    vector_registers=st.sampled_from([16, 32]),
    cache_bytes=st.sampled_from([1 << 10, 1 << 14, 1 << 20]),
)


def spec_of(make: Make, shapes: Sequence[Sequence[int]], target: Target) -> KernelSpec:
    """Of one operation on tensors of `shapes`."""
    b = ProgramBuilder()
    left, right = (b.input(shape) for shape in shapes)
    op = make(b, left, right).owner
    assert isinstance(op, Operation)
    kinds = [memref_of(type_of(v)) for v in (left, right)]
    return select(op, kinds, [memref_of(type_of(op.results[0]))], target)


def result(spec: KernelSpec, arrays: Sequence[Array], target: Target) -> Array:
    """What the kernel makes of `arrays`; all other memory is poisoned."""
    inputs, outputs = ([Buffer(kind) for kind in kinds] for kinds in (spec.operands, spec.results))
    for buffer, array in zip(inputs, arrays, strict=True):
        buffer.elements()[...] = array
    workspace = Buffer(MemRefType(i8, [max(spec.workspace, 1)]))
    run_spec(spec, inputs, outputs, workspace, target, "jit")
    return outputs[0].elements().copy()


def check(make: Make, shapes: Sequence[Sequence[int]], target: Target) -> bool:
    """Both kernels on the same arrays, if there are two."""
    spec = spec_of(make, shapes, target)
    if spec.prepacked is None:
        return False
    a, w = (normal(*shape, seed=n) for n, shape in enumerate(shapes))
    prepacked, packing = spec.prepacked, spec.prepacked.packing
    stored = packing.packed(w)
    assert (prepacked.operand, packing.shape, stored.shape) == (1, w.shape, (packing.elements,))
    assert prepacked.spec.workspace < spec.workspace
    if packing.complete:
        assert np.array_equal(packing.plain(stored), w)
    expected = result(spec, [a, w], target)
    assert np.array_equal(result(prepacked.spec, [a, stored], target), expected)
    return True


@settings(max_examples=10)
@given(
    size=st.tuples(st.integers(3, 12), st.integers(3, 12)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 40)),
    groups=st.sampled_from([1, 1, 2]),
    batch=st.integers(1, 4),
    target=TARGETS,
)
def test_convolutions(
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: int,
    channels: tuple[int, int],
    groups: int,
    batch: int,
    target: Target,
) -> None:
    depth, width = channels
    x, w = (batch, *size, groups * depth), (groups * width, *kernel, depth)
    window = nn.Window((stride, stride), (1, 1, 1, 1), (1, 1), groups)
    b = ProgramBuilder()
    y = b.conv2d(b.input(x), b.input(w), stride, 1, 1, groups)
    check(lambda b, x, w: b.conv2d(x, w, stride, 1, 1, groups), [x, w], target)
    check(lambda b, g, w: b.conv2d_dx(g, w, window, size), [shape_of(y), w], target)


@settings(max_examples=10)
@given(
    sizes=st.tuples(st.integers(12, 90), st.integers(1, 90), st.integers(1, 90)),
    transposed=st.booleans(),
    target=TARGETS,
)
def test_products(sizes: tuple[int, int, int], transposed: bool, target: Target) -> None:
    rows, columns, length = sizes
    check(
        lambda b, x, w: b.matmul(x, w, transpose_b=transposed),
        [(rows, length), (columns, length) if transposed else (length, columns)],
        target,
    )


@settings(max_examples=6)
@given(
    size=st.integers(1, 9),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    channels=st.integers(2, 40),
    target=TARGETS,
)
def test_depthwise(size: int, kernel: int, stride: int, channels: int, target: Target) -> None:
    x, w = (2, size, size, channels), (channels, kernel, kernel, 1)
    window = nn.Window((stride, stride), (1, 1, 1, 1), (1, 1), channels)
    b = ProgramBuilder()
    y = b.conv2d(b.input(x), b.input(w), stride, 1, 1, channels)
    assert check(lambda b, x, w: b.conv2d(x, w, stride, 1, 1, channels), [x, w], target)
    assert check(lambda b, g, w: b.conv2d_dx(g, w, window, (size, size)), [shape_of(y), w], target)


def test_large_layers_pack() -> None:
    """The drawn ones above are not all without a packed form."""
    for lanes, registers in ((16, 32), (8, 16)):
        target = replace(get_target("host"), lanes=lanes, vector_registers=registers)
        x, w = (1, 8, 8, 32), (48, 3, 3, 32)
        assert check(lambda b, x, w: b.conv2d(x, w, padding=1), [x, w], target)
        assert check(lambda b, x, w: b.matmul(x, w, transpose_b=True), [(64, 40), (50, 40)], target)


@pytest.mark.parametrize("kernel", [1, 5])
def test_only_the_strips_with_zeros_around_them_stay_scratch(kernel: int) -> None:
    x, w = (1, 16, 16, 32), (64, kernel, kernel, 32)
    spec = spec_of(lambda b, x, w: b.conv2d(x, w, padding=kernel // 2), [x, w], get_target("host"))
    assert spec.prepacked is not None
    left = spec.prepacked.spec.workspace
    assert left == 0 if kernel == 1 else 0 < left <= 4 * 20 * 20 * 32


def test_taps_that_no_position_meets_are_not_packed() -> None:
    """The cotangent of one position of a strided convolution: a packing without all taps."""
    window = nn.Window((3, 3), (1, 1, 1, 1), (1, 1), 1)
    target = get_target("host")
    dy, w = (16, 1, 1, 8), (8, 3, 3, 4)
    spec = spec_of(lambda b, g, w: b.conv2d_dx(g, w, window, (1, 1)), [dy, w], target)
    assert spec.prepacked is not None
    assert not spec.prepacked.packing.complete
    assert check(lambda b, g, w: b.conv2d_dx(g, w, window, (1, 1)), [dy, w], target)


def test_narrow_weights_and_products_of_activations_stay_as_they_are() -> None:
    target = get_target("host")
    b = ProgramBuilder()
    y = b.matmul(b.input([64, 40], bf16), b.input([50, 40], bf16), transpose_b=True)
    op = y.owner
    assert isinstance(op, nn.MatmulOp)
    kinds = [memref_of(type_of(v)) for v in op.operands]
    assert select(op, kinds, [memref_of(type_of(op.y))], target).prepacked is None
    stacked = spec_of(
        lambda b, x, y: b.matmul(x, y, transpose_b=True), [(2, 64, 40), (2, 50, 40)], target
    )
    assert stacked.prepacked is None
