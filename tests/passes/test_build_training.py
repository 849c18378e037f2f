"""What build-training makes of a forward program, in numbers, and what it refuses."""

import numpy as np
import pytest
import torch

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects.tensor_op import i32
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.passes.build_training import BuildTrainingPass
from tests.training_programs import apply

X = np.random.default_rng(0).standard_normal((2, 3, 2, 4)).astype(np.float32)


def _batch_norm(shared: bool = False) -> Program:
    b = ProgramBuilder()
    x = b.input([2, 3, 2, 4])
    ones = np.ones(4, np.float32)
    parameters = [b.weight(n, ones * k) for k, n in enumerate(("g", "b", "mean", "var"), start=1)]
    for _ in range(1 + shared):
        x = b.batch_norm(x, *parameters, epsilon=1e-3, momentum=0.25, training=True)
    return b.finish(b.global_avg_pool(x))


def _dropout(rates: list[float]) -> Program:
    b = ProgramBuilder()
    x = b.input([1000, 2])
    for rate in rates:
        x = b.dropout(x, rate, seed=3)
    return b.finish(x)


def _trained(program: Program, loss: str = "mse") -> Program:
    return apply(program, BuildTrainingPass(loss))


@pytest.mark.parametrize("shared", [False, True])
def test_running_statistics_move_as_in_torch(shared: bool) -> None:
    program = _trained(_batch_norm(shared))
    module = torch.nn.BatchNorm2d(4, 1e-3, 0.25)
    module.weight.data.fill_(1)
    module.bias.data.fill_(2)
    module.running_mean.fill_(3)
    module.running_var.fill_(4)
    state: dict[str, np.ndarray] = {}
    target = np.zeros((2, 4), np.float32)
    for _ in range(2):
        (loss,) = run(program, "train_step", [X, target, np.float32(0)], state)
        y = torch.tensor(X.transpose(0, 3, 1, 2))
        for _ in range(1 + shared):
            y = module(y)
        assert loss == pytest.approx(y.mean((2, 3)).square().mean().item(), rel=1e-5)
    np.testing.assert_allclose(state["mean"], module.running_mean, rtol=1e-5)
    np.testing.assert_allclose(state["var"], module.running_var, rtol=1e-5)


def test_inference_uses_the_running_statistics() -> None:
    program = _trained(_batch_norm())
    wanted = run(_batch_norm(), "forward", [X])[0]
    np.testing.assert_array_equal(run(program, "infer", [X])[0], wanted)
    target = np.zeros((2, 4), np.float32)
    (loss,) = run(program, "evaluate", [X, target])
    assert loss == pytest.approx(np.mean(wanted**2), rel=1e-5)


def test_dropout_keeps_the_mean_and_changes_with_the_step() -> None:
    program = _trained(_dropout([0.25]))
    x, zero = np.ones((1000, 2), np.float32), np.zeros((1000, 2), np.float32)
    state: dict[str, np.ndarray] = {}
    losses = [
        float(run(program, "train_step", [x, zero, np.float32(0)], state)[0]) for _ in range(4)
    ]
    assert state["niwaki.step"] == 4
    assert len(set(losses)) == 4
    # The mean of squares is the share that is kept over (1 - rate)^2: 4/3 expected.
    assert np.mean(losses) == pytest.approx(4 / 3, rel=0.05)
    np.testing.assert_array_equal(run(program, "infer", [x])[0], x)


def test_each_dropout_drops_other_elements() -> None:
    x, zero = np.ones((1000, 2), np.float32), np.zeros((1000, 2), np.float32)
    (loss,) = run(_trained(_dropout([0.5, 0.5])), "train_step", [x, zero, np.float32(0)])
    # Independent masks keep a quarter, each value scaled by 4; equal ones would give 8.
    assert float(loss) == pytest.approx(4.0, rel=0.15)


def test_evaluate_counts_correct_rows() -> None:
    b = ProgramBuilder()
    program = _trained(b.finish(b.neg(b.input([3, 2]))), "cross_entropy")
    x = np.array([[0, 1], [0, 1], [1, 0]], np.float32)
    loss, correct = run(program, "evaluate", [x, np.array([0, 1, 1], np.int32)])
    assert correct == 2
    assert correct.dtype == np.int32
    assert float(loss) == pytest.approx(np.log(1 + np.exp(-1)) * 2 / 3 + np.log(1 + np.e) / 3)


def test_the_output_may_be_the_loss() -> None:
    b = ProgramBuilder()
    x = b.input([2, 2])
    program = _trained(b.finish(b.reshape(b.reduce_mean(x, [0, 1]), ())), "output")
    assert [len(program.function(f).body.block.args) for f in ("train_step", "evaluate")] == [2, 1]


def _outputs(*shapes: tuple[int, ...]) -> Program:
    b = ProgramBuilder()
    return b.finish(*(b.neg(b.input(shape)) for shape in shapes))


@pytest.mark.parametrize(
    ("program", "loss", "message"),
    [
        (_outputs((2, 2)), "hinge", "unknown loss 'hinge': use one of cross_entropy,"),
        (_outputs((2, 2), (2, 2)), "mse", "has 2 outputs"),
        (_outputs((2,)), "cross_entropy", "the model's is [2]: flatten it"),
        (_outputs((2, 1, 1, 3)), "cross_entropy_soft", "[batch, classes]"),
        (_outputs((2,)), "output", "has the shape [2]"),
    ],
)
def test_refused_losses(program: Program, loss: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        _trained(program, loss)
    assert message in str(error.value)


def test_batch_norm_over_one_value_is_refused() -> None:
    b = ProgramBuilder()
    x = b.input([1, 4])
    ones = np.ones(4, np.float32)
    y = b.batch_norm(x, *(b.weight(n, ones) for n in ("g", "b", "mean", "var")), training=True)
    with pytest.raises(UsageError, match="'mean' sees one value per channel"):
        _trained(b.finish(y))


def test_there_must_be_a_forward_function() -> None:
    with pytest.raises(UsageError, match="@forward"):
        _trained(_trained(_outputs((2, 2))))


def test_integer_outputs_are_refused() -> None:
    b = ProgramBuilder()
    program = b.finish(b.add(b.input([2, 2], i32), b.constant(1, (), i32)))
    with pytest.raises(UsageError, match="floating-point"):
        _trained(program)


def test_cross_entropy_of_every_token() -> None:
    random = np.random.default_rng(1)
    logits = random.standard_normal((2, 3, 4)).astype(np.float32)
    labels = random.integers(0, 4, (2, 3), np.int32)
    b = ProgramBuilder()
    sequences = apply(b.finish(b.input([2, 3, 4])), BuildTrainingPass())
    b = ProgramBuilder()
    rows = apply(b.finish(b.input([6, 4])), BuildTrainingPass())
    flat = logits.reshape(6, 4), labels.reshape(6)
    assert run(sequences, "evaluate", [logits, labels]) == run(rows, "evaluate", flat)
