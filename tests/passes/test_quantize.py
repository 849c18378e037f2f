"""Post-training quantisation: which operations become quantised ones, and how close they are."""

import numpy as np
import pytest
from xdsl.dialects.builtin import TensorType

import niwaki
from niwaki.ir import effects
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.quantized_type import QuantizedType, quantized
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.quantization import to_codes
from niwaki.passes.calibration import METHODS
from niwaki.passes.quantize import quantize

RANDOM = np.random.default_rng(0)
SAMPLES = RANDOM.standard_normal((8, 8, 8, 3)).astype(np.float32)


def normal(*shape: int, gain: float = 1.0) -> np.ndarray:
    fan_in = max(int(np.prod(shape[1:])), 1)
    return (RANDOM.standard_normal(shape) * (gain / fan_in) ** 0.5).astype(np.float32)


def conv(b: ProgramBuilder, x: Value, name: str, channels: int, groups: int = 1) -> Value:
    depth = shape_of(x)[3] // groups
    w = b.weight(f"{name}.weight", normal(channels, 3, 3, depth, gain=2.0))
    y = b.conv2d(x, w, padding=1, groups=groups)
    return b.add(y, b.weight(f"{name}.bias", normal(channels)))


def norm(b: ProgramBuilder, x: Value, name: str) -> Value:
    channels = shape_of(x)[3]
    gamma = b.weight(f"{name}.gamma", 1 + normal(channels) / 4)
    beta = b.weight(f"{name}.beta", normal(channels) / 4)
    mean = b.weight(f"{name}.mean", normal(channels) / 4)
    var = b.weight(f"{name}.var", 1 + np.abs(normal(channels)))
    return b.batch_norm(x, gamma, beta, mean, var)


def residual_network() -> Program:
    """Stem with batch norm, an inverted residual, a block with relu behind the sum, a head."""
    b = ProgramBuilder()
    x = b.relu6(norm(b, conv(b, b.input([2, 8, 8, 3]), "stem", 8), "norm"))
    y = b.relu6(conv(b, x, "depthwise", 8, groups=8))
    x = b.add(x, conv(b, y, "project", 8))
    x = b.relu(b.add(conv(b, x, "second", 8), x))
    pooled = b.global_avg_pool(b.max_pool2d(x, 2, 2))
    head = b.weight("head.weight", normal(5, 8))
    return b.finish(b.dense(pooled, head, b.weight("head.bias", normal(5))))


def operations(program: Program) -> list[str]:
    """Of the program, without parameters and reshapes."""
    names = (op.name.removeprefix("nn.") for op in program.function("forward").body.block.ops)
    return [n for n in names if n not in ("train.parameter", "func.return", "reshape")]


QUANTIZED = [
    "quantize", "quantized_conv2d", "quantized_conv2d", "quantized_conv2d", "quantized_add",
    "quantized_conv2d", "quantized_add", "max_pool2d", "quantized_mean", "quantized_conv2d",
    "dequantize",
]  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_everything_computes_on_codes(method: str) -> None:
    program = residual_network()
    result = quantize(program, SAMPLES, method)
    effects.verify(result.module)
    (want,) = run(program, "forward", [SAMPLES[:2]])
    (have,) = run(result, "forward", [SAMPLES[:2]])

    assert operations(result) == QUANTIZED
    assert np.abs(have - want).max() < 0.06 * np.abs(want).max()
    assert "quantized" not in str(program.module), "the program given stays as it is"


def test_types_follow_from_the_data() -> None:
    result = quantize(residual_network(), SAMPLES)
    elements = {
        op.name: quantized(type_of(op.results[0]).element_type)
        for op in reversed(list(result.function("forward").body.block.ops))
        if isinstance(op, nn.QuantizeOp | nn.QuantizedConv2dOp)
    }

    first = elements["nn.quantize"]
    assert float(first.scales[0]) == pytest.approx((SAMPLES.max() - SAMPLES.min()) / 255, rel=1e-5)
    stem = elements["nn.quantized_conv2d"]
    assert stem.zero_point == -128
    assert 1 / 255 < stem.scales[0] <= 6 / 255 * (1 + 1e-6)


def test_input_of_codes() -> None:
    """The same results from codes as from the numbers that it would quantise itself."""
    program = residual_network()
    floats, codes = (quantize(program, SAMPLES, input=kind) for kind in ("float", "codes"))
    (argument,) = codes.function("forward").body.block.args
    assert isinstance(argument.type, TensorType)
    element = quantized(type_of(argument).element_type)
    x = SAMPLES[2:4]

    (want,) = run(floats, "forward", [x])
    (have,) = run(codes, "forward", [to_codes(x, element)])
    assert operations(codes) == QUANTIZED[1:]
    np.testing.assert_array_equal(have, want)


def test_what_has_no_quantised_form_stays() -> None:
    b = ProgramBuilder()
    x = b.sigmoid(conv(b, b.input([2, 8, 8, 3]), "a", 4))
    y = b.hard_swish(conv(b, b.concat([x, x], 3), "b", 4))
    program = b.finish(b.softmax(b.global_avg_pool(y)))
    result = quantize(program, SAMPLES)

    assert operations(result) == [
        "quantize", "quantized_conv2d", "dequantize", "sigmoid", "concat", "quantize",
        "quantized_conv2d", "dequantize", "hard_swish", "reduce_mean", "softmax",
    ]  # fmt: skip
    (want,) = run(program, "forward", [SAMPLES[:2]])
    (have,) = run(result, "forward", [SAMPLES[:2]])
    assert np.abs(have - want).max() < 0.02


def test_a_value_with_several_readers_is_quantised_once() -> None:
    b = ProgramBuilder()
    x = b.relu(conv(b, b.input([2, 8, 8, 3]), "a", 4))
    y = b.add(conv(b, x, "b", 4), conv(b, x, "c", 4))
    result = quantize(b.finish(b.tanh(x), conv(b, y, "d", 4)), SAMPLES)

    kinds = operations(result)
    assert kinds.count("quantized_conv2d") == 4
    assert kinds.count("quantized_add") == 1
    assert kinds.count("quantize") == 1


def test_weights_that_are_shared_stay() -> None:
    b = ProgramBuilder()
    w = b.weight("w", normal(3, 3, 3, 3))
    x = b.conv2d(b.input([2, 8, 8, 3]), w, padding=1)
    result = quantize(b.finish(conv(b, b.conv2d(x, w, padding=1), "a", 4)), SAMPLES)

    assert operations(result).count("quantized_conv2d") == 1
    assert operations(result).count("conv2d") == 2
    assert result.weights["w"].dtype == np.float32


def test_dead_channels_can_be_revived() -> None:
    """A filter of zeros gets the scale of its neighbours, and keeps its bias."""
    b = ProgramBuilder()
    filters, bias = normal(4, 3, 3, 3), normal(4)
    filters[1], bias[1] = 0, 0.5
    y = b.conv2d(b.input([2, 8, 8, 3]), b.weight("w", filters), padding=1)
    result = quantize(b.finish(b.add(y, b.weight("b", bias))), SAMPLES)
    (operation,) = [o for o in result.module.walk() if isinstance(o, nn.QuantizedConv2dOp)]
    element = type_of(operation.w).element_type
    assert isinstance(element, QuantizedType)

    assert element.scales[1] == pytest.approx(np.median(element.scales[[0, 2, 3]]))
    (y_value,) = run(result, "forward", [SAMPLES[:2]])
    np.testing.assert_allclose(y_value[..., 1], 0.5, atol=1e-3)


def test_int8_step_trains_as_the_interpreter_says() -> None:
    """Inference bit for bit; the loss falls."""
    result = quantize(residual_network(), SAMPLES)
    step = niwaki.compile(result, optimizer=niwaki.SGD(lr=0.05), batch=8)
    labels = np.arange(8, dtype=np.int32) % 5
    want = np.concatenate([run(result, "forward", [SAMPLES[i : i + 2]])[0] for i in (0, 2, 4, 6)])

    np.testing.assert_array_equal(step.infer(SAMPLES), want)
    losses = [step(SAMPLES, labels) for _ in range(20)]
    assert losses[-1] < 0.8 * losses[0]


# --- errors


def test_errors_name_what_does_not_fit() -> None:
    program = residual_network()
    with pytest.raises(UsageError, match="unknown method 'kl': use min_max, percentile, mse"):
        quantize(program, SAMPLES, "kl")
    with pytest.raises(UsageError, match="unknown input 'bytes'"):
        quantize(program, SAMPLES, input="bytes")
    for samples, message in (
        (SAMPLES[:1], "at least 2 samples"),
        (SAMPLES[:, :4], r"\[2, 8, 8, 3\]"),
        (np.full_like(SAMPLES, np.inf), "not finite on the calibration data: the input"),
    ):
        with pytest.raises(UsageError, match=message):
            quantize(program, samples)


def test_a_program_without_layers_cannot_be_quantised() -> None:
    b = ProgramBuilder()
    program = b.finish(b.relu(b.input([2, 8, 8, 3])))

    with pytest.raises(UsageError, match="no layer that can be quantised"):
        quantize(program, SAMPLES)


def test_several_inputs_take_a_list() -> None:
    b = ProgramBuilder()
    x, y = (conv(b, b.input([2, 8, 8, 3], name=name), name, 4) for name in "xy")
    program = b.finish(conv(b, b.add(x, y), "z", 2))

    assert operations(quantize(program, [SAMPLES, SAMPLES])).count("quantized_conv2d") == 3
    with pytest.raises(UsageError, match="a list of 2 arrays"):
        quantize(program, SAMPLES)
