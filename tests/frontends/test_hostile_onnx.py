"""Damaged and malicious ONNX files end in one clear error, before anything large is allocated."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from niwaki.frontends import onnx as frontend
from niwaki.ir.errors import ModelFileError, NiwakiError, UsageError


def good_model() -> Any:
    weights = {
        "w": np.ones((4, 3, 3, 3), np.float32), "b": np.ones(4, np.float32),
        "shape": np.array([1, -1], np.int64), "fc": np.ones((36, 2), np.float32),
    }  # fmt: skip
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], "conv", pads=[0, 0, 0, 0]),
        helper.make_node("MaxPool", ["a"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "shape"], ["r"]),
        helper.make_node("Gemm", ["r", "fc"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def set_ints(model: Any, node: int, name: str, values: list[int]) -> None:
    attributes = [a for a in model.graph.node[node].attribute if a.name != name]
    del model.graph.node[node].attribute[:]
    model.graph.node[node].attribute.extend([*attributes, helper.make_attribute(name, values)])


def set_dims(model: Any, dims: list[int]) -> None:
    model.graph.initializer[0].dims[:] = dims


def set_external(model: Any, **entries: str) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)


def set_shape(model: Any, values: list[int]) -> None:
    array = np.array(values, np.int64)
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(array, "shape"))


DAMAGES: dict[str, Callable[[Any], Any]] = {
    "no graph": lambda m: m.ClearField("graph"),
    "no operator set": lambda m: m.ClearField("opset_import"),
    "no outputs": lambda m: m.graph.ClearField("output"),
    "unknown output": lambda m: setattr(m.graph.output[0], "name", "nobody"),
    "unknown input": lambda m: m.graph.node[0].input.__setitem__(0, "nobody"),
    "cycle": lambda m: m.graph.node[0].input.__setitem__(0, "y"),
    "a value twice": lambda m: m.graph.node[1].output.__setitem__(0, "a"),
    "an input twice": lambda m: m.graph.input.append(m.graph.input[0]),
    "an initializer twice": lambda m: m.graph.initializer.append(m.graph.initializer[0]),
    "no inputs of a node": lambda m: m.graph.node[0].ClearField("input"),
    "rank of the filter": lambda m: set_dims(m, [4, 27]),
    "data cut off": lambda m: setattr(m.graph.initializer[0], "raw_data", b"abc"),
    "no data": lambda m: m.graph.initializer[0].ClearField("raw_data"),
    "sizes do not fit": lambda m: set_dims(m, [4, 3, 3, 4]),
    "absurd sizes": lambda m: set_dims(m, [2**40, 2**40]),
    "negative sizes": lambda m: set_dims(m, [-4, -3, 3, 3]),
    "no elements": lambda m: (
        set_dims(m, [0, 3, 3, 3]), setattr(m.graph.initializer[0], "raw_data", b"")
    ),
    "absurd rank": lambda m: set_dims(m, [1] * 100_000),
    "attribute of another type": lambda m: m.graph.node[0].attribute.append(
        helper.make_attribute("group", "text")
    ),
    "strides 0": lambda m: set_ints(m, 0, "strides", [0, 0]),
    "strides of 62 bits": lambda m: set_ints(m, 0, "strides", [2**62, 1]),
    "negative padding": lambda m: set_ints(m, 0, "pads", [-1, 0, 0, 0]),
    "padding makes it huge": lambda m: set_ints(m, 0, "pads", [2**30] * 4),
    "shape makes no sense": lambda m: set_shape(m, [-1, -1]),
    "shape does not fit": lambda m: set_shape(m, [7, 5]),
    "shape is huge": lambda m: set_shape(m, [2**62, 2**62]),
    "external without file": lambda m: set_external(m, location="missing.bin"),
    "external without location": lambda m: set_external(m),
    "external absolute": lambda m: set_external(m, location="/etc/passwd"),
    "external on a drive": lambda m: set_external(m, location="C:\\secret"),
    "external above": lambda m: set_external(m, location="../secret.bin"),
    "external above, hidden": lambda m: set_external(m, location="a/../../secret.bin"),
    "external with NUL": lambda m: set_external(m, location="a\0b"),
    "external through a link": lambda m: set_external(m, location="link.bin"),
    "external is a folder": lambda m: set_external(m, location="."),
    "external name too long": lambda m: set_external(m, location="x" * 10_000),
    "external offset is text": lambda m: set_external(m, location="model.onnx", offset="-1"),
    "external offset behind": lambda m: set_external(m, location="model.onnx", offset="9" * 18),
    "external length": lambda m: set_external(m, location="model.onnx", length="9999999999"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(name: str, tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    model = good_model()
    DAMAGES[name](model)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelFileError) as caught:
        frontend.load(path)
    assert str(caught.value).startswith("model.onnx: ")


def test_the_good_file_loads(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(good_model().SerializeToString())
    assert len(frontend.load(path).weights) == 3


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(good_model().SerializeToString().replace(b"conv", b"\xff\xfe\xfd\xfc"))
    with pytest.raises(ModelFileError):
        frontend.load(path)


def test_other_precisions_are_refused(tmp_path: Path) -> None:
    model = good_model()
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float64), "w")
    )
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match="float32"):
        frontend.load(tmp_path / "m.onnx")


@pytest.mark.parametrize("version", [1, 999])
def test_unknown_operator_sets(version: int, tmp_path: Path) -> None:
    model = good_model()
    model.opset_import[0].version = version
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UsageError, match=f"operator set {version}"):
        frontend.load(tmp_path / "m.onnx")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        frontend.load(tmp_path / "nowhere.onnx")


def test_truncated_files(tmp_path: Path) -> None:
    whole = good_model().SerializeToString()
    for length in range(0, len(whole), 17):
        loads_or_complains(whole[:length], tmp_path / "m.onnx")


def loads_or_complains(data: bytes, path: Path) -> None:
    path.write_bytes(data)
    with suppress(NiwakiError):
        frontend.load(path)


FUZZ = settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=6))
def test_mutated_files(tmp_path: Path, mutations: list[tuple[int, int]]) -> None:
    data = bytearray(good_model().SerializeToString())
    for place, value in mutations:
        data[place % len(data)] = value
    loads_or_complains(bytes(data), tmp_path / "m.onnx")


@FUZZ
@given(st.integers(0, 2**16), st.integers(-(2**63), 2**63 - 1))
def test_mutated_integers(tmp_path: Path, place: int, value: int) -> None:
    model: Any = good_model()
    lists = [
        *(a.ints for node in model.graph.node for a in node.attribute if a.ints),
        *(tensor.dims for tensor in model.graph.initializer),
    ]
    values = lists[place % len(lists)]
    values[place // len(lists) % len(values)] = value
    loads_or_complains(onnx.ModelProto.SerializeToString(model), tmp_path / "m.onnx")
