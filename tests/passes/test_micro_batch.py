"""Micro-batches give what the whole batch gives."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import ArrayLike

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Optimizer, TrainingOptions
from niwaki.passes.arenas.problem import align
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.orders.problem import live_bytes
from niwaki.passes.pipelines import Techniques, compile_program, training_pipeline
from niwaki.passes.schedule import schedule_problem
from niwaki.passes.storage_layout import StorageLayout
from tests.compiled import HOST, Compiled
from tests.conv_chains import CHANNELS, conv_chain
from tests.networks import lenet, resnet18

X = np.random.default_rng(0).standard_normal((4, 16, 16, 1)).astype(np.float32)
Y = np.array([1, 7, 0, 3], np.int32)


def _compiled(
    program: Program, optimizer: Optimizer, count: int, loss: str = "cross_entropy"
) -> Compiled:
    options = TrainingOptions(loss, optimizer)
    return Compiled(compile_program(program, options, HOST, techniques=Techniques(count)))


@pytest.mark.parametrize(
    "optimizer", [SGD(0.1, momentum=0.9, clip_norm=0.5), Adam(0.01)], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("count", [2, 4])
def test_equal_to_the_whole_batch(optimizer: Optimizer, count: int) -> None:
    whole, parts = (_compiled(lenet(4, 16), optimizer, n) for n in (1, count))
    inputs = [X, Y, np.float32(optimizer.lr)]
    for entry, arrays in (("evaluate", [X, Y]), ("infer", [X]), ("train_step", inputs)):
        for a, b in zip(whole.run(entry, arrays), parts.run(entry, arrays), strict=True):
            _check_close(a, b, entry)
    expected = whole.state()
    for name, value in parts.state().items():
        _check_close(value, expected[name], name)


def _check_close(actual: ArrayLike, expected: ArrayLike, name: str) -> None:
    a, b = (np.asarray(x, np.float64) for x in (actual, expected))
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("count", [2, 8])
def test_parts_follow_each_other(count: int) -> None:
    """What one part keeps is free before the next one begins: only sums of gradients remain."""
    whole, parts = (_peak_before_scheduling(conv_chain(8, 8), n) for n in (1, count))
    gradients = 8 * align(4 * CHANNELS * 9 * CHANNELS, HOST.alignment)
    assert parts <= whole // count + 2 * gradients


def _peak_before_scheduling(program: Program, count: int) -> int:
    """Bytes live between kernels in @train_step, in the order that `fuse` leaves."""
    for step in training_pipeline(TrainingOptions(), HOST, techniques=Techniques(count))[:-1]:
        step.apply(NiwakiContext(program.weights), program.module)
    library = KernelLibrary(HOST)
    layout = StorageLayout(program.module, library)
    problem, _ = schedule_problem(program.function("train_step"), layout, library)
    nodes = tuple(replace(node, workspace=0) for node in problem.nodes)
    return live_bytes(replace(problem, nodes=nodes), range(len(nodes))).peak


def test_every_part_drops_other_elements() -> None:
    b = ProgramBuilder()
    shifted = b.add(b.input((4, 64)), b.weight("w", np.zeros(64, np.float32)))
    step = _compiled(b.finish(b.dropout(shifted, 0.5, seed=3)), SGD(1.0), 4, "mse")
    ones, zeros = np.ones((4, 64), np.float32), np.zeros((4, 64), np.float32)
    step.run("train_step", [ones, zeros, np.float32(1)])
    # The gradient of w counts the parts that kept a column: with one mask for all, none or all.
    assert len(set(step.state()["w"].tolist())) > 2
    assert int(step.state()["niwaki.step"]) == 4


def test_batch_norm_in_training_mode_is_refused() -> None:
    program = resnet18(4, 32, batch_norm="training", width=8)
    with pytest.raises(UsageError, match="mean and variance of the whole batch"):
        _compiled(program, SGD(0.1), 2)


def test_parts_must_be_equal() -> None:
    with pytest.raises(UsageError, match="batch of 4 cannot be split into 3 equal parts"):
        _compiled(lenet(4, 16), SGD(0.1), 3)


def test_a_loss_of_the_model_is_refused() -> None:
    b = ProgramBuilder()
    x = b.input((4, 3))
    w = b.weight("w", np.ones((3, 3), np.float32))
    square = b.matmul(x, w)
    program = b.finish(b.reshape(b.reduce_sum(b.mul(square, square), [0, 1]), ()))
    with pytest.raises(UsageError, match="loss is the model's own"):
        _compiled(program, SGD(0.1), 2, "output")
