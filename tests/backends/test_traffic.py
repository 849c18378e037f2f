"""Traffic counts loads and stores, repeated ones included."""

import numpy as np
from xdsl.dialects.builtin import MemRefType, f32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.backends.kernels.traffic import argument_traffic
from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.passes.lower_to_plan import lower

LINE = MemRefType(f32, [10])


def test_loops_multiply() -> None:
    k = KernelBuilder("f", [LINE, LINE])
    x, y = k.args

    def row(i: Value) -> None:
        k.each(0, 10, 5, lambda j: k.store(k.load(x, [j]), y, [i]))

    k.each(0, 3, 1, row)
    assert argument_traffic(k.finish()) == (4 * 3 * 2, 4 * 3 * 2)


def test_bounds_that_vary_are_taken_at_the_middle() -> None:
    k = KernelBuilder("f", [LINE, LINE])
    x, y = k.args

    def row(i: Value) -> None:
        # 0, 1, ..., 8 elements: 4 in the middle.
        k.each(0, k.imin(i, 9), 1, lambda j: k.store(k.load(x, [j]), y, [j]))

    k.each(0, 9, 1, row)
    assert argument_traffic(k.finish()) == (4 * 9 * 4, 4 * 9 * 4)


def test_the_larger_branch_counts() -> None:
    k = KernelBuilder("f", [LINE, LINE])
    x, y = k.args
    zero = k.constant(0.0)

    def element(i: Value) -> None:
        inside = k.icompare(i, 5, "slt")
        k.choose(inside, lambda: k.store(k.load(x, [i]), y, [i]), lambda: k.store(zero, y, [i]))

    k.each(0, 10, 1, element)
    assert argument_traffic(k.finish()) == (40, 40)


def test_a_convolution_reads_each_element_for_each_tap() -> None:
    b = ProgramBuilder()
    x = b.input([1, 8, 8, 4])
    w = b.weight("w", np.ones((6, 3, 3, 4), np.float32))
    lowered = lower(b.finish(b.conv2d(x, w, padding=1)), get_target("cortex-m7"))
    (kernel,) = [op for op in lowered.module.body.block.ops if isinstance(op, FuncOp)]
    image, taps, result, _ = argument_traffic(kernel)
    assert image == 8 * 8 * 9 * 4 * 4
    assert taps % (6 * 9 * 4 * 4) == 0  # the filter once for each tile of pixels
    assert result == 8 * 8 * 6 * 4
