"""recompute-elementwise: what is kept twice is made again, for the same results."""

from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from niwaki.backends.targets import get_target
from niwaki.ir import interpreter
from niwaki.ir.builder import Builder, ProgramBuilder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes import recompute_elementwise
from niwaki.passes.cse import CsePass
from niwaki.passes.dce import DcePass
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.pipelines import compile_program
from niwaki.passes.recompute_elementwise import RecomputeElementwisePass
from tests.training_programs import apply, training_program

ROWS, WIDTH, HIDDEN, LAYERS = 256, 384, 768, 4

Layer = Callable[[ProgramBuilder, Value, str], Value]


def _dense(b: ProgramBuilder, x: Value, name: str, inputs: int, outputs: int) -> Value:
    random = np.random.default_rng(sum(name.encode()))
    weight = random.standard_normal((outputs, inputs)).astype(np.float32) / np.sqrt(inputs)
    return b.dense(x, b.weight(name, weight.astype(np.float32)), None)


def _feed_forward(activation: Callable[[Builder, Value], Value]) -> Layer:
    def layer(b: ProgramBuilder, x: Value, name: str) -> Value:
        y = activation(b, _dense(b, x, f"{name}.up", WIDTH, HIDDEN))
        return _dense(b, y, f"{name}.down", HIDDEN, WIDTH)

    return layer


def _normed(b: ProgramBuilder, x: Value, name: str) -> Value:
    gamma = b.weight(f"{name}.gamma", np.linspace(0.5, 1.5, WIDTH, dtype=np.float32))
    beta = b.weight(f"{name}.beta", np.linspace(-1, 1, WIDTH, dtype=np.float32))
    return _dense(b, b.layer_norm(x, gamma, beta, 1e-5), f"{name}.w", WIDTH, WIDTH)


def _attention(heads: int) -> Layer:
    """Over sequences of 128 rows."""
    split = [ROWS // 128, 128, heads, WIDTH // heads]

    def layer(b: ProgramBuilder, x: Value, name: str) -> Value:
        q, k, v = (
            b.transpose(
                b.reshape(_dense(b, x, f"{name}.{part}", WIDTH, WIDTH), split), [0, 2, 1, 3]
            )
            for part in "qkv"
        )
        scores = b.scale(b.matmul(q, k, transpose_b=True), split[-1] ** -0.5)
        y = b.transpose(b.matmul(b.softmax(scores), v), [0, 2, 1, 3])
        return _dense(b, b.reshape(y, [ROWS, WIDTH]), f"{name}.o", WIDTH, WIDTH)

    return layer


def _network(layer: Layer) -> Program:
    b = ProgramBuilder()
    x = b.input([ROWS, WIDTH])
    for number in range(LAYERS):
        x = layer(b, x, f"layers.{number}")
    return b.finish(_dense(b, x, "head", WIDTH, 10))


def _before(layer: Layer) -> Program:
    program = training_program(_network(layer), SGD(0.1))
    return apply(program, ExpandUpdatesPass(), DecomposePass(), CsePass(), DcePass())


def _count(program: Program, kind: type[Operation]) -> int:
    return sum(isinstance(op, kind) for op in program.function("train_step").body.block.ops)


GELU = _feed_forward(lambda b, x: b.gelu(x))
SILU = _feed_forward(lambda b, x: b.silu(x))
RELU = _feed_forward(lambda b, x: b.relu(x))


SHORT_HEADS, LONG_HEADS = _attention(12), _attention(2)


@pytest.mark.parametrize("layer", [GELU, SILU, _normed, SHORT_HEADS])
def test_results_stay_the_same_bit_for_bit(layer: Layer) -> None:
    before = _before(layer)
    after = apply(before, RecomputeElementwisePass())
    random = np.random.default_rng(0)
    batch = [
        random.standard_normal((ROWS, WIDTH), np.float32),
        random.integers(0, 10, ROWS).astype(np.int32),
        np.float32(0.1),
    ]
    results = []
    for program in (before, after):
        state: dict[str, np.ndarray] = {}
        (loss,) = interpreter.run(program, "train_step", batch, state)
        results.append((loss.tobytes(), {n: a.tobytes() for n, a in state.items()}))
    assert results[0] == results[1]


@pytest.mark.parametrize(("layer", "kind"), [(GELU, nn.GeluOp), (SILU, nn.SiluOp)])
def test_activations_are_made_again_from_their_inputs(layer: Layer, kind: type[Operation]) -> None:
    before = _before(layer)
    assert _count(before, kind) == LAYERS
    assert _count(apply(before, RecomputeElementwisePass()), kind) == 2 * LAYERS


def test_what_is_kept_once_is_left_alone() -> None:
    """The gradient of a relu needs a mask of its result, so that its input is not there."""
    before = _before(RELU)
    assert _count(apply(before, RecomputeElementwisePass()), nn.ReluOp) == LAYERS


def test_not_beside_products_that_take_no_longer() -> None:
    """A product with few outputs would not outweigh the activation."""

    def layer(b: ProgramBuilder, x: Value, name: str) -> Value:
        y = b.gelu(_dense(b, x, f"{name}.up", WIDTH, HIDDEN))
        y = _dense(b, y, f"{name}.down", HIDDEN, 2)
        return _dense(b, y, f"{name}.out", 2, WIDTH)

    before = _before(layer)
    assert _count(apply(before, RecomputeElementwisePass()), nn.GeluOp) == LAYERS


def test_attention_is_made_again_from_queries_and_keys() -> None:
    before = _before(SHORT_HEADS)
    after = apply(before, RecomputeElementwisePass())
    assert _count(after, nn.MatmulOp) == _count(before, nn.MatmulOp) + LAYERS
    assert _count(after, nn.ReduceMaxOp) == _count(before, nn.ReduceMaxOp)


def test_attention_is_kept_where_products_would_take_long() -> None:
    before = _before(LONG_HEADS)
    assert _count(apply(before, RecomputeElementwisePass()), nn.MatmulOp) == _count(
        before, nn.MatmulOp
    )


def test_products_with_parameters_are_not_made_again() -> None:
    def layer(b: ProgramBuilder, x: Value, name: str) -> Value:
        y = _dense(b, x, f"{name}.in", WIDTH, 8)
        return _dense(b, b.tanh(_dense(b, y, f"{name}.up", 8, HIDDEN)), f"{name}.w", HIDDEN, WIDTH)

    before = _before(layer)
    assert _count(apply(before, RecomputeElementwisePass()), nn.MatmulOp) == _count(
        before, nn.MatmulOp
    )


def _nothing(function: FuncOp) -> None:
    del function


@pytest.mark.parametrize("layer", [GELU, _normed, SHORT_HEADS])
def test_arenas_hold_one_of_both(layer: Layer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three quarters at most: of the weights' products some scratch remains."""

    def arena() -> int:
        options = TrainingOptions(optimizer=SGD(0.1))
        return compile_program(_network(layer), options, get_target("x86-64")).arena_bytes

    small = arena()
    monkeypatch.setattr(recompute_elementwise, "recompute_elementwise", _nothing)
    assert small < 0.75 * arena()


def test_other_functions_are_left_alone() -> None:
    program = _before(GELU)
    infer = str(program.function("infer"))
    assert str(apply(program, RecomputeElementwisePass()).function("infer")) == infer
    assert type_of(program.function("infer").body.block.args[0]).get_shape()[0] == ROWS
