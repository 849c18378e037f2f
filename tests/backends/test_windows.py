"""Convolutions of vector machines against the reference semantics, at drawn shapes."""

from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from tests.backends.kernel_cases import values
from tests.backends.test_contraction import check


@st.composite
def _layers(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], nn.Window]:
    """Input NHWC, filter OHWI and a window whose output exists."""
    kernel = draw(st.tuples(*[st.integers(1, 4)] * 2))
    dilation = draw(st.tuples(*[st.integers(1, 2)] * 2))
    strides = draw(st.tuples(*[st.integers(1, 3)] * 2))
    padding = draw(st.tuples(*[st.integers(0, 3)] * 4))
    size = [draw(st.integers(1 + (k - 1) * d, 12)) for k, d in zip(kernel, dilation, strict=True)]
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    depth, width = draw(st.integers(1, 20)), draw(st.integers(1, 40))
    x = (draw(st.sampled_from([1, 2, 3, 4, 6])), *size, groups * depth)
    return x, (groups * width, *kernel, depth), nn.Window(strides, padding, dilation, groups)


@settings(max_examples=25)
@given(
    layer=_layers(),
    lanes=st.sampled_from([16, 8, 4]),
    registers=st.sampled_from([16, 32]),
    cache=st.sampled_from([1 << 10, 1 << 14, 1 << 20]),
)
def test_convolutions(
    layer: tuple[tuple[int, ...], tuple[int, ...], nn.Window],
    lanes: int,
    registers: int,
    cache: int,
) -> None:
    """Small caches cut images into strips, large ones hold several images at once."""
    x, w, window = layer
    target = replace(get_target("host"), lanes=lanes, vector_registers=registers, cache_bytes=cache)
    arguments = (window.strides, window.padding, window.dilation, window.groups)
    b = ProgramBuilder()
    dy = shape_of(b.conv2d(b.input(x), b.input(w), *arguments))
    check(lambda b, x, w: b.conv2d(x, w, *arguments), [x, w], target)
    check(lambda b, g, w: b.conv2d_dx(g, w, window, x[1:3]), [dy, w], target)
    check(lambda b, x, g: b.conv2d_dw(x, g, window, w[1:3]), [x, dy], target)


@pytest.mark.parametrize("lanes", [16, 4])
@pytest.mark.parametrize(
    ("x", "outputs", "kernel"),
    [((1, 36, 42, 8), 12, 1), ((8, 14, 14, 8), 12, 1), ((1, 66, 64, 3), 4, 3)],
)
def test_filter_gradients_in_bands(
    x: tuple[int, int, int, int], outputs: int, kernel: int, lanes: int
) -> None:
    """Of strips, with some left over, and of images."""
    target = replace(get_target("host"), lanes=lanes, cache_bytes=1 << 14)
    window = nn.Window((1, 1), (kernel // 2,) * 4, (1, 1), 1)
    dy = (*x[:3], outputs)
    size = (kernel, kernel)
    op = nn.Conv2dDwOp.make(*values(x, dy), **asdict(window), kernel_size=size)
    kinds = [[memref_of(type_of(v)) for v in side] for side in (op.operands, op.results)]
    sums = outputs * kernel**2 * x[3]
    assert select(op, *kinds, target).workspace >= 8 * sums * 4
    check(lambda b, x, g: b.conv2d_dw(x, g, window, size), [x, dy], target)
