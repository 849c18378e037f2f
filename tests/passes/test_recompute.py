"""Recomputation in programs: fewer bytes, the same bits."""

import numpy as np
import pytest

from niwaki.ir.program import Program
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.pipelines import Techniques, compile_program
from tests.compiled import HOST, Compiled
from tests.conv_chains import conv_chain

X = np.random.default_rng(0).standard_normal((2, 16, 16, 4)).astype(np.float32)
Y = np.array([1, 3], np.int32)


@pytest.mark.parametrize(
    "program",
    [conv_chain(2, 8), conv_chain(2, 8, batch_norm=True)],
    ids=["plain", "batch-norm"],
)
def test_the_results_keep_every_bit(program: Program) -> None:
    options = TrainingOptions(optimizer=SGD(0.1, momentum=0.9))
    plain = compile_program(program, options, HOST)
    budget = plain.entries["train_step"].bound_bytes * 7 // 10
    smaller = compile_program(program, options, HOST, techniques=Techniques(1, budget))
    assert smaller.entries["train_step"].bound_bytes <= 1.02 * budget
    assert len(smaller.entries["train_step"].calls) > len(plain.entries["train_step"].calls)
    one, two = Compiled(plain), Compiled(smaller)
    for _ in range(2):
        inputs = [X, Y, np.float32(0.1)]
        assert one.run("train_step", inputs) == two.run("train_step", inputs)
    expected = one.state()
    for name, value in two.state().items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
