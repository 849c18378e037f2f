"""Backward passes in integers: close to those in floats, free of overflow, without float sums."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.dialects.builtin import f32, i8, i32

from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import tensor
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import TrainingOptions
from niwaki.passes.exact_softmax import exact_cross_entropy, exact_softmax
from niwaki.passes.integer_backward import IntegerBackwardPass
from niwaki.passes.pipelines import training_pipeline
from tests.small_quantized_network import OPTIONS, small_network, trained
from tests.training_programs import apply

Array = np.ndarray
ZERO_POINT = -7
TARGET = get_target("x86-64")


class Gradients:
    """The three sums that one cotangent of a convolution enters, in floats and in integers."""

    def __init__(
        self,
        w: Array,
        x: Array,
        output: tuple[int, int],
        stride: int = 1,
        groups: int = 1,
        scales: Array | None = None,
    ) -> None:
        b = ProgramBuilder()
        self.shape = (x.shape[0], *output, w.shape[0])
        kernel = w.shape[1]
        margin = kernel // 2
        window = nn.Window((stride, stride), (margin, margin, margin, margin), (1, 1), groups)
        g, codes = b.input(self.shape), b.input(x.shape, i8)
        filters = b.weight("w", w, element=i8)
        self.scales = np.ones(w.shape[0], np.float32) if scales is None else scales
        scaled = b.mul(g, b.weight("scales", self.scales, fixed=True))
        differences = b.sub(b.cast(codes), b.number(ZERO_POINT, b.cast(codes)))
        results = {
            "dx": b.conv2d_dx(scaled, b.cast(filters), window, x.shape[1:3]),
            "dw": b.conv2d_dw(differences, g, window, (kernel, kernel)),
            "db": b.reduce_sum(g, [0, 1, 2]),
        }
        for name, value in results.items():
            shape = value.type.get_shape()  # pyright: ignore[reportAttributeAccessIssue]
            b.assign(b.state(name, tensor(shape, f32)), value)
        b.insert(
            nn.IntegerConv2dOp.make(
                codes,
                filters,
                strides=window.strides,
                padding=window.padding,
                dilation=window.dilation,
                groups=groups,
                zero_point=ZERO_POINT,
            )
        )
        self.float = b.finish()
        self.integer = apply(self.float, IntegerBackwardPass())
        self.x = x
        taps, positions = kernel * kernel, int(np.prod(self.shape[:3]))
        differences_at_most = 128 + abs(ZERO_POINT)
        self.weights = {
            "dx": w.shape[0] // groups * taps * 128,
            "dw": positions * differences_at_most,
            "db": positions,
        }
        self.levels = min(32767, *((2**31 - 1) // n for n in self.weights.values()))

    def run(self, program: Program, g: Array) -> dict[str, Array]:
        state: dict[str, Array] = {}
        run(program, "forward", [g.astype(np.float32), self.x], state)
        return {name: state[name].astype(np.float64) for name in self.weights}

    def check(self, g: Array) -> None:
        """The error of a sum is at most half a unit for each of its terms."""
        actual, expected = self.run(self.integer, g), self.run(self.float, g)
        unit = np.abs(g * self.scales).max() / self.levels
        for name, weight in self.weights.items():
            divided = 1.0 if name == "dx" else self.scales.min()
            size = np.abs(g * self.scales).max() * weight / divided
            bound = 0.5 * unit * weight / divided + 1e-5 * size + 1e-30
            assert np.all(np.isfinite(actual[name]))
            assert np.abs(actual[name] - expected[name]).max() <= bound, name


def _codes(shape: tuple[int, ...], seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


CASES = {
    "1x1": Gradients(_codes((24, 1, 1, 8)), _codes((2, 4, 4, 8)), (4, 4)),
    "3x3 stride": Gradients(_codes((6, 3, 3, 5)), _codes((1, 7, 7, 5)), (4, 4), 2),
    "depthwise": Gradients(_codes((8, 5, 5, 1)), _codes((1, 6, 6, 8)), (6, 6), 1, 8),
    "scales": Gradients(
        _codes((4, 1, 1, 8)),
        _codes((1, 3, 3, 8)),
        (3, 3),
        scales=np.array([0.02, 0.3, 1.0, 0.11], np.float32),
    ),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1e-20, 1e-3, 1.0, 1e12])
def test_gradients_are_close_to_those_in_floats(name: str, size: float) -> None:
    case = CASES[name]
    case.check(np.random.default_rng(1).standard_normal(case.shape) * size)


LARGE = Gradients(
    np.full((64, 3, 3, 2), -128, np.int8), np.full((4, 16, 16, 2), 127, np.int8), (16, 16)
)


@settings(max_examples=25, deadline=None)
@given(
    size=st.floats(1e-25, 1e25),
    negative=st.floats(0, 1),
    seed=st.integers(0, 99),
)
def test_no_sum_overflows(size: float, negative: float, seed: int) -> None:
    """All cotangents and codes are as large as they can be."""
    signs = np.where(np.random.default_rng(seed).random(LARGE.shape) < negative, -1.0, 1.0)
    LARGE.check(signs * size)


@pytest.mark.parametrize("value", [0.0, 1e-38, -1e-45])
def test_nothing_is_divided_by_nothing(value: float) -> None:
    case = CASES["1x1"]
    for array in case.run(case.integer, np.full(case.shape, value)).values():
        assert np.all(array == 0)


def test_sums_too_long_for_integers_stay_as_they_are() -> None:
    x = np.zeros((64, 64, 64, 1), np.int8)
    case = Gradients(_codes((2, 1, 1, 1)), x, (64, 64))
    kinds = {op.name for op in case.integer.module.walk()}

    assert "nn.conv2d_dw" in kinds
    assert "nn.integer_conv2d_dx" in kinds


def test_cotangents_share_their_whole_numbers() -> None:
    casts = [
        op
        for op in CASES["1x1"].integer.module.walk()
        if isinstance(op, nn.CastOp) and str(op.to) == "i16"
    ]
    assert len(casts) == 1


# --- softmax


def _softmax(x: Array) -> Array:
    b = ProgramBuilder()
    (y,) = run(b.finish(exact_softmax(b, b.input(x.shape), 1)), "forward", [x])
    return y


@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
@pytest.mark.parametrize("size", [0.0, 0.1, 5.0, 1e4])
def test_softmax(classes: int, size: float) -> None:
    logits = np.random.default_rng(classes).standard_normal((4, classes)).astype(np.float32)
    logits *= np.float32(size)
    powers = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))

    expected = powers / powers.sum(1, keepdims=True)
    rounding = classes**2 * 2.0**-31
    np.testing.assert_allclose(_softmax(logits), expected, rtol=1e-6, atol=1e-7 + rounding)


@pytest.mark.parametrize("rows", [1, 2, 64])
@pytest.mark.parametrize("classes", [1, 2, 10, 1000])
@pytest.mark.parametrize("size", [0.0, 0.1, 5.0, 1e4])
def test_cross_entropy(rows: int, classes: int, size: float) -> None:
    rng = np.random.default_rng(classes)
    logits = rng.standard_normal((rows, classes)).astype(np.float32) * np.float32(size)
    labels = rng.integers(0, classes, rows).astype(np.int32)
    b = ProgramBuilder()
    loss = exact_cross_entropy(b, b.input(logits.shape), b.input(labels.shape, i32))
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(rows), labels]

    (actual,) = run(b.finish(loss), "forward", [logits, labels])

    rounding = classes**2 * 2.0**-31
    assert float(actual) == pytest.approx(expected.mean(), rel=2e-6, abs=2e-7 + rounding)


# --- the whole pipeline


def test_updates_depend_on_no_sum_of_floats() -> None:
    module = trained(small_network(), OPTIONS["sgd"], upto="decompose").module
    (step,) = [op for op in module.ops if "train_step" in str(op.properties.get("sym_name"))]
    kinds = [op.name for op in step.walk()]

    for name in ("nn.conv2d", "nn.conv2d_dx", "nn.conv2d_dw", "nn.softmax"):
        assert name not in kinds
    assert kinds.count("nn.integer_conv2d_dx") == 5
    assert kinds.count("nn.integer_conv2d_dw") == 6


def test_the_backward_pass_can_stay_in_floats() -> None:
    options = TrainingOptions(backward="float")
    assert "integer-backward" not in [p.name for p in training_pipeline(options, TARGET)]


def test_unknown_backward() -> None:
    with pytest.raises(UsageError, match="unknown backward 'both': use integer or float"):
        training_pipeline(TrainingOptions(backward="both"), TARGET)
