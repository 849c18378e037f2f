"""Programs go to other processes."""

import pickle

import numpy as np

from niwaki.ir.builder import ProgramBuilder


def test_pickling_a_deep_program() -> None:
    b = ProgramBuilder()
    x = b.mul(b.input([1, 2]), b.weight("w", np.array([1, 2], np.float32)))
    for _ in range(2000):
        x = b.leaky_relu(x, 0.1)
    program = b.finish(x, source="here")

    copy = pickle.loads(pickle.dumps(program))

    assert copy.module.is_structurally_equivalent(program.module)
    assert copy.weights["w"].tolist() == [1, 2]
    assert copy.source == "here"
