"""Batch-norm folding against the interpreter."""

import numpy as np
import pytest

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.effects import verify
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.weights import content_hash
from niwaki.passes.fold_batch_norm import FoldBatchNormPass

RANDOM = np.random.default_rng(0)


def _draw(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def _norm(b: ProgramBuilder, x: Value, training: bool = False) -> Value:
    n = shape_of(x)[-1]
    arrays = {"gamma": _draw(n), "beta": _draw(n), "mean": _draw(n), "var": _draw(n) ** 2}
    return b.batch_norm(x, *(b.weight(f"bn.{k}", a) for k, a in arrays.items()), training=training)


def _convolution(b: ProgramBuilder) -> Value:
    x = b.input([2, 5, 5, 4])
    return b.conv2d(x, b.weight("w", _draw(6, 3, 3, 2)), groups=2, padding=1)


def _biased_convolution(b: ProgramBuilder) -> Value:
    return b.add(_convolution(b), b.weight("b", _draw(6)))


def _dense(b: ProgramBuilder) -> Value:
    return b.dense(b.input([2, 5]), b.weight("w", _draw(6, 5)), b.weight("b", _draw(6)))


def _untransposed_dense(b: ProgramBuilder) -> Value:
    return b.matmul(b.input([2, 5]), b.weight("w", _draw(5, 6)))


def _fold(program: Program) -> None:
    FoldBatchNormPass().apply(NiwakiContext(program.weights), program.module)
    verify(program.module)


@pytest.mark.parametrize("layer", [_convolution, _biased_convolution, _dense, _untransposed_dense])
def test_results_stay(layer) -> None:
    b = ProgramBuilder()
    program = b.finish(_norm(b, layer(b)))
    x = _draw(*shape_of(program.function("forward").body.block.args[0]))
    (before,) = run(program, "forward", [x])
    _fold(program)
    (after,) = run(program, "forward", [x])
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-5)
    text = str(program.module)
    assert text.count("train.parameter") == 2
    assert "nn.batch_norm" not in text
    for name in ("w", "bn.beta"):
        assert program.weights.hash(name) == content_hash(program.weights[name])
        assert program.weights.hash(name) in text


def test_training_batch_norm_stays() -> None:
    b = ProgramBuilder()
    program = b.finish(_norm(b, _convolution(b), training=True))
    before = str(program.module)
    _fold(program)
    assert str(program.module) == before


def test_convolution_with_another_use_stays() -> None:
    b = ProgramBuilder()
    y = _convolution(b)
    program = b.finish(_norm(b, y), y)
    before = str(program.module)
    _fold(program)
    assert str(program.module) == before


def test_shared_weight_stays() -> None:
    b = ProgramBuilder()
    w = _draw(4, 1, 1, 4)
    x = b.conv2d(b.input([2, 5, 5, 4]), b.weight("w", w))
    program = b.finish(_norm(b, b.conv2d(x, b.weight("w", w))))
    _fold(program)
    assert "nn.batch_norm" in str(program.module)
