"""Integer convolutions for cores with vectors of codes (Helium), against the interpreter."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.backends.targets import get_target
from tests.backends.quantized_layer import QuantizedLayer, Shape
from tests.c_programs import compile_at, need_tools, run_c, run_jit

CORE = "cortex-m55"
CASES: dict[str, Shape] = {
    **{
        f"1x1 of {depth}": ((1, 3, 5, depth), (8, 1, 1, depth), 1, 0, 1)
        for depth in (1, 8, 16, 17, 31, 48, 63, 64, 65, 100)
    },
    "1x1 of odd channels": ((1, 3, 3, 7), (5, 1, 1, 7), 1, 0, 1),
    "1x1 stride": ((1, 5, 5, 8), (4, 1, 1, 8), 2, 0, 1),
    "stem": ((1, 13, 9, 3), (4, 3, 3, 3), 2, 1, 1),
    "3x3 of a batch": ((2, 5, 6, 4), (8, 3, 3, 4), 1, 1, 1),
    "groups": ((1, 4, 4, 8), (4, 3, 3, 4), 1, 1, 2),
    "depthwise": ((1, 6, 7, 8), (8, 3, 3, 1), 1, 1, 8),
    "depthwise stride": ((2, 7, 8, 4), (4, 5, 5, 1), 2, 2, 4),
    "depthwise large": ((1, 11, 5, 4), (4, 7, 7, 1), 1, 3, 4),
    "depthwise of odd channels": ((1, 5, 5, 6), (6, 3, 3, 1), 1, 1, 6),
}
MASKED = ("1x1 of 8", "1x1 of 100", "3x3 of a batch", "depthwise")


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Of layers that the kernels of vectors take, and of some that they leave to others."""
    size, stride = draw(st.sampled_from([1, 3, 4, 5, 7])), draw(st.integers(1, 2))
    height, width = (draw(st.integers(size, 9)) for _ in range(2))
    channels = 4 * draw(st.integers(1, 3))
    padding = draw(st.integers(0, size // 2))
    if draw(st.booleans()):
        return (1, height, width, channels), (channels, size, size, 1), stride, padding, channels
    depth = draw(st.integers(1, 20))
    return (1, height, width, depth), (channels, size, size, depth), stride, padding, 1


@settings(max_examples=30)
@given(shapes(), st.booleans(), st.sampled_from([-128, -1, 0, 127]))
def test_drawn_shapes(shape: Shape, masked: bool, zero_point: int) -> None:
    layer = QuantizedLayer(shape, CORE, masked, zero_point)

    layer.check(run_jit(layer.kernel, layer.operands))


@pytest.mark.parametrize("name", CASES)
def test_host_under_sanitizers(name: str, tmp_path: Path) -> None:
    target = get_target("x86-64")
    need_tools(target)
    layer = QuantizedLayer(CASES[name], CORE)

    layer.check(run_c(layer.kernel, layer.operands, target, tmp_path, sanitize=True)[0])


@pytest.mark.parametrize(
    ("name", "masked"), [(name, False) for name in CASES] + [(name, True) for name in MASKED]
)
def test_core(name: str, masked: bool, tmp_path: Path) -> None:
    target = get_target(CORE)
    need_tools(target)
    layer = QuantizedLayer(CASES[name], CORE, masked)

    layer.check(run_c(layer.kernel, layer.operands, target, tmp_path)[0])


@pytest.mark.parametrize("level", ["-O0", "-O1", "-Os", "-O3"])
@pytest.mark.parametrize("name", ["1x1 of 8", "1x1 of 100", "depthwise large"])
def test_every_optimisation_level(name: str, level: str, tmp_path: Path) -> None:
    """The assembly fits the registers that compilers leave it."""
    layer = QuantizedLayer(CASES[name], CORE)

    assert compile_at(level, layer.kernel, layer.operands, tmp_path, CORE).stat().st_size > 0
