"""Constant folding with arrays in the store."""

import numpy as np

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import ints
from niwaki.ir.effects import verify
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.passes.constant_fold import ConstantFoldPass

W = np.arange(6, dtype=np.float32).reshape(2, 3)


def _fold(program: Program) -> Program:
    ConstantFoldPass().apply(NiwakiContext(program.weights), program.module)
    verify(program.module)
    return program


def _parameters(program: Program) -> list[str]:
    return [op.key for op in program.module.walk() if isinstance(op, train.ParameterOp)]


def test_only_the_end_of_a_chain_is_stored() -> None:
    b = ProgramBuilder()
    x = b.input([3, 2])
    w = b.transpose(b.neg(b.weight("w", W)), [1, 0])
    program = _fold(b.finish(b.add(x, w)))
    assert [n for n in program.weights if n != "w"] == ["folded.0.w"]
    np.testing.assert_array_equal(program.weights["folded.0.w"], -W.T)
    np.testing.assert_array_equal(run(program, "forward", [np.ones((3, 2))])[0], 1 - W.T)


def test_equal_contents_share_one_parameter() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    w = b.weight("w", W)
    program = _fold(b.finish(b.mul(b.add(x, b.neg(w)), b.neg(b.weight("w", W)))))
    assert _parameters(program).count("folded.0.w") == 2
    assert list(program.weights) == ["w", "folded.0.w"]


def test_equal_elements_become_a_constant() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    program = _fold(b.finish(b.add(x, b.sub(b.weight("w", W), b.weight("w2", W - 3)))))
    assert list(program.weights) == ["w", "w2"]
    assert "value = 3.0" in str(program.module)


def test_updated_parameters_stay() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    w = b.weight("w", W)
    w.owner.properties["update"] = ints([2, 3])
    assert "nn.neg" in str(_fold(b.finish(b.add(x, b.neg(w)))).module)


def test_assigned_parameters_stay() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    w = b.weight("w", W)
    y = b.add(x, b.neg(w))
    b.assign(w, x)
    assert "nn.neg" in str(_fold(b.finish(y)).module)


def test_results_larger_than_their_operands_stay() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    outer = b.mul(b.weight("a", W[:, :1] + 1), b.weight("b", W[:1, :]))
    assert "nn.mul" in str(_fold(b.finish(b.add(x, outer))).module)


def test_what_is_stored_by_channel_is_not_stored_again() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    w = b.weight("w", W[0])
    doubled = b.mul(w, b.number(2.0, w))
    program = _fold(b.finish(b.add(b.mul(x, doubled), w)))
    assert list(program.weights) == ["w"]
    assert "nn.mul" in str(program.module)


def test_what_is_stored_by_channel_only_to_be_changed_is_folded() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    w = b.weight("w", W[0])
    program = _fold(b.finish(b.add(x, b.mul(w, b.number(2.0, w)))))
    assert "folded.0.w" in program.weights
