"""Imports ONNX models through the `onnx` package (extra `onnx`)."""

from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import NameLoc, NoneAttr, StringAttr, f32, i32

from niwaki.frontends.conversion import Conversion, Unsupported, live_nodes
from niwaki.frontends.nchw import Imported, NchwBuilder, narrowed
from niwaki.frontends.onnx_operands import FLOAT, INT32, INT64, Known, Operands, Result
from niwaki.frontends.onnx_ops import OPS as OPS
from niwaki.frontends.onnx_ops import RULES
from niwaki.frontends.onnx_quantized import ON_CODES
from niwaki.frontends.onnx_shapes import FOLDS, fold
from niwaki.frontends.onnx_tensors import TensorReader
from niwaki.ir.errors import ModelFileError, UsageError
from niwaki.ir.program import Program

OPSETS = range(7, 29)
"""The versions of the standard operator set that this importer knows."""
MAX_BYTES = 2**31 - 1
"""Of the model file itself: the limit of its format."""

_STANDARD = ("", "ai.onnx")
_ELEMENTS = {FLOAT: f32, INT32: i32, INT64: i32}


def load(path: str | Path) -> Program:
    """Imports the .onnx file `path`: `@forward`, in the shapes of the file.

    A dynamic batch dimension becomes 1. Initializers are parameters under their names; constants
    and running statistics are fixed. Raises UsageError if the file cannot be read or states no
    usable shapes, or the package `onnx` is missing; ModelFileError if the file is damaged;
    UnsupportedOpsError with all operations that have no counterpart.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise ModelFileError(f"{path.name}: larger than an ONNX file can be")
    return _Importer(_parse(data, path.name), path).program()


def _parse(data: bytes, source: str) -> Any:
    try:
        onnx = import_module("onnx")
    except ImportError:
        raise UsageError(
            f"{source}: reading ONNX needs the package 'onnx': pip install niwaki[onnx]"
        ) from None
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except import_module("google.protobuf.message").DecodeError as error:
        raise ModelFileError(f"{source}: not a readable ONNX file: {error}") from None
    for text in _texts(model):
        # protobuf hands out what is not UTF-8 as bytes.
        if not isinstance(text, str):
            raise ModelFileError(f"{source}: the name {text!r} is not UTF-8")
    return model


def _texts(model: Any) -> Iterator[object]:
    """Every text of the model that the importer reads."""
    graph = model.graph
    yield from (opset.domain for opset in model.opset_import)
    yield from (value.name for value in (*graph.input, *graph.output))
    for tensor in graph.initializer:
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        for attribute in node.attribute:
            entries = attribute.t.external_data
            yield from (attribute.name, attribute.t.name)
            yield from (text for entry in entries for text in (entry.key, entry.value))


class _Node:
    """One operation of the graph."""

    def __init__(self, proto: Any) -> None:
        self.op: str = proto.op_type
        self.domain: str = proto.domain
        self.inputs: list[str] = list(proto.input)
        self.reads = [name for name in self.inputs if name]
        self.outputs: list[str] = [name for name in proto.output if name]
        self.attributes = {attribute.name: attribute for attribute in proto.attribute}
        self.name: str = proto.name or next(iter(self.outputs), proto.op_type)

    @property
    def title(self) -> str:
        """The operation, with its domain if that is not the standard one."""
        return self.op if self.domain in _STANDARD else f"{self.domain}.{self.op}"


class _Importer:
    """Walks one graph."""

    def __init__(self, model: Any, path: Path) -> None:
        self._source = path.name
        if not model.HasField("graph"):
            raise ModelFileError(f"{self._source}: no graph in the file: not an ONNX model")
        self._graph = model.graph
        self._opset = self._find_opset(model)
        self._reader = TensorReader(self._source, path.parent)
        self._conversion = Conversion(self._source)
        self._n = NchwBuilder()
        self._environment: dict[str, Known] = {}

    def _find_opset(self, model: Any) -> int:
        versions = [o.version for o in model.opset_import if o.domain in _STANDARD]
        if len(versions) != 1:
            raise ModelFileError(f"{self._source}: the file must name one standard operator set")
        if versions[0] not in OPSETS:
            raise UsageError(
                f"{self._source}: operator set {versions[0]}; Niwaki reads {OPSETS[0]} to"
                f" {OPSETS[-1]}: convert the model with onnx.version_converter"
            )
        return versions[0]

    def program(self) -> Program:
        """The whole model."""
        graph = self._graph
        if graph.sparse_initializer:
            raise UsageError(f"{self._source}: sparse initializers; store them dense")
        nodes = [_Node(proto) for proto in graph.node]
        weights = {proto.name: proto for proto in graph.initializer}
        if len(weights) != len(graph.initializer):
            raise ModelFileError(f"{self._source}: two initializers have the same name")
        inputs = [value for value in graph.input if value.name not in weights]
        names = [*weights, *(value.name for value in inputs)]
        results = [value.name for value in graph.output]
        self._conversion.check_definitions(names, nodes, results)
        live = live_nodes(nodes, results)
        wanted = {*results, *(name for node in live for name in node.reads)}

        for value in inputs:
            self._environment[value.name] = self._argument(value)
        statistics = _statistics(live)
        for name, proto in weights.items():
            if name in wanted:
                self._environment[name] = self._weight(name, proto, name in statistics)
        for node in live:
            self._convert(node)
        return self._conversion.finish(lambda: self._n.finish(self._outputs(results)))

    # --- the graph's interface

    def _argument(self, value: Any) -> Imported:
        name, kind = value.name, value.type.tensor_type
        element = _ELEMENTS.get(kind.elem_type)
        if not value.type.HasField("tensor_type") or element is None:
            raise UsageError(f"{self._source}: input {name!r} is neither float32 nor integer")
        if not kind.HasField("shape"):
            raise UsageError(f"{self._source}: input {name!r} has no shape; export with one")
        sizes = (d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
        shape = self._conversion.input_shape(name, sizes)
        argument = self._conversion.run(
            "input", repr(name), lambda: self._n.argument(shape, element, name)
        )
        assert argument is not None, "an argument is never unsupported"
        return argument

    def _weight(self, name: str, proto: Any, statistic: bool) -> Known:
        """f32 arrays as weights; integers describe shapes until an operation computes on them."""
        array = self._reader.read(proto)
        if array.dtype != np.float32:
            return array
        if array.size == 0:
            raise ModelFileError(f"{self._source}: tensor {name!r} has no elements")
        return self._n.weight(name, array, fixed=statistic or array.ndim == 0)

    def _outputs(self, names: Sequence[str]) -> list[Imported]:
        outputs: list[Imported] = []
        for name in names:
            value = self._environment.get(name)
            if value is None:
                raise UsageError(f"{self._source}: output {name!r} is not computed by Niwaki")
            if isinstance(value, np.ndarray):
                value = self._n.weight(name, narrowed(value), fixed=True)
            if self._n.is_codes(value):
                raise UsageError(
                    f"{self._source}: output {name!r} is quantised: end the model with a"
                    " DequantizeLinear"
                )
            outputs.append(value)
        return outputs

    # --- nodes

    def _convert(self, node: _Node) -> None:
        self._n.b.location = NameLoc(StringAttr(node.name), NoneAttr())
        missing = [name for name in node.reads if name not in self._environment]
        if node.domain not in _STANDARD or (node.op not in RULES and node.op not in FOLDS):
            self._conversion.reject(node.title, f"node {node.name!r}")
            return
        if missing:
            # What comes before is reported; without its result nothing can be said of this one.
            return
        result = self._conversion.run(node.op, f"node {node.name!r}", lambda: self._result(node))
        if result is not None:
            values = list(result) if isinstance(result, Sequence) else [result]
            self._environment.update(zip(node.outputs, values, strict=False))

    def _result(self, node: _Node) -> Result:
        values = [self._environment[name] if name else None for name in node.inputs]
        codes = any(isinstance(v, Imported) and self._n.is_codes(v) for v in values)
        if codes and node.op not in ON_CODES:
            raise Unsupported("on codes; only between DequantizeLinear and QuantizeLinear")
        operands = Operands(
            values, node.attributes, node.inputs, node.outputs, self._opset, self._reader.read
        )
        arrays = (value for value in values if isinstance(value, np.ndarray))
        integers = [array for array in arrays if array.dtype != np.float32]
        if node.op in FOLDS and integers and len(integers) == len(values):
            return fold(node.op, operands, integers)
        if node.op not in RULES:
            raise Unsupported("only on constant integers")
        return RULES[node.op].convert(self._n, operands)


def _statistics(nodes: Sequence[_Node]) -> set[str]:
    """Names of running means and variances: moved by batch norms, never by gradients."""
    return {name for node in nodes if node.op == "BatchNormalization" for name in node.inputs[3:5]}
