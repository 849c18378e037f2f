"""Integer convolutions for cores with packed halves, as C: bias, rescaling and clamping fused."""

from pathlib import Path

import numpy as np
import pytest

from niwaki.backends.targets import get_target
from tests.backends.quantized_layer import QuantizedLayer
from tests.c_programs import compile_at, need_tools, run_c, run_jit

CASES = {
    "1x1": ((1, 4, 5, 12), (6, 1, 1, 12), 1, 0, 1),
    "1x1 odd": ((1, 3, 3, 7), (5, 1, 1, 7), 1, 0, 1),
    "1x1 deep": ((1, 2, 4, 40), (3, 1, 1, 40), 1, 0, 1),
    "stem": ((1, 9, 9, 3), (4, 3, 3, 3), 2, 1, 1),
    "groups": ((1, 4, 4, 8), (4, 3, 3, 4), 1, 1, 2),
    "depthwise": ((1, 6, 7, 4), (4, 3, 3, 1), 1, 1, 4),
    "depthwise stride": ((2, 7, 7, 3), (3, 5, 5, 1), 2, 2, 3),
    "depthwise large": ((1, 5, 5, 2), (2, 7, 7, 1), 1, 3, 2),
    "depthwise even": ((1, 5, 6, 2), (2, 4, 4, 1), 1, 1, 2),
}
MASKED = {
    "1x1": ((1, 3, 5, 8), (16, 1, 1, 8), 1, 0, 1),
    "1x1 odd": ((1, 3, 3, 8), (6, 1, 1, 8), 1, 0, 1),
    "groups": ((1, 4, 4, 8), (16, 3, 3, 4), 1, 1, 2),
    "depthwise": ((1, 5, 6, 16), (16, 3, 3, 1), 1, 1, 16),
    "depthwise odd": ((1, 5, 5, 6), (6, 3, 3, 1), 1, 1, 6),
}
"""With a mask of what was not clamped: widths of whole bytes and others."""
CORES = ("1x1", "stem", "depthwise")
cases = pytest.mark.parametrize("name", CASES)


@cases
def test_jit(name: str) -> None:
    layer = QuantizedLayer(CASES[name], "cortex-m7")

    layer.check(run_jit(layer.kernel, layer.operands))

    assert len(np.unique(layer.right[0])) > 5


@cases
def test_host_under_sanitizers(name: str, tmp_path: Path) -> None:
    target = get_target("x86-64")
    need_tools(target)
    layer = QuantizedLayer(CASES[name], "cortex-m7")

    layer.check(run_c(layer.kernel, layer.operands, target, tmp_path, sanitize=True)[0])


@pytest.mark.parametrize(
    ("core", "name"),
    [("cortex-m7", name) for name in CASES]
    + [(core, name) for core in ("cortex-m4", "cortex-m33", "cortex-m55") for name in CORES],
)
def test_cores(core: str, name: str, tmp_path: Path) -> None:
    target = get_target(core)
    need_tools(target)
    layer = QuantizedLayer(CASES[name], "cortex-m7")

    layer.check(run_c(layer.kernel, layer.operands, target, tmp_path)[0])


@pytest.mark.parametrize("name", MASKED)
def test_masks(name: str, tmp_path: Path) -> None:
    """As JIT and on a core: the bytes of a mask whose bits are made one after the other."""
    target = get_target("cortex-m7")
    need_tools(target)
    layer = QuantizedLayer(MASKED[name], "cortex-m7", masked=True)
    assert 0 < np.unpackbits(layer.right[1].view(np.uint8)).mean() < 0.9

    layer.check(run_jit(layer.kernel, layer.operands))
    layer.check(run_c(layer.kernel, layer.operands, target, tmp_path)[0])


@pytest.mark.parametrize("level", ["-O0", "-O1", "-Os", "-O3"])
def test_every_optimisation_level(level: str, tmp_path: Path) -> None:
    """The assembly fits the registers that compilers leave it."""
    layer = QuantizedLayer(CASES["1x1 deep"], "cortex-m7")

    assert compile_at(level, layer.kernel, layer.operands, tmp_path).stat().st_size > 0
