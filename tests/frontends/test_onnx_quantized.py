"""Quantised ONNX models: pairs of QuantizeLinear and DequantizeLinear become operations on codes.

The reference computes on dequantised float32 numbers and divides where Niwaki multiplies by an
integer and shifts: a sum that falls near the middle between two codes may be rounded to either.
So results agree within one code for each operation, not exactly.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

import niwaki
from niwaki.frontends import onnx as frontend
from niwaki.ir import effects
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.errors import ModelFileError, NiwakiError, UnsupportedOpsError, UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.passes.canonicalize import CanonicalizePass
from niwaki.passes.fold_quantization import FoldQuantizationPass
from tests.training_programs import apply

SHAPE = (2, 3, 8, 9)
SCALE = 0.02


class Qdq:
    """Builds a graph from `x`: float32, quantised at once."""

    def __init__(self, unsigned: bool = False, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype = np.uint8 if unsigned else np.int8
        self.nodes: list[Any] = []
        self.weights: dict[str, np.ndarray] = {}

    def add(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"{op}{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], f"node {name}", **attributes))
        return name

    def array(self, array: np.ndarray) -> str:
        name = f"array{len(self.weights)}"
        self.weights[name] = array
        return name

    def numbers(self, scale: float | np.ndarray, zero: int, dtype: Any) -> list[str]:
        scales = np.asarray(scale, np.float32)
        return [self.array(scales), self.array(np.full(scales.shape, zero, dtype))]

    def quantize(self, x: str, scale: float = SCALE, zero: int = -5) -> str:
        """`zero`: as a signed code."""
        shift = 128 if self.dtype == np.uint8 else 0
        return self.add("QuantizeLinear", x, *self.numbers(scale, zero + shift, self.dtype))

    def pair(self, x: str, scale: float = SCALE, zero: int = -5) -> str:
        codes = self.quantize(x, scale, zero)
        return self.add("DequantizeLinear", codes, *self.nodes[-1].input[1:])

    def filter(self, shape: tuple[int, ...], axis: int | None = 0) -> str:
        codes = self.random.integers(-127, 128, shape).astype(np.int8)
        size = () if axis is None else (shape[axis],)
        scale = self.random.uniform(0.001, 0.004, size)
        other = {} if axis is None else {"axis": axis}
        return self.add(
            "DequantizeLinear", self.array(codes), *self.numbers(scale, 0, np.int8), **other
        )

    def bias(self, weight: str, scale: float = SCALE) -> str:
        """Codes in the scales of the sums of `weight` and an input of `scale`."""
        (node,) = [n for n in self.nodes if n.output[0] == weight]
        scales = np.asarray(self.weights[node.input[1]] * np.float32(scale))
        codes = self.random.integers(-3000, 3001, scales.shape).astype(np.int32)
        return self.add("DequantizeLinear", self.array(codes), self.array(scales), axis=0)

    def conv(self, x: str, channels: tuple[int, int] = (3, 4), **attributes: Any) -> str:
        w = self.filter((channels[1], channels[0], 3, 3))
        return self.add("Conv", x, w, self.bias(w), pads=[1, 1, 1, 1], **attributes)

    def model(self, output: str) -> Any:
        graph = helper.make_graph(
            self.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)],
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def load(model: Any, folder: Path) -> Program:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return frontend.load(folder / "model.onnx")


def folded(model: Any, folder: Path) -> Program:
    return apply(load(model, folder), CanonicalizePass(), FoldQuantizationPass())


def operations(program: Program) -> list[str]:
    """Of the program, without parameters and moves."""
    names = (op.name.removeprefix("nn.") for op in program.function("forward").body.block.ops)
    hidden = ("train.parameter", "func.return", "transpose", "reshape")
    return [name for name in names if name not in hidden]


def reference(model: Any, x: np.ndarray) -> np.ndarray:
    (result,) = ReferenceEvaluator(model).run(None, {"x": x})
    return np.asarray(result)


def check(model: Any, folder: Path, expected: list[str], error: float) -> Program:
    """`expected` operations, and results within `error` of the reference's."""
    program = folded(model, folder)
    effects.verify(program.module)
    x = np.random.default_rng(9).uniform(-2.5, 2.5, SHAPE).astype(np.float32)
    want = reference(model, x)
    (have,) = run(program, "forward", [x])
    assert operations(program) == expected
    assert have.shape == want.shape
    assert np.abs(want).max() > 20 * error
    assert np.abs(have - want).max() <= error * 1.001
    return program


@pytest.mark.parametrize("unsigned", [False, True])
@pytest.mark.parametrize("clamp", [None, "Relu", "Clip"])
def test_convolution(unsigned: bool, clamp: str | None, tmp_path: Path) -> None:
    """The clamp is implied by the codes behind it: 0 and 6 are their ends."""
    g = Qdq(unsigned)
    y = g.conv(g.pair("x"), strides=[2, 1])
    if clamp == "Relu":
        y = g.add("Relu", y)
    if clamp == "Clip":
        ends = [g.array(np.array(end, np.float32)) for end in (0.0, 6.0)]
        y = g.add("Clip", y, *ends)
    scale, zero = (0.03, 7) if clamp is None else (6 / 255, -128)
    model = g.model(g.pair(y, scale, zero))

    program = check(model, tmp_path, ["quantize", "quantized_conv2d", "dequantize"], scale)
    (conv,) = [o for o in program.module.walk() if isinstance(o, nn.QuantizedConv2dOp)]
    assert [str(type_of(v).element_type).split(",")[0] for v in (conv.x, conv.w, conv.bias)] == [
        "!nn.quantized<i8", "!nn.quantized<i8", "!nn.quantized<i32",
    ]  # fmt: skip


def test_a_clamp_inside_the_range_of_codes_stays(tmp_path: Path) -> None:
    g = Qdq()
    model = g.model(g.pair(g.add("Relu", g.conv(g.pair("x"))), 0.03, 0))

    expected = ["quantize", "quantized_conv2d", "dequantize", "relu", "quantize", "dequantize"]
    check(model, tmp_path, expected, 0.03)


def test_depthwise_convolution(tmp_path: Path) -> None:
    g = Qdq()
    y = g.conv(g.pair("x"), (1, 6), group=3)

    expected = ["quantize", "quantized_conv2d", "dequantize"]
    check(g.model(g.pair(y, 0.02, -20)), tmp_path, expected, 0.02)


def test_without_a_pair_behind_the_sums_are_real(tmp_path: Path) -> None:
    g = Qdq()
    model = g.model(g.add("Sigmoid", g.conv(g.pair("x"))))

    expected = ["quantize", "quantized_conv2d", "dequantize", "sigmoid"]
    check(model, tmp_path, expected, 1e-5)


@pytest.mark.parametrize("axis", [None, 0])
@pytest.mark.parametrize("op", ["Gemm", "MatMul"])
def test_dense(op: str, axis: int | None, tmp_path: Path) -> None:
    g = Qdq()
    flat = g.add("Flatten", g.pair("x"))
    if op == "Gemm":
        w = g.filter((5, 216), axis)
        y = g.add("Gemm", flat, w, g.bias(w) if axis == 0 else "", transB=1)
    else:
        y = g.add("MatMul", flat, g.filter((216, 5), None if axis is None else 1))
    expected = ["quantize", "quantized_conv2d", "dequantize"]

    program = check(g.model(g.pair(y, 0.06, 3)), tmp_path, expected, 0.06)
    weights = [array for array in program.weights.values() if array.dtype == np.int8]
    assert [w.shape for w in weights] == [(5, 1, 1, 216)]


def test_residual_block(tmp_path: Path) -> None:
    """A sum with relu behind it, a max-pool of codes, a mean."""
    g = Qdq()
    x = g.pair("x")
    y = g.pair(g.conv(x, (3, 3)), 0.03, 9)
    y = g.pair(g.add("Relu", g.add("Add", x, y)), 0.02, -128)
    y = g.pair(g.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.02, -128)
    y = g.pair(g.add("GlobalAveragePool", y), 0.02, -128)
    w = g.filter((7, 3))
    y = g.add("Gemm", g.add("Flatten", y), w, g.bias(w), transB=1)

    model = g.model(y)
    program = folded(model, tmp_path)
    assert operations(program) == [
        "quantize", "quantized_conv2d", "quantized_add", "max_pool2d", "quantized_mean",
        "quantized_conv2d", "dequantize",
    ]  # fmt: skip
    x_value = np.random.default_rng(9).uniform(-2.5, 2.5, SHAPE).astype(np.float32)
    want = reference(model, x_value)
    (have,) = run(program, "forward", [x_value])
    # The mean is off by one code at most, and so is what it averages by much less than that.
    weight = next(a for a in g.weights.values() if a.shape == (7, 3)) * 0.004
    assert np.abs(have - want).max() <= 2 * 0.02 * np.abs(weight).sum(axis=1).max()


def test_a_mean_of_other_type_is_of_real_numbers(tmp_path: Path) -> None:
    g = Qdq()
    y = g.pair(g.add("GlobalAveragePool", g.pair("x")), 0.005, 0)

    check(
        g.model(y),
        tmp_path,
        ["quantize", "dequantize", "reduce_mean", "quantize", "dequantize"],
        0.005,
    )


def test_weights_quantised_in_the_model(tmp_path: Path) -> None:
    """Float weights between a pair, as after quantization-aware training; a float bias."""
    g = Qdq()
    w = g.array(g.random.uniform(-0.3, 0.3, (4, 3, 3, 3)).astype(np.float32))
    numbers = g.numbers(np.full(4, 0.3 / 127, np.float32), 0, np.int8)
    codes = g.add("QuantizeLinear", w, *numbers, axis=0)
    real = g.add("DequantizeLinear", codes, *numbers, axis=0)
    bias = g.array(g.random.uniform(-1, 1, 4).astype(np.float32))
    y = g.pair(g.add("Conv", g.pair("x"), real, bias), 0.03, 7)

    program = check(g.model(y), tmp_path, ["quantize", "quantized_conv2d", "dequantize"], 0.03)
    assert program.weights[w].dtype == np.int8
    assert program.weights[bias].dtype == np.int32


def test_weights_with_a_zero_point_stay_real(tmp_path: Path) -> None:
    g = Qdq()
    codes = g.array(g.random.integers(0, 256, (4, 3, 3, 3)).astype(np.uint8))
    w = g.add("DequantizeLinear", codes, *g.numbers(0.002, 120, np.uint8))
    y = g.pair(g.add("Conv", g.pair("x"), w), 0.03, 7)

    expected = ["quantize", "dequantize", "dequantize", "conv2d", "quantize", "dequantize"]
    check(g.model(y), tmp_path, expected, 0.03)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # in the reference's MaxPool
def test_codes_may_be_moved(tmp_path: Path) -> None:
    g = Qdq(unsigned=True)
    codes = g.quantize("x")
    numbers = g.nodes[-1].input[1:]
    codes = g.add("MaxPool", codes, kernel_shape=[2, 2])
    codes = g.add("Transpose", codes, perm=[0, 2, 3, 1])
    model = g.model(g.add("DequantizeLinear", codes, *numbers))

    check(model, tmp_path, ["quantize", "max_pool2d", "dequantize"], SCALE)


def test_zero_points_may_be_left_out(tmp_path: Path) -> None:
    """Codes are then unsigned."""
    g = Qdq()
    scale = g.array(np.array(SCALE, np.float32))
    y = g.add("DequantizeLinear", g.add("QuantizeLinear", "x", scale), scale)

    check(g.model(y), tmp_path, ["quantize", "dequantize"], SCALE)


def test_an_imported_model_is_compiled_and_trained(tmp_path: Path) -> None:
    """Bit for bit as interpreted; parameters are codes in the layout of the file."""
    g = Qdq()
    y = g.pair(g.add("Relu", g.conv(g.pair("x"))), 0.02, -128)
    y = g.add("Flatten", g.pair(g.add("MaxPool", y, kernel_shape=[2, 2]), 0.02, -128))
    model = g.model(g.add("MatMul", y, g.filter((224, 5), 1)))
    program = load(model, tmp_path)
    step = niwaki.compile(program, optimizer=niwaki.SGD(lr=0.05))
    x = np.random.default_rng(9).uniform(-2.5, 2.5, SHAPE).astype(np.float32)
    (want,) = run(folded(model, tmp_path), "forward", [x])

    np.testing.assert_array_equal(step.infer(x), want)
    shapes = [step.parameters[name].shape for name in step.parameters]
    assert (4, 3, 3, 3) in shapes
    assert (5, 1, 1, 224) in shapes
    filters = next(a for a in g.weights.values() if a.shape == (4, 3, 3, 3))
    (name,) = [n for n, a in g.weights.items() if a is filters]
    np.testing.assert_array_equal(step.parameters[name], filters)
    losses = [step(x, np.array([1, 3], np.int32)) for _ in range(10)]
    assert losses[-1] < 0.5 * losses[0]


# --- hostile models


def set_array(name: str, array: np.ndarray | np.float32) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        (tensor,) = [t for t in model.graph.initializer if t.name == name]
        tensor.CopyFrom(numpy_helper.from_array(np.asarray(array), name))

    return change


def drop_input(op: str, index: int) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        node = next(n for n in model.graph.node if n.op_type == op)
        del node.input[index:]

    return change


f32 = np.float32
# array0, array1: scale and zero point of the input; array2: weight, 3, 4: its scales and zeros.
DAMAGES: dict[str, tuple[type[NiwakiError], str, Callable[[Any], Any]]] = {
    "a scale of 0": (ModelFileError, "scales must be positive", set_array("array0", f32(0))),
    "a scale below 0": (ModelFileError, "scales must be positive", set_array("array0", f32(-1))),
    "a scale that is no number": (
        ModelFileError, "scales must be positive", set_array("array0", f32("nan")),
    ),
    "an infinite scale": (
        ModelFileError, "scales must be positive", set_array("array3", np.full(4, np.inf, f32)),
    ),
    "too few scales": (
        ModelFileError, "as many zero points", set_array("array3", np.ones(3, f32)),
    ),
    "too few channels": (
        ModelFileError,
        "3 scales for 4 channels",
        lambda m: (
            set_array("array3", np.ones(3, f32))(m),
            set_array("array4", np.zeros(3, np.int8))(m),
        ),
    ),
    "no scales": (
        ModelFileError, "no elements", set_array("array3", np.ones(0, f32)),
    ),
    "a table of scales": (
        ModelFileError, "must be one float32", set_array("array0", np.ones((1, 1), f32)),
    ),
    "scales of another type": (
        ModelFileError, "must be one float32", set_array("array0", np.array(1, np.int32)),
    ),
    "a zero point of another type": (
        ModelFileError, "zero points of uint8", set_array("array4", np.zeros(4, np.uint8)),
    ),
    "a zero point of 32 bits": (
        UnsupportedOpsError, "other than int8", set_array("array1", np.array(0, np.int32)),
    ),
    "16-bit codes": (
        UsageError, "data type 4", set_array("array1", np.array(0, np.uint16)),
    ),
    "zero points per channel": (
        UnsupportedOpsError, "zero points other than 0", set_array("array4", np.ones(4, np.int8)),
    ),
    "no scale": (ModelFileError, "input 1 is missing", drop_input("QuantizeLinear", 1)),
    "no zero point": (
        UnsupportedOpsError, "other than those of the Quant", drop_input("QuantizeLinear", 2),
    ),
    "another scale behind": (
        UnsupportedOpsError,
        "other than those of the QuantizeLinear",
        lambda m: (
            m.graph.initializer.append(numpy_helper.from_array(np.array(0.5, f32), "other")),
            m.graph.node[1].input.__setitem__(1, "other"),
        ),
    ),
    "no such dimension": (
        ModelFileError,
        "no dimension 9",
        lambda m: m.graph.node[2].attribute.__getitem__(0).__setattr__("i", 9),
    ),
    "64-bit codes": (
        UnsupportedOpsError,
        "codes of int64",
        set_array("array2", np.zeros((4, 3, 3, 3), np.int64)),
    ),
    "codes of computed integers": (
        UnsupportedOpsError,
        "integers that are computed",
        lambda m: m.graph.node[1].input.__setitem__(0, "x"),
    ),
    "an operation on codes": (
        UnsupportedOpsError,
        "on codes",
        lambda m: m.graph.node.insert(
            1, helper.make_node("Relu", [m.graph.node[0].output[0]], ["r"], "relu")
        ) or m.graph.node[2].input.__setitem__(0, "r"),
    ),
    "codes as the result": (
        UsageError,
        "is quantised",
        lambda m: setattr(m.graph.output[0], "name", m.graph.node[0].output[0]),
    ),
}  # fmt: skip


def test_the_undamaged_model_is_read(tmp_path: Path) -> None:
    g = Qdq()
    load(g.model(g.conv(g.pair("x"))), tmp_path)


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(name: str, tmp_path: Path) -> None:
    g = Qdq()
    model: onnx.ModelProto = g.model(g.conv(g.pair("x")))
    error, message, change = DAMAGES[name]
    change(model)

    with pytest.raises(error, match=message) as caught:
        load(model, tmp_path)
    assert len(str(caught.value)) < 500
