"""Another batch: the same result per sample, or a clear error."""

import numpy as np
import pytest

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.tensor_op import i32, shape_of
from niwaki.ir.effects import verify
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.passes.set_batch import SetBatchPass
from tests.networks import lenet, mobilenet_v2, resnet18


def _set(program: Program, batch: int) -> None:
    SetBatchPass(batch=batch).apply(NiwakiContext(program.weights), program.module)
    verify(program.module)


@pytest.mark.parametrize(
    "network",
    [
        lambda n: lenet(n),
        lambda n: mobilenet_v2(n, 32),
        lambda n: resnet18(n, 32, batch_norm="frozen", width=8),
    ],
    ids=["lenet", "mobilenet_v2", "resnet18"],
)
@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (2, 2)])
def test_each_sample_stays(network, old: int, new: int) -> None:
    one, changed = network(1), network(old)
    _set(changed, new)
    shape = shape_of(changed.function("forward").body.block.args[0])
    assert shape[0] == new
    x = np.random.default_rng(0).standard_normal(shape)
    (together,) = run(changed, "forward", [x])
    apart = [run(one, "forward", [x[i : i + 1]])[0][0] for i in range(new)]
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mix", "reason"),
    [
        (lambda b, x: b.reduce_mean(x, [0]), "works along the batch"),
        (lambda b, x: b.transpose(x, [1, 0]), "moves the batch dimension"),
        (lambda b, x: b.reshape(x, [3, 4]), "no multiple of the batch"),
        (lambda b, x: b.slice(b.reshape(x, [4, 3]), [0, 0], [2, 3]), "takes a part of the batch"),
        (lambda b, x: b.matmul(x, x, transpose_a=True), "only its first operand"),
        (lambda b, x: b.concat([x, x], 0), "works along the batch"),
        (lambda b, x: b.gather(x, b.constant(0, [2], i32)), "looks up rows of the batch"),
        (
            lambda b, x: b.matmul(b.reshape(x, [2, 2, 3]), b.constant(1.0, [2, 3, 1])),
            "stacks of as many matrices",
        ),
        (lambda b, x: b.add(x, b.constant(1.0, [2, 6])), "do not broadcast"),
    ],
)
def test_mixing_samples_is_an_error(mix, reason: str) -> None:
    b = ProgramBuilder()
    program = b.finish(mix(b, b.input([2, 6])))
    with pytest.raises(UsageError, match=f"{reason}.*; export the model with the wanted batch"):
        _set(program, 4)


def test_inputs_without_a_common_batch() -> None:
    b = ProgramBuilder()
    program = b.finish(b.input([2, 3]), b.input([3, 2]))
    with pytest.raises(UsageError, match="no common batch"):
        _set(program, 4)


def test_batch_must_be_positive() -> None:
    with pytest.raises(UsageError, match="at least 1"):
        _set(lenet(1), 0)
