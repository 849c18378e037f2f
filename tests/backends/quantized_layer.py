"""A quantised layer as one kernel of a core: products, bias, rescaling, clamping, a mask."""

from typing import Any

import numpy as np
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

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[tuple[int, ...], tuple[int, ...], int, int, int]
"""Of x and w; stride, padding, groups."""


class QuantizedLayer:
    """Its kernel for a Cortex-M, operands, and the results that are right."""

    def __init__(self, shape: Shape, core: str, masked: bool = False, zero_point: int = -5) -> None:
        x, w, stride, padding, groups = shape
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
            zero_point=zero_point,
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
        codes_right, *masks = (np.asarray(r) for r in run(program, "forward", arrays))
        self.right: list[Array] = [codes_right]
        self.right += [np.packbits(m, axis=-1, bitorder="little").view(np.int8) for m in masks]
        FusePass().apply(NiwakiContext(program.weights), program.module)
        (function,) = program.module.body.block.ops
        assert isinstance(function, FuncOp)
        (op,) = (o for o in function.body.block.ops if isinstance(o, nn.FusedOp))
        arguments = list(function.body.block.args)
        self.operands = [arrays[arguments.index(v)] for v in op.operands]  # pyright: ignore[reportArgumentType]
        reads, writes = ([memref_of(type_of(v)) for v in vs] for vs in (op.operands, op.results))
        self.kernel = select(op, reads, writes, get_target(core)).build("kernel")

    def check(self, results: list[Array]) -> None:
        """Asserts that `results` are the right ones; what a kernel left in scratch may follow."""
        for result, right in zip(results, self.right, strict=False):
            assert np.array_equal(result.reshape(right.shape), right)
