"""Simplification and fusion keep the results of random programs."""

import numpy as np
import pytest
from hypothesis import given, settings

from niwaki.ir.context import NiwakiContext
from niwaki.ir.effects import verify
from niwaki.ir.interpreter import run
from niwaki.passes.universe import PASSES
from tests.random_programs import SPECS, Step, build, inputs


@pytest.mark.parametrize(
    "pipeline",
    [
        ["canonicalize"],
        ["constant-fold"],
        ["fuse"],
        ["canonicalize", "constant-fold", "cse", "dce", "canonicalize", "fuse"],
    ],
    ids=",".join,
)
@settings(max_examples=60)
@given(steps=SPECS)
def test_results_stay(pipeline: list[str], steps: list[Step]) -> None:
    program = build(steps)
    before = run(program, "forward", inputs())
    for name in pipeline:
        PASSES[name]()().apply(NiwakiContext(program.weights), program.module)
        verify(program.module)
    after = run(program, "forward", inputs())
    for expected, actual in zip(before, after, strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=20)
@given(steps=SPECS)
def test_passes_are_deterministic_and_reach_a_fixed_point(steps: list[Step]) -> None:
    texts: list[str] = []
    for _ in range(2):
        program = build(steps)
        context = NiwakiContext(program.weights)
        PASSES["canonicalize"]()().apply(context, program.module)
        canonical = str(program.module)
        PASSES["canonicalize"]()().apply(context, program.module)
        assert str(program.module) == canonical
        PASSES["fuse"]()().apply(context, program.module)
        texts.append(str(program.module))
    assert texts[0] == texts[1]
