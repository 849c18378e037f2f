"""The search for schemes finds the optimum of the additive model, within the budget."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.errors import DoesNotFitError, UsageError
from niwaki.passes.scheme_search import (
    MOST_DEPTHS,
    Contributions,
    SchemeSpace,
    WeightPart,
    best_scheme,
)
from niwaki.passes.update_memory import update_bytes
from tests import networks

LAYERS = 4
GAINS = st.integers(-3, 9).map(lambda eighths: eighths / 8)
SIZES = st.integers(1, 12).map(float)
DEPTHS = (1, 2, LAYERS)
PARTS: list[WeightPart] = [(layer, ratio) for layer in range(LAYERS - 1) for ratio in (0.25, 1.0)]


@st.composite
def problems(draw: st.DrawFn) -> tuple[SchemeSpace, Contributions]:
    """Four layers, with two ratios each."""
    budget = draw(st.integers(8, 40))
    steps = [draw(st.integers(1, 4)) for _ in range(LAYERS)]
    bias_bytes = {k: float(sum(steps[:k])) for k in DEPTHS if sum(steps[:k]) <= budget}
    weight_bytes = {part: draw(SIZES) for part in PARTS}
    space = SchemeSpace(budget, ("a", "b", "c", "head"), bias_bytes, weight_bytes)
    biases = {1: 0.0} | {k: draw(GAINS) for k in bias_bytes if k > 1}
    return space, Contributions(biases, {part: draw(GAINS) for part in PARTS})


def exhaustive(space: SchemeSpace, gains: Contributions) -> tuple[float, float]:
    """(most gain, fewest bytes of those)."""
    found: list[tuple[float, float]] = []
    of_layers = list(product((None, 0.25, 1.0), repeat=LAYERS - 1))
    for depth, ratios in product(gains.biases, of_layers):
        chosen = [(layer, ratio) for layer, ratio in enumerate(ratios) if ratio is not None]
        if any(LAYERS - layer > depth for layer, _ in chosen):
            continue
        size = space.bias_bytes[depth] + sum(space.weight_bytes[part] for part in chosen)
        if size <= space.budget:
            found.append((gains.biases[depth] + sum(gains.weights[p] for p in chosen), size))
    return max(found, key=lambda pair: (pair[0], -pair[1]))


@given(problems())
def test_finds_the_optimum(problem: tuple[SchemeSpace, Contributions]) -> None:
    space, gains = problem

    found = best_scheme(space, gains)

    assert (found.gain, found.bytes) == exhaustive(space, gains)
    assert found.bytes <= space.budget
    assert found.scheme.biases is not None
    assert found.scheme.weights is not None
    parts = [(int(number), ratio) for number, ratio in found.scheme.weights.items()]
    depth = found.scheme.biases
    assert found.gain == gains.biases[depth] + sum(gains.weights[part] for part in parts)
    assert found.bytes == space.bias_bytes[depth] + sum(space.weight_bytes[part] for part in parts)


def test_bytes_are_those_of_the_analytic_model() -> None:
    forward = networks.lenet(1).function("forward")
    space = SchemeSpace.of(forward, 100_000)
    for depth, size in space.bias_bytes.items():
        assert size == update_bytes(forward, space.with_biases(depth))
    without = update_bytes(forward, space.all_biases)
    for part, size in space.weight_bytes.items():
        assert size == update_bytes(forward, space.with_weights(part)) - without

    gains = {part: 1.0 / (1 + part[0]) + part[1] for part in space.weight_bytes}
    found = best_scheme(space, Contributions({1: 0.0, 3: 0.5, 5: 0.75}, gains))

    assert found.scheme.weights
    assert found.bytes == update_bytes(forward, found.scheme) <= 100_000


def test_only_what_can_be_chosen_is_tried() -> None:
    forward = networks.lenet(1).function("forward")
    head = update_bytes(forward, SchemeSpace.of(forward, 1e9).head)

    assert SchemeSpace.of(forward, head).bias_bytes == {1: head}
    assert not SchemeSpace.of(forward, head).weight_bytes
    # The first layer has one input channel: all ratios update it whole.
    assert [ratio for layer, ratio in SchemeSpace.of(forward, 1e9).weight_bytes if layer == 0] == [
        1.0
    ]
    with pytest.raises(DoesNotFitError, match="head alone needs"):
        SchemeSpace.of(forward, head - 1)


def test_few_depths_of_a_deep_model() -> None:
    space = SchemeSpace.of(networks.mobilenet_v2(1, 32).function("forward"), 1e9)
    assert len(space.bias_bytes) == MOST_DEPTHS
    assert {1, len(space.layers)} <= set(space.bias_bytes)


def test_grouped_convolutions_are_whole_or_not_updated() -> None:
    b = ProgramBuilder()
    x = b.input([2, 4, 4, 4])
    y = b.conv2d(x, b.weight("conv", np.ones((6, 1, 1, 2), np.float32)), groups=2)
    y = b.matmul(b.global_avg_pool(y), b.weight("dense", np.ones((6, 3), np.float32)))
    space = SchemeSpace.of(b.finish(y).function("forward"), 1e9)
    assert list(space.weight_bytes) == [(0, 1.0)]


def test_a_model_without_layers() -> None:
    b = ProgramBuilder()
    with pytest.raises(UsageError, match="no layers"):
        SchemeSpace.of(b.finish(b.relu(b.input([1, 2]))).function("forward"), 1e9)
