"""Cotangents of integer convolutions for Cortex-M: of packed halves, and of vectors, as C."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import i8, i16

from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.targets import get_target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import TensorOp, type_of
from tests.backends.kernel_cases import values
from tests.backends.run_kernel import reference
from tests.c_programs import compile_at, need_tools, run_c

Array = np.ndarray[Any, np.dtype[Any]]

ONE = {"strides": [1, 1], "padding": [0] * 4, "dilation": [1, 1], "groups": 1}
PLANES = {"strides": [2, 2], "padding": [2] * 4, "dilation": [1, 1], "groups": 6}


def _ops() -> dict[str, TensorOp]:
    """The shapes: x or w, then dy."""
    return {
        "input 1x1": nn.IntegerConv2dDxOp.make(
            *values(((1, 3, 3, 26), i16), ((26, 1, 1, 8), i8)), input_size=[3, 3], **ONE
        ),
        "input 1x1, odd sum": nn.IntegerConv2dDxOp.make(
            *values(((1, 2, 2, 7), i16), ((7, 1, 1, 4), i8)), input_size=[2, 2], **ONE
        ),
        "filter 1x1": nn.IntegerConv2dDwOp.make(
            *values(((1, 4, 4, 8), i8), ((1, 4, 4, 12), i16)),
            kernel_size=[1, 1],
            zero_point=-9,
            **ONE,
        ),
        "filter 1x1, odd sum": nn.IntegerConv2dDwOp.make(
            *values(((1, 3, 3, 4), i8), ((1, 3, 3, 4), i16)),
            kernel_size=[1, 1],
            zero_point=-9,
            **ONE,
        ),
        "input 1x1, wide": nn.IntegerConv2dDxOp.make(
            *values(((1, 3, 5, 100), i16), ((100, 1, 1, 24), i8)), input_size=[3, 5], **ONE
        ),
        "depthwise input": nn.IntegerConv2dDxOp.make(
            *values(((1, 4, 4, 6), i16), ((6, 5, 5, 1), i8)), input_size=[7, 7], **PLANES
        ),
    }


class Case:
    """An operation's kernel for a Cortex-M, operands, and the sums that are right."""

    def __init__(self, name: str, core: str = "cortex-m7") -> None:
        op, rng = _ops()[name], np.random.default_rng(0)
        self.operands: list[Array] = []
        for operand in op.operands:
            kind = type_of(operand)
            dtype = np.int8 if kind.element_type == i8 else np.int16
            limits = np.iinfo(dtype)
            codes = rng.integers(limits.min + 1, limits.max + 1, kind.get_shape())
            self.operands.append(codes.astype(dtype))
        (self.right,) = reference(op, self.operands)
        reads, writes = ([memref_of(type_of(v)) for v in vs] for vs in (op.operands, op.results))
        self.kernel = select(op, reads, writes, get_target(core)).build("kernel")

    def check(self, target: str, folder: Path) -> None:
        machine = get_target(target)
        need_tools(machine)
        sanitize = machine.board is None
        (sums, *_), _ = run_c(self.kernel, self.operands, machine, folder, sanitize=sanitize)
        assert np.array_equal(sums.reshape(self.right.shape), self.right)


cases = pytest.mark.parametrize("name", _ops())


@cases
def test_host_under_sanitizers(name: str, tmp_path: Path) -> None:
    Case(name).check("x86-64", tmp_path)


@cases
def test_vectors_on_host_under_sanitizers(name: str, tmp_path: Path) -> None:
    Case(name, "cortex-m55").check("x86-64", tmp_path)


@cases
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m7", "cortex-m55"])
def test_cores(core: str, name: str, tmp_path: Path) -> None:
    Case(name, core).check(core, tmp_path)


@pytest.mark.parametrize("level", ["-O0", "-O1", "-Os", "-O3"])
def test_every_optimisation_level(level: str, tmp_path: Path) -> None:
    """The assembly fits the registers that compilers leave it."""
    case = Case("filter 1x1")

    assert compile_at(level, case.kernel, case.operands, tmp_path).stat().st_size > 0
