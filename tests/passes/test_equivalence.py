"""Random small networks: every pass keeps what the interpreter computes, and gradients are right.

The networks are those of tests/random_networks.py.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.passes import ModulePass

from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme
from niwaki.passes.cse import CsePass
from niwaki.passes.dce import DcePass
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from tests.random_networks import SPECS, Spec, build, inputs
from tests.training_programs import apply, in_float64, training_program

Array = np.ndarray

OPTIMIZERS: list[Optimizer] = [
    SGD(0.1),
    SGD(0.1, momentum=0.5, nesterov=True, weight_decay=0.1),
    Adam(0.1, epsilon=1e-2, weight_decay=0.1, clip_norm=0.1),
    AdamW(0.1, epsilon=1e-2, weight_decay=0.1),
]
SCHEMES = [
    Scheme.full(),
    Scheme.bias(),
    Scheme.head_only(),
    Scheme.last_layers(2),
    Scheme(weights={"0": 0.5}),
]
LOSSES = ["cross_entropy", "cross_entropy_soft", "mse", "bce"]
PASSES: list[list[ModulePass]] = [
    [ExpandUpdatesPass()],
    [DecomposePass()],
    [CsePass()],
    [DcePass()],
    [ExpandUpdatesPass(), DecomposePass(), CsePass(), DcePass()],
]


def _two_steps(program: Program, loss: str) -> tuple[list[Array], dict[str, Array]]:
    state: dict[str, Array] = {}
    x, y = inputs(loss)
    lr = np.float64(0.05)
    outputs = [run(program, "train_step", [x, y, lr], state)[0] for _ in range(2)]
    outputs += run(program, "infer", [x], state)
    outputs += run(program, "evaluate", [x, y], state)
    return outputs, state


@settings(max_examples=40)
@given(
    SPECS, st.sampled_from(OPTIMIZERS), st.sampled_from(SCHEMES), st.sampled_from(LOSSES),
)  # fmt: skip
def test_passes_keep_the_results(
    spec: Spec, optimizer: Optimizer, scheme: Scheme, loss: str
) -> None:
    program = training_program(in_float64(build(spec)), optimizer, scheme, loss)
    outputs, state = _two_steps(program, loss)
    for passes in PASSES:
        new_outputs, new_state = _two_steps(apply(program, *passes), loss)
        assert new_state.keys() == state.keys()
        for got, wanted in zip(
            [*new_outputs, *(new_state[k] for k in state)], [*outputs, *state.values()], strict=True
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11, err_msg=str(passes))


@settings(max_examples=40)
@given(SPECS, st.sampled_from(LOSSES))
def test_gradient_of_a_network_is_the_central_difference(spec: Spec, loss: str) -> None:
    program = training_program(in_float64(build(spec)), SGD(1.0), Scheme.full(), loss)
    arguments = [*inputs(loss), np.float64(1.0)]
    state: dict[str, Array] = {}
    run(program, "train_step", arguments, state)
    boxes = [
        op.key
        for op in program.function("train_step").body.block.ops
        if op.name == "train.parameter" and op.update_box is not None
    ]
    random = np.random.default_rng(2)
    directions = {name: random.standard_normal(program.weights[name].shape) for name in boxes}
    along = sum(np.sum((program.weights[n] - state[n]) * d) for n, d in directions.items())
    step = 1e-6
    ends = [
        run(
            program,
            "train_step",
            arguments,
            {n: program.weights[n] + sign * step * d for n, d in directions.items()},
        )[0]
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert along == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_drawn_networks_train_in_float64() -> None:
    program = in_float64(build([(9, 1)]))
    assert all("f64" in str(type_of(a)) for a in program.function("forward").body.block.args)
