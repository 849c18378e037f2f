"""Aliases are one buffer before any planner sees them."""

import numpy as np

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.lowered import Buffer
from niwaki.passes.lower_to_plan import lower
from tests.compiled import HOST, check_against_interpreter

ROWS = 32
"""Of 64 bytes each: every row of a buffer is aligned."""


def buffers(b: ProgramBuilder, *outputs: Value) -> list[Buffer]:
    """Those of the arena; the program also computes what the interpreter says."""
    program = b.finish(*outputs)
    shape = shape_of(program.function("forward").body.block.args[0])
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    check_against_interpreter(program, "forward", [x])
    found = lower(program, HOST).entries["forward"].buffers
    return [buffer for buffer in found if not buffer.label.startswith("workspace")]


def test_a_reshape_and_rows_are_views_of_one_buffer() -> None:
    b = ProgramBuilder()
    y = b.exp(b.input([ROWS, 16]))
    flat = b.reshape(y, [ROWS * 16])
    top, bottom = (b.slice(y, [start, 0], [ROWS // 2, 16]) for start in (0, ROWS // 2))
    (buffer,) = buffers(b, b.reduce_sum(flat, [0]), b.reduce_sum(top, [0]), b.tanh(bottom))
    assert buffer.bytes == ROWS * 64
    assert buffer.first == 0
    assert buffer.last == 3


def test_parts_of_a_concatenation_are_written_into_the_whole() -> None:
    b = ProgramBuilder()
    x = b.input([ROWS, 16])
    whole = b.concat([b.exp(x), b.tanh(x)], 0)
    (buffer,) = buffers(b, b.reduce_sum(whole, [0]))
    assert buffer.bytes == 2 * ROWS * 64


def test_results_in_place_of_operands_are_one_buffer() -> None:
    """Each reads the one before for the last time."""
    b = ProgramBuilder()
    x = b.input([ROWS, 16])
    y = b.exp(x)
    for _ in range(3):
        y = b.tanh(y)
    (buffer,) = buffers(b, b.reduce_sum(y, [0]))
    assert (buffer.first, buffer.last) == (0, 4)
