"""narrow-stash: what is kept is narrow, the loss is exact, gradients are nearly so."""

import numpy as np
import pytest
from hypothesis import given, settings
from xdsl.ir import OpResult

from niwaki.backends.targets import get_target
from niwaki.ir import effects, interpreter
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import f32, tensor_bytes, type_of
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.passes.fuse import FusePass
from niwaki.passes.narrow_stash import SMALLEST, STASHES, NarrowStashPass, narrow_stash
from niwaki.passes.pipelines import Techniques, compile_program, training_pipeline
from tests.compiled import HOST, Compiled
from tests.conv_chains import conv_chain
from tests.networks import lenet, resnet18
from tests.random_networks import SPECS, Spec, build, inputs
from tests.training_programs import apply, training_program

Array = np.ndarray
ERROR = {"bf16": 2**-8, "i8": 1 / 127}
"""Largest error of a stored activation: bf16 of itself, i8 of the tensor's largest (twice each)."""

BATCH_NORMS = {
    "frozen": lambda: resnet18(2, 32, batch_norm="frozen", width=8),
    "training": lambda: conv_chain(2, 6, batch_norm=True),
}


def _batch(program: Program) -> list[Array]:
    random = np.random.default_rng(0)
    x, y, _ = program.function("train_step").body.block.args
    images = random.standard_normal(type_of(x).get_shape()).astype(np.float32)
    return [images, random.integers(0, 4, type_of(y).get_shape()).astype(np.int32)]


def _step(program: Program, batch: list[Array]) -> tuple[Array, dict[str, Array]]:
    """Loss, and what one step adds to each parameter."""
    state: dict[str, Array] = {}
    (loss,) = interpreter.run(program, "train_step", [*batch, np.float32(1)], state)
    moved = {n: state[n] - program.weights[n] for n in state if n in program.weights}
    return loss, moved


def _kept_exactly(program: Program) -> list[OpResult]:
    """Large f32 results from before the loss that an operation behind it reads."""
    block = program.function("train_step").body.block
    ops = list(block.ops)
    assert block.last_op is not None
    boundary = next(i for i, op in enumerate(ops) if block.last_op.operands[0] in op.results)
    late = set(ops[boundary + 1 :])
    return [
        result
        for op in ops[: boundary + 1]
        if not isinstance(op, train.Storage | nn.BroadcastOp | nn.CastOp)
        for result in op.results
        if type_of(result).element_type == f32 and tensor_bytes(type_of(result)) >= SMALLEST
        if any(use.operation in late for use in result.uses)
    ]


def _relative(actual: Array, expected: Array) -> float:
    return float(np.linalg.norm(actual - expected) / max(np.linalg.norm(expected), 1e-30))


@pytest.mark.parametrize("dtype", STASHES)
@pytest.mark.parametrize("name", ["lenet", "resnet", "batch norm"])
def test_nothing_large_is_kept_exactly(name: str, dtype: str) -> None:
    program = {
        "lenet": lambda: lenet(2, 16),
        "resnet": lambda: resnet18(1, 32, width=8),
        "batch norm": lambda: resnet18(2, 32, batch_norm="training", width=8),
    }[name]()
    exact = training_program(program, SGD(1.0))
    assert _kept_exactly(exact)
    assert not _kept_exactly(apply(exact, NarrowStashPass(dtype)))


@pytest.mark.parametrize("dtype", STASHES)
def test_relu_networks_round_only_the_gradients_of_weights(dtype: str) -> None:
    """Masks and pooling indices are exact, so all that flows back is, and so are biases."""
    exact = training_program(lenet(4, 16), SGD(1.0))
    batch = _batch(exact)
    loss, moved = _step(exact, batch)
    rounded_loss, rounded = _step(apply(exact, NarrowStashPass(dtype)), batch)
    assert rounded_loss == loss
    for name, expected in moved.items():
        error = _relative(rounded[name], expected)
        if name.endswith("bias") or name == "conv1.weight":  # conv1 reads the input
            assert error == 0
        else:
            assert 0 < error < ERROR[dtype]


@pytest.mark.parametrize("dtype", STASHES)
@pytest.mark.parametrize("network", ["frozen", "training"])
def test_gradients_through_batch_norm(network: str, dtype: str) -> None:
    exact = training_program(BATCH_NORMS[network](), SGD(1.0))
    batch = _batch(exact)
    loss, moved = _step(exact, batch)
    rounded_loss, rounded = _step(apply(exact, NarrowStashPass(dtype)), batch)
    assert rounded_loss == loss
    errors = [_relative(rounded[n], moved[n]) for n in moved if np.any(moved[n])]
    assert 0 < max(errors) < 12 * ERROR[dtype]
    assert np.median(errors) < 4 * ERROR[dtype]


@settings(max_examples=25)
@given(SPECS)
def test_random_networks_keep_their_loss(spec: Spec) -> None:
    exact = training_program(build(spec), SGD(0.1))
    x, y = inputs("cross_entropy")
    arguments = [x.astype(np.float32), y, np.float32(0.1)]
    expected = interpreter.run(exact, "train_step", arguments)
    for dtype in STASHES:
        rounded = apply(exact, NarrowStashPass(dtype))
        assert not _kept_exactly(rounded)
        state: dict[str, Array] = {}
        assert interpreter.run(rounded, "train_step", arguments, state) == expected
        assert all(np.isfinite(a).all() for a in state.values())


@pytest.mark.parametrize(
    "chosen",
    [
        Techniques(stash="bf16"),
        Techniques(stash="i8", micro_batches=2),
        Techniques(stash="bf16", row_bytes=8000),
        Techniques(stash="i8", recompute_bytes=9000),
    ],
    ids=str,
)
def test_compiled_steps_are_the_interpreters(chosen: Techniques) -> None:
    program, options = lenet(4, 16), TrainingOptions(optimizer=SGD(0.1, momentum=0.9))
    passes = training_pipeline(options, HOST, techniques=chosen)
    names = [p.name for p in passes]
    reference = apply(program, *passes[: names.index(FusePass.name)])
    compiled = Compiled(compile_program(program, options, HOST, techniques=chosen))
    state: dict[str, Array] = {}
    for _ in range(2):
        arguments = [*_batch(reference), np.float32(0.1)]
        (loss,) = interpreter.run(reference, "train_step", arguments, state)
        assert float(compiled.run("train_step", arguments)[0]) == pytest.approx(loss, rel=1e-5)
    for name, value in compiled.state().items():
        actual = np.asarray(value, np.float64)
        np.testing.assert_allclose(actual, state[name], rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_arena_shrinks(batch_norm: bool) -> None:
    """Deep chains keep little else than activations, so half and a quarter are nearly reached."""
    program = conv_chain(2, 12, batch_norm)
    scalar = get_target("cortex-m7")  # Its kernels need no scratch.
    arenas = {
        stash: compile_program(
            program, TrainingOptions(), scalar, techniques=Techniques(stash=stash)
        ).entries["train_step"].arena_bytes
        for stash in (None, *STASHES)
    }  # fmt: skip
    exact = arenas[None]
    assert arenas["bf16"] < 0.6 * exact
    assert arenas["i8"] < 0.4 * exact


def test_no_whole_widened_copy() -> None:
    """Filter gradients read the narrow activation; the kernels of a batch norm widen it."""
    options = TrainingOptions(scheme=Scheme.full())
    for dtype in STASHES:
        techniques = Techniques(stash=dtype)
        passes = training_pipeline(options, HOST, techniques=techniques)
        program = apply(conv_chain(2, 3, batch_norm=True), *passes)
        ops = list(program.function("train_step").body.block.ops)
        assert any(isinstance(op, nn.FusedOp) for op in ops)
        assert not any(isinstance(op, nn.CastOp) for op in ops)
        for op in ops:
            if isinstance(op, nn.FusedOp):
                widened = [o.y for o in op.body.block.ops if isinstance(o, nn.CastOp)]
                assert op.body.block.last_op is not None
                assert not any(v in op.body.block.last_op.operands for v in widened)


def test_zeros_stay_zeros() -> None:
    b = ProgramBuilder()
    x = b.relu(b.add(b.input((8, 16)), b.weight("shift", np.full(16, -9, np.float32))))
    w = b.weight("w", np.ones((4, 16), np.float32))
    exact = training_program(b.finish(b.dense(x, w)), SGD(1.0))
    _, moved = _step(apply(exact, NarrowStashPass("i8")), _batch(exact))
    assert not np.any(moved["w"])
    assert np.isfinite(moved["shift"]).all()


def test_small_activations_stay() -> None:
    b = ProgramBuilder()
    x = b.tanh(b.add(b.input((2, 8)), b.weight("shift", np.ones(8, np.float32))))
    w = b.weight("w", np.ones((4, 8), np.float32))
    exact = training_program(b.finish(b.dense(x, w)), SGD(1.0))
    rounded = apply(exact, NarrowStashPass("i8"))
    assert rounded.module.is_structurally_equivalent(exact.module)


def test_unknown_stash() -> None:
    program = training_program(lenet(2, 16), SGD(1.0))
    with pytest.raises(UsageError, match="unknown stash 'f16': use bf16 or i8"):
        narrow_stash(program.function("train_step"), "f16")
    effects.verify(program.module)
