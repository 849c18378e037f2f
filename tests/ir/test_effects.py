"""Dominance and effect order: what xDSL's verifier leaves out."""

import numpy as np
import pytest
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Region
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.builder import Builder, ProgramBuilder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import tensor
from niwaki.ir.effects import storage_read, verify, verify_order
from niwaki.ir.program import Program


def test_a_value_must_be_defined_before_its_use():
    b = ProgramBuilder()
    x = b.input([2])
    first = b.relu(x)
    second = b.neg(first)
    program = b.finish(second)
    verify(program.module)
    first.owner.detach()  # pyright: ignore[reportAttributeAccessIssue]
    b.block.insert_op_after(first.owner, second.owner)  # pyright: ignore[reportArgumentType]
    with pytest.raises(VerifyException, match=r"'nn.neg' uses a value before it is defined"):
        verify_order(program.module)


def test_an_operation_may_not_use_its_own_result():
    b = ProgramBuilder()
    y = b.relu(b.input([2]))
    program = b.finish(y)
    y.owner.operands[0] = y  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(VerifyException, match=r"'nn.relu' uses a value before it is defined"):
        verify_order(program.module)


def test_values_of_another_function_are_not_visible():
    b = ProgramBuilder()
    y = b.relu(b.input([2]))
    program = b.finish(y)
    other = ProgramBuilder()
    other.input([2])
    second = other.finish(other.neg(other.block.args[0]))
    negated = next(iter(other.block.ops))
    negated.operands[0] = y
    function = second.function("forward")
    function.detach()
    program.module.body.block.add_op(function)
    with pytest.raises(VerifyException, match=r"'nn.neg' uses a value that is not visible here"):
        verify_order(program.module)


def test_a_nested_block_sees_the_blocks_around_it():
    module = ModuleOp([])
    outer = Builder.at_end(module.body.block)
    x = outer.constant(1.0, [2])
    body = Block()
    inner = Builder.at_end(body)
    inner.insert(nn.YieldOp(inner.relu(x)))
    outer.insert(nn.FusedOp.create(result_types=[tensor([2])], regions=[Region(body)]))
    verify_order(module)


def _use_after_write(through_view: bool) -> Program:
    b = ProgramBuilder()
    x = b.input([2, 2])
    w = b.weight("w", np.zeros((2, 2), np.float32))
    seen = b.reshape(w, [4]) if through_view else w
    b.assign(w, x)
    return b.finish(b.relu(seen))


@pytest.mark.parametrize("through_view", [False, True])
def test_nothing_reads_storage_after_it_was_written(through_view: bool):
    program = _use_after_write(through_view)
    with pytest.raises(VerifyException, match=r"'nn.relu' uses 'w' after 'train.assign' wrote it"):
        verify_order(program.module)


def test_a_second_write_is_a_use_after_the_first():
    b = ProgramBuilder()
    x = b.input([2])
    s = b.state("s", tensor([2]))
    b.assign(s, x)
    b.assign(s, x)
    program = b.finish(x)
    with pytest.raises(VerifyException, match=r"'train.assign' uses 's' after 'train.assign'"):
        verify_order(program.module)


def test_reading_before_the_write_is_fine():
    b = ProgramBuilder()
    x = b.input([2])
    s = b.state("s", tensor([2]))
    total = b.add(s, x)
    b.assign(s, total)
    verify(b.finish(total).module)


def test_storage_read_looks_through_views_only():
    b = ProgramBuilder()
    w = b.weight("w", np.zeros((2, 2), np.float32))
    view = b.slice(b.reshape(w, [4]), [1], [2])
    assert storage_read(view) is w.owner
    assert storage_read(b.relu(w)) is None
    assert storage_read(b.input([1])) is None
