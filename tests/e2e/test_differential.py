"""Random small networks through the whole pipeline: what the JIT computes, the interpreter computes.

The interpreter runs in float64 the program before its updates are expanded, so that every pass
behind autodiff, every kernel and the planned memory stand between the two.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from xdsl.ir import Operation

from niwaki.backends.kernels import scalar
from niwaki.backends.kernels.select import ALONE, FUSING
from niwaki.backends.targets import Target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn
from niwaki.ir.interpreter import run
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme, TrainingOptions
from niwaki.passes.instrument import PassRunner
from niwaki.passes.pipelines import Techniques, compile_program, training_pipeline
from tests.compiled import HOST, Compiled
from tests.random_networks import LAYERS, SPECS, VARIED, Spec, build, inputs
from tests.small_quantized_network import small_network
from tests.training_programs import in_float64, training_program

STEPS = 3
TOLERANCE = 2e-4
"""Of each array: of its largest element. float32 against float64, in other orders of summation."""

# A large epsilon: Adam divides by the gradient's size, which makes noise of tiny gradients.
OPTIMIZERS: list[Optimizer] = [
    SGD(0.05),
    SGD(0.05, weight_decay=0.1, clip_norm=0.1),
    SGD(0.05, momentum=0.5),
    SGD(0.05, momentum=0.5, nesterov=True, weight_decay=0.1),
    Adam(0.05, epsilon=0.1),
    Adam(0.05, epsilon=0.1, weight_decay=0.1, clip_norm=0.1),
    AdamW(0.05, epsilon=0.1, weight_decay=0.1),
]
SCHEMES = [
    Scheme.full(),
    Scheme.bias(),
    Scheme.head_only(),
    Scheme.last_layers(2),
    Scheme(weights={"0": 0.5}),
]
LOSSES = ["cross_entropy", "cross_entropy_soft", "mse", "bce"]
TARGETS = [
    replace(HOST, lanes=lanes, vector_registers=registers)
    for lanes, registers in ((16, 32), (8, 16), (4, 32), (4, 16), (1, 16))
]
"""The host with vectors of every target's size; LLVM splits those that it does not have."""

OPTIONS = st.builds(
    TrainingOptions, st.sampled_from(LOSSES), st.sampled_from(OPTIMIZERS), st.sampled_from(SCHEMES)
)
COVERING: list[Spec] = [
    *([(kind, kind), (kind, kind + 1)] for kind in range(len(LAYERS))),
    *([(kind, number) for number in range(7)] for kind in VARIED),
]
"""Every kind of layer, and every variant of those that have many."""

HAS_KERNEL = {*FUSING, *ALONE, *scalar.RULES, nn.BroadcastOp}


def assert_close(actual: NDArray[np.generic], wanted: NDArray[np.generic], what: str) -> None:
    scale = float(np.abs(wanted).max()) if wanted.size else 0.0
    np.testing.assert_allclose(
        actual, wanted, rtol=TOLERANCE, atol=TOLERANCE * max(scale, 2e-2), err_msg=what
    )


def check_against_interpreter(spec: Spec, options: TrainingOptions, target: Target) -> None:
    """Steps, then evaluation and inference; and all that the steps change."""
    program = build(spec)
    reference = training_program(
        in_float64(program), options.optimizer, options.scheme, options.loss
    )
    compiled = Compiled(compile_program(program, options, target), target)
    x, y = inputs(options.loss)
    lr = np.float32(options.optimizer.lr)
    state: dict[str, NDArray[np.generic]] = {}
    for number in range(STEPS):
        (wanted,) = run(reference, "train_step", [x, y, lr], state)
        (loss,) = compiled.run("train_step", [x, y, lr])
        assert_close(loss, wanted, f"loss of step {number}")
    ours = compiled.state()
    assert ours.keys() == state.keys()
    for name, wanted in state.items():
        assert_close(ours[name], wanted, name)
    for entry, arguments in (("infer", [x]), ("evaluate", [x, y])):
        expected = run(reference, entry, arguments, state)
        for actual, wanted in zip(compiled.run(entry, arguments), expected, strict=True):
            assert_close(actual, wanted, entry)


@pytest.mark.parametrize("number", range(len(COVERING)))
def test_layers_train_as_interpreted(number: int) -> None:
    options = TrainingOptions(LOSSES[number % 4], OPTIMIZERS[number % 7])
    check_against_interpreter(COVERING[number], options, TARGETS[number % 5])


@settings(max_examples=40)
@given(SPECS, OPTIONS, st.sampled_from(TARGETS))
def test_networks_train_as_interpreted(
    spec: Spec, options: TrainingOptions, target: Target
) -> None:
    check_against_interpreter(spec, options, target)


ELSEWHERE = (nn.AddRowsOp, nn.GatherOp, nn.ScatterAddOp)
"""Operations of tables: test_decoder.py and test_transformers_torch.py train those."""


@cache
def covered() -> frozenset[str]:
    """Names of the operations that COVERING hands to the kernel generators, and those of networks
    of codes, which test_quantized_training.py trains, and of activations kept in fewer bits."""
    found: set[str] = set()
    plain, narrow = Techniques(), Techniques(stash="bf16")
    cases = [(build(spec), plain) for spec in COVERING]
    cases += [(small_network(), plain), *((build(spec), narrow) for spec in COVERING[:8])]
    for program, techniques in cases:
        passes = training_pipeline(TrainingOptions(), HOST, techniques=techniques)
        PassRunner().run(NiwakiContext(program.weights), program.module, passes)
        found.update(op.name for op in program.module.walk())
    return frozenset(found)


@pytest.mark.parametrize("kind", sorted(HAS_KERNEL - {*ELSEWHERE}, key=lambda op: op.name))
def test_every_operation_with_a_kernel_is_lowered(kind: type[Operation]) -> None:
    assert kind.name in covered()
