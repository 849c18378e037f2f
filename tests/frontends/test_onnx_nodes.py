"""ONNX's own node tests, for the operations that the importer knows."""

import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, numpy_helper

from niwaki.frontends import onnx as frontend
from niwaki.frontends.onnx_ops import RULES
from niwaki.frontends.onnx_shapes import FOLDS
from niwaki.ir.errors import UnsupportedOpsError, UsageError
from niwaki.ir.interpreter import run

TYPES = {TensorProto.FLOAT, TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL}
STATIC = {"Clip", "Pow", "Pad", "Dropout"}
"""Operations whose further inputs must be constants; the node tests make them inputs."""
RANDOM = {"test_training_dropout_default", "test_training_dropout"}
"""Not comparable: the mask is the evaluator's own."""


def node_tests() -> list[Any]:
    """The tests of supported operations in types that Niwaki computes in."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        cases = collect_testcases(None)
    return [case for case in cases if _is_ours(case)]


def _is_ours(case: Any) -> bool:
    graph = case.model.graph
    types = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    known = {*RULES, *FOLDS}
    return (
        all(node.op_type in known for node in graph.node)
        and types <= TYPES
        and bool(case.data_sets)
        and all(np.size(output) for output in case.data_sets[0][1])
        and case.name not in RANDOM
    )


def result(case: Any, folder: Path) -> str:
    """ "passed", or why the case is not run; fails where the results differ."""
    model, data = type(case.model)(), []
    model.CopyFrom(case.model)
    inputs, outputs = case.data_sets[0]
    static = any(node.op_type in STATIC for node in model.graph.node)
    for i, (value, array) in enumerate(zip(case.model.graph.input, inputs, strict=True)):
        if i > 0 and (static or array.dtype != np.float32):
            model.graph.initializer.append(numpy_helper.from_array(array, value.name))
        else:
            data.append(array.astype(np.int32) if array.dtype == np.int64 else array)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    try:
        program = frontend.load(folder / "model.onnx")
    except UnsupportedOpsError:
        return "unsupported variant"
    except UsageError:
        return "bool, empty or unused outputs"
    for have, want in zip(run(program, "forward", data), outputs, strict=True):
        assert have.shape == np.shape(want), case.name
        np.testing.assert_allclose(have, want, case.rtol, 1e-5, err_msg=case.name)
    return "passed"


def test_node_tests(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    counts = Counter(result(case, tmp_path) for case in node_tests())
    record_property("counts", dict(counts))
    assert counts["passed"] >= 400, counts
    assert counts.total() - counts["passed"] <= 140, counts
