"""Integer convolutions for cores with packed halves, as C: bias, rescaling and clamping fused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import i8, i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.interpreter import run
from niwaki.passes.fuse import FusePass
from tests.c_programs import compile_at, need_tools, run_c, run_jit

Array = np.ndarray[Any, np.dtype[Any]]

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


class Case:
    """A quantised layer: its kernel for a Cortex-M, operands, and the codes that are right."""

    def __init__(self, name: str, masked: bool = False) -> None:
        x, w, stride, padding, groups = (MASKED if masked else CASES)[name]
        rng = np.random.default_rng(0)
        b = ProgramBuilder()
        kinds = ((x, i8), (w, i8), (w[:1], i32), (w[:1], i32))
        values = [b.input(shape, element) for shape, element in kinds]
        products = nn.IntegerConv2dOp.make(
            *values[:2],
            strides=[stride] * 2,
            padding=[padding] * 4,
            dilation=[1, 1],
            groups=groups,
            zero_point=-5,
        )
        sums = b.add(b.one(products), values[2])
        wide = b.rescale(sums, values[3], 36 if masked else 40, -3)
        low, high = (b.number(limit, wide) for limit in (-128, 127))
        codes = b.cast(b.max(b.min(wide, high), low), i8)
        inside = b.logical_and(b.compare(wide, low, "ge"), b.compare(wide, high, "le"))
        program = b.finish(codes, *([inside] * masked))
        arrays: list[Array] = [rng.integers(-128, 128, shape).astype(np.int8) for shape in (x, w)]
        arrays.append(rng.integers(-(2**14), 2**14, w[0]).astype(np.int32))
        arrays.append(rng.integers(2**29, 2**31, w[0]).astype(np.int32))
        self.right, *masks = map(np.asarray, run(program, "forward", arrays))
        self.masks = [np.packbits(m, axis=-1, bitorder="little").view(np.int8) for m in masks]
        FusePass().apply(NiwakiContext(program.weights), program.module)
        (function,) = program.module.body.block.ops
        assert isinstance(function, FuncOp)
        (op,) = (o for o in function.body.block.ops if isinstance(o, nn.FusedOp))
        arguments = list(function.body.block.args)
        self.operands = [arrays[arguments.index(v)] for v in op.operands]  # pyright: ignore[reportArgumentType]
        reads, writes = ([memref_of(type_of(v)) for v in vs] for vs in (op.operands, op.results))
        self.kernel = select(op, reads, writes, get_target("cortex-m7")).build("kernel")


@cases
def test_jit(name: str) -> None:
    case = Case(name)

    (codes, *_) = run_jit(case.kernel, case.operands)

    assert np.array_equal(codes.reshape(case.right.shape), case.right)
    assert len(np.unique(case.right)) > 5


@cases
def test_host_under_sanitizers(name: str, tmp_path: Path) -> None:
    target = get_target("x86-64")
    need_tools(target)
    case = Case(name)

    (codes, *_), _ = run_c(case.kernel, case.operands, target, tmp_path, sanitize=True)

    assert np.array_equal(codes.reshape(case.right.shape), case.right)


@pytest.mark.parametrize(
    ("core", "name"),
    [("cortex-m7", name) for name in CASES]
    + [(core, name) for core in ("cortex-m4", "cortex-m33", "cortex-m55") for name in CORES],
)
def test_cores(core: str, name: str, tmp_path: Path) -> None:
    target = get_target(core)
    need_tools(target)
    case = Case(name)

    (codes, *_), _ = run_c(case.kernel, case.operands, target, tmp_path)

    assert np.array_equal(codes.reshape(case.right.shape), case.right)


@pytest.mark.parametrize("name", MASKED)
def test_masks(name: str, tmp_path: Path) -> None:
    """As JIT and on a core: the bytes of a mask whose bits are made one after the other."""
    target = get_target("cortex-m7")
    need_tools(target)
    case = Case(name, masked=True)
    (right,) = case.masks
    assert 0 < np.unpackbits(right.view(np.uint8)).mean() < 0.9

    results = [run_jit(case.kernel, case.operands)]
    results.append(run_c(case.kernel, case.operands, target, tmp_path)[0])

    for codes, mask, *_ in results:
        assert np.array_equal(codes.reshape(case.right.shape), case.right)
        assert np.array_equal(mask.view(np.int8).reshape(right.shape), right)


@pytest.mark.parametrize("level", ["-O0", "-O1", "-Os", "-O3"])
def test_every_optimisation_level(level: str, tmp_path: Path) -> None:
    """The assembly fits the registers that compilers leave it."""
    case = Case("1x1 deep")

    assert compile_at(level, case.kernel, case.operands, tmp_path).stat().st_size > 0
