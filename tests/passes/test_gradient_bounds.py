"""Bounds of cotangents: never exceeded, and not so wide that nothing is left of the gradient."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32, i8

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of, tensor
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.passes.integer_backward import IntegerBackwardPass
from tests.training_programs import apply

Array = np.ndarray
SIZE = 4


@dataclass(frozen=True)
class Layer:
    """A convolution whose input gradient is taken: from `outputs` channels to `inputs`."""

    outputs: int
    inputs: int
    kernel: int = 1
    groups: int = 1
    moves: bool = False
    """Whether the step writes its filters."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.outputs, self.kernel, self.kernel, self.inputs // self.groups)

    @property
    def window(self) -> nn.Window:
        margin = self.kernel // 2
        return nn.Window((1, 1), (margin,) * 4, (1, 1), self.groups)


CHAINS = {
    "expanding": [Layer(6, 24), Layer(24, 6)],
    "3x3": [Layer(4, 8, 3), Layer(8, 4)],
    "depthwise": [Layer(6, 24), Layer(24, 24, 3, 24), Layer(24, 6)],
    "grouped": [Layer(8, 8, 3, 2), Layer(8, 8, 1, 4), Layer(8, 4)],
    "one output a group": [Layer(4, 8, 3, 4), Layer(8, 4)],
    "one output": [Layer(1, 8), Layer(8, 4)],
    "two bounds": [Layer(6, 24), Layer(24, 32), Layer(32, 6)],
    "moving": [Layer(6, 24, moves=True), Layer(24, 24, 3, 24, moves=True), Layer(24, 6)],
}


def _program(layers: list[Layer], filters: list[Array], scales: list[Array]) -> Program:
    """The state "dx" becomes the gradient of the first layer's input; masks come in between."""
    b = ProgramBuilder()
    gradient = b.input([1, SIZE, SIZE, layers[0].outputs])
    for n, (layer, w, scale) in enumerate(zip(layers, filters, scales, strict=True)):
        codes = b.weight(f"w{n}", w, element=i8)
        gradient = b.mul(gradient, b.weight(f"scales{n}", scale, fixed=True))
        gradient = b.conv2d_dx(gradient, b.cast(codes), layer.window, [SIZE, SIZE])
        if n < len(layers) - 1:
            gradient = _masked(b, gradient, n)
        if layer.moves:
            b.assign(codes, codes)
    b.assign(b.state("dx", tensor(shape_of(gradient), f32)), gradient)
    # A network without integer convolutions would stay as it is.
    codes = b.input([1, 1, 1, 1], i8)
    b.insert(
        nn.IntegerConv2dOp.make(
            codes,
            b.weight("other", np.ones((1, 1, 1, 1), np.int8), element=i8),
            strides=(1, 1),
            padding=(0, 0, 0, 0),
            dilation=(1, 1),
            groups=1,
            zero_point=0,
        )
    )
    return b.finish()


def _masked(b: ProgramBuilder, x: Value, seed: int) -> Value:
    pattern = np.random.default_rng(seed).standard_normal(shape_of(x)[-1]).astype(np.float32)
    channels = b.weight(f"pattern{seed}", pattern + np.float32(0.8), fixed=True)
    zero = b.number(0.0, x)
    return b.select(b.compare(b.broadcast(channels, shape_of(x)), zero, "gt"), x, zero)


class Case:
    """A chain in floats and in integers."""

    def __init__(self, layers: list[Layer], filters: list[Array], scales: list[Array]) -> None:
        self.layers = layers
        self.float = _program(layers, filters, scales)
        self.integer = apply(self.float, IntegerBackwardPass())

    def error(self, gradient: Array, **state: Array) -> float:
        """The largest, over the largest element of the gradient of the first layer's input."""
        results: list[Array] = []
        for program in (self.float, self.integer):
            values = {name: array.copy() for name, array in state.items()}
            run(program, "forward", [gradient, np.zeros((1, 1, 1, 1), np.int8)], values)
            results.append(values["dx"].astype(np.float64))
        return float(np.abs(results[0] - results[1]).max() / np.abs(results[0]).max())


def _random(name: str, seed: int) -> Case:
    rng = np.random.default_rng(seed)
    layers = CHAINS[name]
    filters = [rng.integers(-127, 128, layer.shape).astype(np.int8) for layer in layers]
    scales = [rng.uniform(0.01, 1, layer.outputs).astype(np.float32) for layer in layers]
    return Case(layers, filters, scales)


def _gradient(case: Case, seed: int, size: float) -> Array:
    shape = (1, SIZE, SIZE, case.layers[0].outputs)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) * np.float32(size)


@pytest.mark.parametrize("name", CHAINS)
@settings(max_examples=10)
@given(seed=st.integers(0, 99), size=st.sampled_from([1e-12, 1.0, 1e12]))
def test_gradients_keep_their_first_digits(name: str, seed: int, size: float) -> None:
    case = _random(name, seed)
    assert case.error(_gradient(case, seed, size)) < 0.01


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_sums_do_not_overflow(name: str, sign: int) -> None:
    layers = CHAINS[name]
    filters = [np.full(layer.shape, sign * 127, np.int8) for layer in layers]
    scales = [np.ones(layer.outputs, np.float32) for layer in layers]
    case = Case(layers, filters, scales)
    assert case.error(np.ones((1, SIZE, SIZE, layers[0].outputs), np.float32)) < 0.01


def test_filters_may_grow_to_the_largest_codes() -> None:
    layers = CHAINS["moving"]
    filters = [np.ones(layer.shape, np.int8) for layer in layers]
    case = Case(layers, filters, [np.ones(layer.outputs, np.float32) for layer in layers])
    grown = {f"w{n}": np.full(layer.shape, -128, np.int8) for n, layer in enumerate(layers[:2])}
    assert case.error(np.ones((1, SIZE, SIZE, 6), np.float32), **grown) < 0.01


@pytest.mark.parametrize(("name", "kept"), [("expanding", 0), ("depthwise", 0), ("two bounds", 0)])
def test_no_sums_are_looked_at_where_they_are_many(name: str, kept: int) -> None:
    """Behind sums that grow, elements are looked at only as 16-bit numbers or not at all."""
    case = _random(name, 0)
    looked_at = [
        op
        for op in case.integer.module.walk()
        if isinstance(op, nn.ReduceMaxOp) and op.x.type.get_element_type() == f32  # pyright: ignore[reportAttributeAccessIssue]
    ]
    assert len(looked_at) == 1 + kept  # The gradient that comes in.
