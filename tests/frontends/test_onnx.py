"""Imported ONNX models compute what ONNX's reference evaluator computes."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from niwaki.frontends import onnx as frontend
from niwaki.ir import effects
from niwaki.ir.dialects import nn, train
from niwaki.ir.errors import UnsupportedOpsError, UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program

X = (2, 3, 8, 9)
RANDOM = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def build(
    nodes: Sequence[Any],
    weights: dict[str, np.ndarray],
    shape: Sequence[int | str] = X,
    opset: int = 17,
    outputs: Sequence[str] = ("y",),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "model",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def load(model: onnx.ModelProto, folder: Path) -> Program:
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    program = frontend.load(folder / "model.onnx")
    effects.verify(program.module)
    return program


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def f32(value: float) -> np.ndarray:
    return np.array(value, np.float32)


CASES: dict[str, tuple[int, str, list[np.ndarray], dict[str, Any]]] = {
    "conv": (17, "Conv", [normal(4, 3, 3, 3), normal(4)], {"pads": [1, 0, 2, 1]}),
    "conv same upper": (
        17,
        "Conv",
        [normal(4, 3, 3, 2)],
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    ),
    "conv same lower": (
        17,
        "Conv",
        [normal(4, 3, 4, 3)],
        {"auto_pad": "SAME_LOWER", "strides": [2, 1]},
    ),
    "conv depthwise": (17, "Conv", [normal(6, 1, 3, 3)], {"group": 3, "dilations": [2, 1]}),
    "batch norm": (
        15,
        "BatchNormalization",
        [normal(3), normal(3), normal(3), abs(normal(3))],
        {"epsilon": 1e-3},
    ),
    "max pool": (
        17,
        "MaxPool",
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    ),
    "max pool ceil": (
        17,
        "MaxPool",
        [],
        {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    ),
    "max pool same": (
        17,
        "MaxPool",
        [],
        {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "average pool": (
        17,
        "AveragePool",
        [],
        {"kernel_shape": [3, 2], "strides": [2, 2], "pads": [1, 0, 1, 0]},
    ),
    "average pool all": (
        17,
        "AveragePool",
        [],
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "global average": (17, "GlobalAveragePool", [], {}),
    "global max": (17, "GlobalMaxPool", [], {}),
    "clip attributes": (6 + 1, "Clip", [], {"min": -0.5, "max": 0.5}),
    "clip inputs": (13, "Clip", [f32(0.0), f32(6.0)], {}),
    "hard sigmoid": (17, "HardSigmoid", [], {}),
    "hard sigmoid sixth": (17, "HardSigmoid", [], {"alpha": 1 / 6}),
    "pow": (17, "Pow", [f32(2.0)], {}),
    "reduce mean attribute": (13, "ReduceMean", [], {"axes": [2, 3], "keepdims": 0}),
    "reduce mean input": (18, "ReduceMean", [ints(-1, 1)], {}),
    "reduce sum": (13, "ReduceSum", [ints(0, 2)], {"keepdims": 0}),
    "reduce max": (13, "ReduceMax", [], {}),
    "reshape": (17, "Reshape", [ints(0, -1)], {}),
    "flatten": (17, "Flatten", [], {"axis": 2}),
    "transpose": (17, "Transpose", [], {"perm": [3, 0, 1, 2]}),
    "unsqueeze 11": (11, "Unsqueeze", [], {"axes": [0, 5]}),
    "unsqueeze 13": (13, "Unsqueeze", [ints(1)], {}),
    "pad 2": (7, "Pad", [], {"pads": [0, 0, 1, 2, 0, 1, 0, 0], "value": 2.0}),
    "pad 11": (11, "Pad", [ints(0, 0, 1, 1, 0, 0, 2, 0), f32(1.5)], {}),
    "slice 1": (7, "Slice", [], {"starts": [1, -3], "ends": [2**31 - 1, -1], "axes": [1, 3]}),
    "slice 13": (13, "Slice", [ints(0, 1), ints(9999, 2**62), ints(3, 2), ints(2, 3)], {}),
    "softmax 13": (13, "Softmax", [], {"axis": 1}),
    "log softmax": (13, "LogSoftmax", [], {}),
    "expand": (17, "Expand", [ints(2, 1, 1, 8, 9)], {}),
    "dropout": (13, "Dropout", [f32(0.4)], {}),
    "cast": (13, "Cast", [], {"to": TensorProto.FLOAT}),
    "channel bias": (17, "Add", [normal(3, 1, 1)], {}),
    "row bias": (17, "Mul", [normal(9)], {}),
}


@pytest.mark.parametrize("name", CASES)
def test_operation(name: str, tmp_path: Path) -> None:
    """Alone, and between convolutions that keep the values channels-last."""
    opset, op, inputs, attributes = CASES[name]
    weights = {f"w{i}": array for i, array in enumerate(inputs)}
    alone = helper.make_node(op, ["x", *weights], ["y"], "node", **attributes)
    check(build([alone], weights, opset=opset), tmp_path)
    weights["identity"] = np.eye(3, dtype=np.float32)[:, :, None, None]
    nodes = [
        helper.make_node("Conv", ["x", "identity"], ["x1"]),
        helper.make_node(op, ["x1", *(f"w{i}" for i in range(len(inputs)))], ["y"], **attributes),
    ]
    check(build(nodes, weights, opset=opset), tmp_path)


def check(model: onnx.ModelProto, folder: Path) -> None:
    x = normal(*X)
    expected = ReferenceEvaluator(model).run(None, {"x": x})
    actual = run(load(model, folder), "forward", [x])
    for have, want in zip(actual, expected, strict=True):
        assert have.shape == want.shape
        np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-5)


def test_softmax_of_old_opsets_normalises_all_trailing_dimensions(tmp_path: Path) -> None:
    model = build([helper.make_node("Softmax", ["x"], ["y"])], {}, opset=11)
    x = normal(*X)
    powers = np.exp(x)
    (actual,) = run(load(model, tmp_path), "forward", [x])
    np.testing.assert_allclose(actual, powers / powers.sum((1, 2, 3), keepdims=True), rtol=1e-4)


def test_negative_padding_cuts(tmp_path: Path) -> None:
    weights = {"pads": ints(0, 0, 1, -1, 0, 0, -2, -3)}
    model = build([helper.make_node("Pad", ["x", "pads"], ["y"])], weights)
    x = normal(*X)
    (actual,) = run(load(model, tmp_path), "forward", [x])
    expected = np.pad(x[:, :, :-2, 1:-3], [(0, 0), (0, 0), (1, 0), (0, 0)])
    np.testing.assert_array_equal(actual, expected)


def test_network(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "conv.w", "conv.b"], ["a"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Add", ["c", "c"], ["d"]),
        helper.make_node("Concat", ["c", "d"], ["e"], axis=1),
        helper.make_node("Split", ["e", "sizes"], ["f", "g"], axis=1),
        helper.make_node("Mul", ["f", "half"], ["h"]),
        helper.make_node("Shape", ["h"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus_one"], ["shape"], axis=0),
        helper.make_node("Reshape", ["h", "shape"], ["i"]),
        helper.make_node("Gemm", ["i", "fc.w", "fc.b"], ["y"], transB=1, alpha=0.5, beta=2.0),
        helper.make_node("MatMul", ["i", "m"], ["z"]),
    ]
    weights = {
        "conv.w": normal(4, 3, 3, 3), "conv.b": normal(4), "sizes": ints(5, 3), "half": f32(0.5),
        "zero": np.array(0, np.int64), "axes": ints(0), "minus_one": ints(-1),
        "fc.w": normal(6, 80), "fc.b": normal(6), "m": normal(80, 2),
    }  # fmt: skip
    model = build(nodes, weights, outputs=["y", "z", "g"])
    check(model, tmp_path)
    program = load(model, tmp_path)
    stored = {op.key: op for op in program.module.walk() if isinstance(op, train.ParameterOp)}
    assert set(stored) == {"conv.w", "conv.b", "fc.w", "fc.b", "m"}
    assert stored["conv.w"].source_permutation is not None
    assert stored["conv.w"].source_permutation.get_values() == (0, 2, 3, 1)


@pytest.mark.parametrize(("opset", "training"), [(15, True), (15, False), (9, True), (9, False)])
def test_batch_norm_mode(opset: int, training: bool, tmp_path: Path) -> None:
    outputs = ["y", "m1", "v1", "m2", "v2"] if opset == 9 else ["y", "m1", "v1"]
    mode = {"training_mode": 1} if opset == 15 and training else {}
    node = helper.make_node(
        "BatchNormalization", ["x", "s", "b", "mean", "var"], outputs if training else ["y"],
        momentum=0.8, **mode,
    )  # fmt: skip
    weights = {"s": normal(3), "b": normal(3), "mean": normal(3), "var": abs(normal(3))}
    program = load(build([node], weights, opset=opset), tmp_path)
    (norm,) = [op for op in program.module.walk() if isinstance(op, nn.BatchNormOp)]
    assert bool(norm.training.value.data) == training
    assert norm.momentum.value.data == pytest.approx(0.2)
    assert bool(program.notes) != training
    fixed = {
        op.key
        for op in program.module.walk()
        if isinstance(op, train.ParameterOp) and op.fixed is not None
    }
    assert fixed == {"mean", "var"}


def test_training_dropout(tmp_path: Path) -> None:
    weights = {"ratio": f32(0.25), "training": np.array(True)}
    node = helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])
    program = load(build([node], weights), tmp_path)
    (dropout,) = [op for op in program.module.walk() if isinstance(op, nn.DropoutOp)]
    assert dropout.rate.value.data == 0.25


def test_dynamic_batch_becomes_one(tmp_path: Path) -> None:
    relu = helper.make_node("Relu", ["x"], ["y"])
    program = load(build([relu], {}, ["batch", 3]), tmp_path)
    assert run(program, "forward", [normal(1, 3)])[0].shape == (1, 3)
    with pytest.raises(UsageError, match="dimension 1 of input 'x'"):
        load(build([relu], {}, [1, "width"]), tmp_path)


def test_all_unsupported_operations_at_once(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cos", ["x"], ["a"], "first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Special", ["x"], ["c"], "second", domain="my.ops"),
        helper.make_node("Pad", ["x", "pads"], ["d"], "third", mode="reflect"),
        helper.make_node("Sin", ["x"], ["dead"], "dead"),
        helper.make_node("Sum", ["b", "c", "d"], ["y"]),
    ]
    with pytest.raises(UnsupportedOpsError) as caught:
        load(build(nodes, {"pads": ints(0, 0, 1, 1, 0, 0, 1, 1)}), tmp_path)
    assert caught.value.ops == (
        ("Cos", "node 'first'"),
        ("my.ops.Special", "node 'second'"),
        ("Pad (mode=reflect)", "node 'third'"),
    )


def test_external_data(tmp_path: Path) -> None:
    model = build([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": normal(300, 2)}, [2, 300])
    expected = ReferenceEvaluator(model).run(None, {"x": np.ones((2, 300), np.float32)})[0]
    onnx.save_model(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.bin", size_threshold=0
    )
    program = frontend.load(tmp_path / "m.onnx")
    actual = run(program, "forward", [np.ones((2, 300), np.float32)])[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-5)


def test_names_are_data(tmp_path: Path) -> None:
    name = "we*/ird\n\"'\0 " + "x" * 500
    node = helper.make_node("Add", ["x", name], ["y"], name + "node")
    program = load(build([node], {name: normal(9)}), tmp_path)
    assert list(program.weights) == [name]


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UsageError, match=r"pip install niwaki\[onnx\]"):
        frontend.load(tmp_path / "m.onnx")


def test_every_rule_is_documented() -> None:
    known = {op.name for op in (*nn.NN.operations, *train.TRAIN.operations)}
    for name, targets in frontend.OPS.items():
        assert set(targets) <= known, name
