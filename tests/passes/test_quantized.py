"""Quantised training: gradients against the float surrogate, exact lowering, updates of codes."""

from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.builtin import i8, i32
from xdsl.ir import SSAValue

from niwaki.backends.targets import get_target
from niwaki.ir import effects
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.quantization import from_codes, to_codes
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.autodiff import AutodiffPass
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.lower_quantized import LowerQuantizedPass
from niwaki.passes.pipelines import Techniques, training_pipeline
from niwaki.passes.select_updates import SelectUpdatesPass
from tests.training_programs import apply

X = QuantizedType.of(i8, 0.05, -3)
Y = QuantizedType.of(i8, 0.08, 4)
FILTERS = np.array([0.02, 0.03, 0.01, 0.04], np.float32)
STRIDE, PADDING = 2, 1


def small_network(groups: int = 1) -> Program:
    """A convolution, a sum with its own input path, a mean, a head: every quantised operation."""
    rng = np.random.default_rng(0)
    b = ProgramBuilder()
    x = b.quantize(b.input([2, 6, 6, 4]), X)
    w = rng.integers(-90, 91, (4, 3, 3, 4 // groups)).astype(np.int8)
    bias = rng.integers(-200, 201, 4).astype(np.int32)
    filters = b.weight("conv.weight", w, element=QuantizedType.of(i8, FILTERS, axis=0))
    sums = QuantizedType.of(i32, FILTERS * np.float32(0.05), axis=0)
    offsets = b.weight("conv.bias", bias, element=sums)
    y = b.quantized_conv2d(x, filters, offsets, Y, STRIDE, PADDING, groups=groups)
    both = b.quantized_add(y, y, QuantizedType.of(i8, 0.11, -5))
    pooled = b.quantized_mean(both, [1, 2])
    head = rng.integers(-90, 91, (3, 1, 1, 4)).astype(np.int8)
    scales = np.array([0.02, 0.02, 0.05], np.float32)
    kinds = QuantizedType.of(i32, scales * np.float32(0.11), axis=0)
    logits = b.quantized_conv2d(
        pooled,
        b.weight("head.weight", head, element=QuantizedType.of(i8, scales, axis=0)),
        b.weight("head.bias", np.array([5, 0, -9], np.int32), element=kinds),
        QuantizedType.of(i32, kinds.scales, axis=3),
    )
    return b.finish(b.reshape(b.dequantize(logits), [2, 3]))


def _inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(-3, 3, (2, 6, 6, 4)).astype(np.float32), np.array([0, 2], np.int32)


def _trained(program: Program, *passes: object) -> Program:
    return apply(
        program,
        BuildTrainingPass(),
        SelectUpdatesPass(),
        AutodiffPass(),
        *passes,  # pyright: ignore[reportArgumentType]
    )


# --- gradients

Build = Callable[[ProgramBuilder, SSAValue], SSAValue]


def _cotangent(build: Build, element: QuantizedType, codes: np.ndarray) -> np.ndarray:
    """Of the sum of (real result)^2 / 2 with respect to the real numbers of a parameter."""
    b = ProgramBuilder()
    y = b.dequantize(build(b, b.weight("p", codes, element=element)))
    loss = b.scale(b.mul(y, y), 0.5)
    total = b.reshape(b.reduce_sum(loss, range(len(shape_of(loss)))), ())
    step = apply(b.finish(total), BuildTrainingPass("output"), SelectUpdatesPass(), AutodiffPass())
    function = step.function("train_step")
    (update,) = [op for op in function.body.block.ops if op.name == "train.sgd"]
    terminator = function.body.block.last_op
    assert terminator is not None
    terminator.operands = [update.operands[1]]
    update.detach()
    function.update_function_type()
    (gradient,) = run(step, "train_step", [np.float32(1.0)])
    return gradient


def _slope(surrogate: Callable[[np.ndarray], np.ndarray], at: np.ndarray, y: np.ndarray) -> float:
    """The derivative of <y, surrogate> in a random direction, by central differences."""
    direction = np.random.default_rng(7).standard_normal(at.shape)
    step = 1e-6
    ahead, behind = surrogate(at + step * direction), surrogate(at - step * direction)
    return float(np.sum(y * (ahead - behind)) / (2 * step))


def _check(
    build: Build,
    surrogate: Callable[[np.ndarray], np.ndarray],
    element: QuantizedType,
    codes: np.ndarray,
    outcome: np.ndarray,
) -> None:
    """The cotangent is the surrogate's gradient, taken at the quantised result's cotangent."""
    gradient = _cotangent(build, element, codes)
    real = from_codes(codes, element).astype(np.float64)
    direction = np.random.default_rng(7).standard_normal(codes.shape)
    expected = _slope(surrogate, real, outcome.astype(np.float64))
    assert abs(expected) > 1e-3
    assert float(np.sum(gradient * direction)) == pytest.approx(expected, rel=2e-5)


def _codes(shape: tuple[int, ...], seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-128, 128, shape).astype(np.int8)


def _real_conv(x: np.ndarray, w: np.ndarray, bias: np.ndarray, groups: int) -> np.ndarray:
    """In float64; clamped as the codes of Y are, with the half code that rounds back inside."""
    n, height, _, channels = x.shape
    padded = np.pad(x, [(0, 0), (PADDING, PADDING), (PADDING, PADDING), (0, 0)])
    out = (height + 2 * PADDING - 3) // STRIDE + 1
    y = np.zeros((n, out, out, w.shape[0]))
    per, depth = w.shape[0] // groups, channels // groups
    for i in range(3):
        for j in range(3):
            seen = padded[:, i : i + STRIDE * out : STRIDE, j : j + STRIDE * out : STRIDE]
            for g in range(groups):
                part = seen[..., g * depth : (g + 1) * depth]
                outputs = slice(g * per, (g + 1) * per)
                y[..., outputs] += part @ w[outputs, i, j].T
    low, high = ((limit - Y.zero_point) * float(Y.scales[0]) for limit in (-128.5, 127.5))
    return np.clip(y + bias, low, high)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("which", ["x", "w", "bias"])
def test_convolution_gradient(which: str, groups: int) -> None:
    sums = QuantizedType.of(i32, FILTERS * np.float32(0.05), axis=0)
    elements = {"x": X, "w": QuantizedType.of(i8, FILTERS, axis=0), "bias": sums}
    codes = {
        "x": _codes((1, 6, 6, 4)),
        "w": _codes((4, 3, 3, 4 // groups), 4),
        "bias": np.array([300, -700, 100, 0], np.int32),
    }

    def build(b: ProgramBuilder, p: SSAValue) -> SSAValue:
        values = [
            p if name == which else b.weight(name, codes[name], element=e, fixed=True)
            for name, e in elements.items()
        ]
        return b.quantized_conv2d(*values, Y, STRIDE, PADDING, groups=groups)

    b = ProgramBuilder()
    y = build(b, b.weight(which, codes[which], element=elements[which]))
    (outcome,) = run(b.finish(b.dequantize(y)), "forward", [])
    clamped = (outcome == outcome.min()) | (outcome == outcome.max())
    assert 0.05 < clamped.mean() < 0.95, "some elements clamp, some do not"
    real = {n: from_codes(codes[n], e).astype(np.float64) for n, e in elements.items()}

    def surrogate(at: np.ndarray) -> np.ndarray:
        parts = {**real, which: at}
        return _real_conv(parts["x"], parts["w"], parts["bias"], groups)

    _check(build, surrogate, elements[which], codes[which], outcome)


def test_sum_gradient_adds_up_over_uses() -> None:
    to = QuantizedType.of(i8, 0.07, 10)
    codes = _codes((2, 3, 3, 4))

    def build(b: ProgramBuilder, p: SSAValue) -> SSAValue:
        other = b.weight("other", _codes((2, 3, 3, 4), 9), element=Y, fixed=True)
        return b.quantized_add(b.quantized_add(p, other, to), p, to)

    b = ProgramBuilder()
    (outcome,) = run(
        b.finish(b.dequantize(build(b, b.weight("p", codes, element=X)))), "forward", []
    )
    other = from_codes(_codes((2, 3, 3, 4), 9), Y).astype(np.float64)
    low, high = ((limit - 10) * float(to.scales[0]) for limit in (-128.5, 127.5))

    def surrogate(at: np.ndarray) -> np.ndarray:
        return np.clip(np.clip(at + other, low, high) + at, low, high)

    _check(build, surrogate, X, codes, outcome)


def test_mean_gradient() -> None:
    codes = _codes((2, 3, 5, 4))
    b = ProgramBuilder()
    mean = b.quantized_mean(b.weight("p", codes, element=X), [1, 2])
    (outcome,) = run(b.finish(b.dequantize(mean)), "forward", [])

    _check(
        lambda b, p: b.quantized_mean(p, [1, 2]),
        lambda at: at.mean(axis=(1, 2), keepdims=True),
        X,
        codes,
        outcome,
    )


# --- lowering


@pytest.mark.parametrize("rounding", ["stochastic", "error_feedback", "nearest"])
@pytest.mark.parametrize("groups", [1, 4])
def test_lowering_changes_no_bit_of_a_run(groups: int, rounding: str) -> None:
    program = _trained(small_network(groups), ExpandUpdatesPass(rounding))
    lowered = apply(program, LowerQuantizedPass())
    effects.verify(lowered.module)
    states: list[dict[str, np.ndarray]] = [{}, {}]
    x, labels = _inputs()

    for _ in range(4):
        results = [
            run(p, "train_step", [x, labels, np.float32(0.05)], state)[0]
            for p, state in zip((program, lowered), states, strict=True)
        ]
        assert results[0] == results[1]

    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert np.array_equal(array, states[1][name]), name
    assert states[0]["conv.weight"].dtype == np.int8
    assert np.any(states[0]["conv.weight"] != program.weights["conv.weight"])


def test_no_quantised_type_is_left() -> None:
    lowered = apply(_trained(small_network(), ExpandUpdatesPass()), LowerQuantizedPass())

    assert "quantized<" not in str(lowered.module)
    for op in lowered.module.walk():
        assert not isinstance(op, nn.CodesOp | nn.FromCodesOp | nn.QuantizedConv2dOp)


def test_results_are_close_to_those_of_real_numbers() -> None:
    """Within half a code for each of the three roundings on the way."""
    program = small_network()
    x, _ = _inputs()
    (actual,) = run(program, "forward", [x])
    weights = program.weights
    real_x = from_codes(to_codes(x, X), X).astype(np.float64)
    w = from_codes(weights["conv.weight"], QuantizedType.of(i8, FILTERS, axis=0))
    bias = weights["conv.bias"] * FILTERS.astype(np.float64) * 0.05
    y = 2 * _real_conv(real_x, w.astype(np.float64), bias, 1)
    mean = np.clip(y, (-128 + 5) * 0.11, (127 + 5) * 0.11).mean(axis=(1, 2))
    scales = np.array([0.02, 0.02, 0.05])
    head = weights["head.weight"].reshape(3, 4) * scales[:, None]
    expected = mean @ head.T + weights["head.bias"] * scales * 0.11

    error = (0.08 + 0.11 / 2 + 0.11 / 2) * np.abs(head).sum(axis=1)
    assert np.all(np.abs(actual - expected) <= error)


# --- updates


def _moved(rounding: str, step: float, steps: int, scaling: bool = True) -> np.ndarray:
    """Codes of 1,000 weights at 10 after `steps` updates by `step` codes each."""
    element = QuantizedType.of(i8, 0.5)
    b = ProgramBuilder()
    p = b.weight("p", np.full(1000, 10, np.int8), element=element)
    factor = 0.5 if scaling else 2.0
    loss = b.scale(b.reshape(b.reduce_sum(b.dequantize(p), [0]), ()), step * factor)
    program = apply(
        b.finish(loss),
        BuildTrainingPass("output"),
        SelectUpdatesPass(),
        AutodiffPass(),
        ExpandUpdatesPass(rounding, scaling),
    )
    state: dict[str, np.ndarray] = {}
    for _ in range(steps):
        run(program, "train_step", [np.float32(1.0)], state)
    return state["p"].astype(np.float64)


def test_stochastic_rounding_is_right_on_average() -> None:
    codes = _moved("stochastic", 0.1, 20)

    # 20 draws of variance 0.09 each, over 1,000 weights: a standard error of 0.042.
    assert codes.mean() == pytest.approx(8.0, abs=0.2)
    assert codes.std() == pytest.approx(np.sqrt(20 * 0.09), rel=0.15)


def test_error_feedback_loses_nothing() -> None:
    assert np.all(np.abs(_moved("error_feedback", 0.1, 20) - 8.0) <= 0.6)


def test_rounding_to_nearest_stalls() -> None:
    assert np.all(_moved("nearest", 0.4, 20) == 10)
    assert np.all(_moved("nearest", 0.6, 3) == 7)


def test_without_scaling_the_step_is_of_codes() -> None:
    """d loss / d code = scale * d loss / d real: the step of 0.5 * 2 * 3 codes is whole."""
    assert np.all(_moved("nearest", 3.0, 1, scaling=False) == 10 - 3)


@pytest.mark.parametrize("rounding", ["stochastic", "error_feedback", "nearest"])
@pytest.mark.parametrize(("step", "limit"), [(1e30, -128), (-1e30, 127), (float("nan"), -128)])
def test_updates_saturate(rounding: str, step: float, limit: int) -> None:
    codes = _moved(rounding, step, 1)

    assert np.all(codes == limit)


def test_per_channel_scales_divide_the_step() -> None:
    element = QuantizedType.of(i8, [0.5, 0.25], axis=0)
    b = ProgramBuilder()
    p = b.weight("p", np.zeros((2, 3), np.int8), element=element)
    loss = b.reshape(b.reduce_sum(b.dequantize(p), [0, 1]), ())
    program = apply(
        b.finish(loss),
        BuildTrainingPass("output"),
        SelectUpdatesPass(),
        AutodiffPass(),
        ExpandUpdatesPass("nearest"),
    )
    state: dict[str, np.ndarray] = {}
    run(program, "train_step", [np.float32(1.0)], state)

    assert state["p"].tolist() == [[-2] * 3, [-4] * 3]


# --- strips


def test_strips_of_rows_change_no_bit() -> None:
    """Sums of integers do not depend on their order."""
    options = TrainingOptions(optimizer=SGD(0.05))
    states: list[dict[str, np.ndarray]] = []
    names: list[set[str]] = []
    for techniques in (Techniques(), Techniques(row_bytes=0)):
        program = small_network().clone()
        passes = training_pipeline(options, get_target("host"), techniques=techniques)
        kept = [step for step in passes if step.name not in ("fuse", "schedule")]
        for step in kept:
            step.apply(NiwakiContext(program.weights), program.module)
        effects.verify(program.module)
        state: dict[str, np.ndarray] = {}
        for _ in range(3):
            run(program, "train_step", [*_inputs(), np.float32(0.05)], state)
        states.append(state)
        names.append({op.name for op in program.function("train_step").body.block.ops})

    assert "nn.concat" in names[1] - names[0]
    assert states[0].keys() == states[1].keys()
    for name, array in states[0].items():
        assert np.array_equal(array, states[1][name]), name
