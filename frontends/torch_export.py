"""Imports PyTorch `torch.export` files (.pt2) without torch and without pickle.

A .pt2 file is a zip archive: the graph and the tables of weights are JSON, weights are raw
little-endian bytes (schema 8, torch 2.8 and later). Pickled members are never opened.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
from xdsl.dialects.builtin import (
    FileLineColLoc,
    IntAttr,
    LocationAttr,
    NameLoc,
    NoneAttr,
    StringAttr,
    UnknownLoc,
    f32,
    i1,
    i32,
)

from niwaki.frontends.archive import Archive
from niwaki.frontends.aten import BOOL, FLOAT, INT, LONG, RULES, VIEWS, Arguments, Result
from niwaki.frontends.aten import OPS as OPS
from niwaki.frontends.checked_json import Json
from niwaki.frontends.conversion import Conversion, live_nodes
from niwaki.frontends.nchw import MAX_ELEMENTS, Array, Imported, NchwBuilder, narrowed
from niwaki.ir.errors import ModelFileError, UsageError
from niwaki.ir.program import Program

SCHEMA = 8
"""The major version of the graph's schema that this importer reads."""

_DTYPES: Mapping[int, np.dtype[np.generic]] = {
    FLOAT: np.dtype("<f4"),
    INT: np.dtype("<i4"),
    LONG: np.dtype("<i8"),
}
_ELEMENTS = {FLOAT: f32, INT: i32, LONG: i32}
_FRAME = re.compile(r'File "([^"\n]+)", line (\d{1,9}), in ')
_STALE = (
    "reads a tensor that an in-place operation changed through another name; export with"
    " run_decompositions()"
)


def load(path: str | Path) -> Program:
    """Imports the .pt2 file `path`: `@forward`, in the shapes that the model was exported with.

    A dynamic batch dimension becomes 1. Raises UsageError if the file cannot be read or was
    exported in a way that Niwaki does not take, ModelFileError if it is damaged,
    UnsupportedOpsError with all operations that have no counterpart.
    """
    try:
        with open(path, "rb") as file:
            return _load(file, Path(path).name)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from None


def from_exported_program(exported_program: object) -> Program:
    """Imports a torch.export.ExportedProgram; torch itself writes it to memory first."""
    buffer = io.BytesIO()
    import_module("torch.export").save(exported_program, buffer)
    return _load(buffer, "ExportedProgram")


def _load(file: BinaryIO, source: str) -> Program:
    archive = Archive(file, source)
    root, model = _find_model(archive, source)
    document = Json.parse(archive.read(f"{root}/models/{model}.json"), source)
    _check_version(document, source)
    tables = [
        _Payloads(archive, f"{root}/data/{kind}", f"{model}_{kind}_config.json", source)
        for kind in ("weights", "constants")
    ]
    return _Importer(document["graph_module"], tables, source).program()


def _find_model(archive: Archive, source: str) -> tuple[str, str]:
    """The archive's top folder and the name of its only model."""
    names = archive.names
    found = [n.split("/") for n in names if re.fullmatch(r"[^/]+/models/[^/]+\.json", n)]
    if any(n.rpartition("/")[2] == "serialized_exported_program.json" for n in names):
        raise UsageError(
            f"{source}: this layout of torch 2.7 and earlier keeps weights as pickle, which Niwaki"
            " never opens; export the model again with torch 2.8 or later"
        )
    if not found:
        raise ModelFileError(f"{source}: no models/*.json in the archive: not a torch.export file")
    if len(found) > 1:
        raise UsageError(f"{source}: holds {len(found)} models; save one model per file")
    root, _, name = found[0]
    order = f"{root}/byteorder"
    if order in names and archive.read(order) != b"little":
        raise ModelFileError(f"{source}: the weights are not little-endian")
    return root, name.removesuffix(".json")


def _check_version(document: Json, source: str) -> None:
    major = document["schema_version"]["major"].integer()
    if major != SCHEMA:
        raise UsageError(
            f"{source}: graph schema {major}, Niwaki reads {SCHEMA}; export with torch 2.13"
        )


class _Payloads:
    """Weights or constants: a JSON table of strided views of raw members."""

    def __init__(self, archive: Archive, folder: str, table: str, source: str) -> None:
        self._archive = archive
        self._folder = folder
        self._source = source
        self._entries = dict(
            Json.parse(archive.read(f"{folder}/{table}"), source)["config"].items()
        )
        self._total = 0

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def trainable(self, name: str) -> bool:
        """Whether `name` is a parameter with a gradient."""
        entry = self._entries[name]
        return entry["is_param"].flag() and entry["tensor_meta"]["requires_grad"].flag()

    def array(self, name: str) -> Array:
        """The array `name`, f32 or i32. Sizes are checked before anything is allocated."""
        entry = self._entries[name]
        if entry["use_pickle"].flag():
            raise UsageError(
                f"{self._source}: {name!r} is pickled, which Niwaki never opens; export the model"
                " with plain tensors"
            )
        meta = entry["tensor_meta"]
        dtype = _DTYPES.get(meta["dtype"].integer())
        if dtype is None:
            raise UsageError(
                f"{self._source}: {name!r} is not float32; call .float() on the model and export"
                " it again"
            )
        shape, strides = (
            [size["as_int"].integer() for size in meta[key].elements()]
            for key in ("sizes", "strides")
        )
        offset = meta["storage_offset"]["as_int"].integer()
        self._check_view(entry, shape, strides, offset)
        array = self._view(entry, dtype, shape, strides, offset)
        return array.astype(dtype.newbyteorder("="))

    def _check_view(
        self, entry: Json, shape: Sequence[int], strides: Sequence[int], offset: int
    ) -> None:
        if len(shape) != len(strides) or len(shape) > 16 or min((*shape, *strides, offset)) < 0:
            raise entry.fail("sizes and strides make no sense")
        self._total += prod(shape)
        if self._total > MAX_ELEMENTS // 4:
            raise entry.fail(f"a tensor of shape {shape} is absurdly large")

    def _view(
        self,
        entry: Json,
        dtype: np.dtype[np.generic],
        shape: Sequence[int],
        strides: Sequence[int],
        offset: int,
    ) -> Array:
        if prod(shape) == 0:
            raise entry.fail("a tensor without elements")
        member = f"{self._folder}/{entry['path_name'].text()}"
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        size = self._archive.size(member)
        if size % dtype.itemsize or last >= size // dtype.itemsize:
            raise entry.fail(
                f"{size} bytes do not hold the shape {list(shape)} of {dtype.itemsize}-byte numbers"
            )
        storage = np.frombuffer(self._archive.read(member), dtype)[offset:]
        steps = [step * dtype.itemsize for step in strides]
        return np.lib.stride_tricks.as_strided(storage, shape, steps, writeable=False)


@dataclass
class _Node:
    """One operation of the graph."""

    op: str
    """The name of its rule: "aten.relu.default" for torch.ops.aten.relu_.default too."""
    arguments: dict[str, Json]
    outputs: list[str]
    metadata: Mapping[str, str]
    in_place: str | None = None
    """The name of the tensor that it overwrites."""
    reads: list[str] = field(default_factory=list[str])
    renews: list[str] = field(default_factory=list[str])
    """All names of that tensor: they mean the result from here on."""
    stale: bool = False
    """Reads a tensor that was changed through another name."""

    @property
    def _frame(self) -> tuple[str, int] | None:
        """File and line in the user's model: the innermost frame outside torch."""
        frames = _FRAME.findall(self.metadata.get("stack_trace", ""))
        users = [f for f in frames if "/torch/" not in f[0] and not f[0].startswith("torch/")]
        return (users[-1][0], int(users[-1][1])) if users else None

    @property
    def _module(self) -> str:
        """The path of the innermost module, e.g. features.0."""
        entry = self.metadata.get("nn_module_stack", "").split(";")[-1].split(",")
        return entry[1] if len(entry) > 1 else ""

    @property
    def place(self) -> str:
        """Module, file and line, for messages."""
        frame = self._frame
        line = f"{frame[0]}:{frame[1]}" if frame else ""
        parts = [part for part in (self._module, line) if part]
        return ", ".join(parts) or f"node {', '.join(self.outputs)}"

    @property
    def location(self) -> LocationAttr:
        """Module and source line as an attribute."""
        frame = self._frame
        line = (
            FileLineColLoc(StringAttr(frame[0]), IntAttr(frame[1]), IntAttr(0)) if frame else None
        )
        if self._module:
            return NameLoc(StringAttr(self._module), NoneAttr() if line is None else line)
        return line or UnknownLoc()


def _references(argument: Json) -> Iterator[str]:
    """The names of tensors and symbolic integers in an argument."""
    kind, value = argument.variant()
    match kind:
        case "as_tensor":
            yield value["name"].text()
        case "as_tensors":
            yield from (v["name"].text() for v in value.elements())
        case "as_optional_tensors":
            yield from (r for v in value.elements() for r in _references(v))
        case "as_sym_int" | "as_optional_tensor":
            inner, name = value.variant()
            if inner in ("as_name", "as_tensor"):
                yield name.text() if inner == "as_name" else name["name"].text()
        case "as_sym_ints":
            for size in value.elements():
                inner, name = size.variant()
                if inner == "as_name":
                    yield name.text()
        case _:
            return


def _node(json: Json) -> _Node:
    target = json["target"].text().removeprefix("torch.ops.")
    arguments = {a["name"].text(): a["arg"] for a in json["inputs"].elements()}
    outputs = [name for output in json["outputs"].elements() for name in _references(output)]
    metadata = {key: value.text() for key, value in json["metadata"].items()}
    node = _Node(target, arguments, outputs, metadata)
    node.reads = [name for a in arguments.values() for name in _references(a)]
    functional = re.sub(r"^(aten\.\w*[a-z0-9])_(\.\w+)$", r"\1\2", target)
    if functional != target and functional in RULES and node.reads:
        node.op = functional
        node.in_place = node.reads[0]
    return node


class _Aliases:
    """Which names share memory, so that in-place operations can be read as functional ones."""

    def __init__(self) -> None:
        self._same: dict[str, list[str]] = {}
        self._views: dict[str, list[str]] = {}
        self._stale: set[str] = set()
        self._newest: dict[str, str] = {}

    def enter(self, node: _Node) -> None:
        """Accounts for `node`: its `reads` become the names that hold the values by now."""
        node.stale = any(name in self._stale for name in node.reads)
        changed, node.reads = node.in_place, [self.newest(name) for name in node.reads]
        if changed is not None and node.outputs:
            same = self._same.setdefault(changed, [changed])
            node.renews = list(same)
            self._newest.update(dict.fromkeys(same, node.outputs[0]))
            self._stale.update(set(self._views.get(changed, ())).difference(same))
            _join(self._same, changed, node.outputs[:1])
            _join(self._views, changed, node.outputs[:1])
        elif node.op in VIEWS and node.reads:
            _join(self._views, node.reads[0], node.outputs)

    def newest(self, name: str) -> str:
        """The name of the value that `name` holds now."""
        return self._newest.get(name, name)

    def is_stale(self, name: str) -> bool:
        """Whether `name` was changed through another name."""
        return name in self._stale


def _join(groups: dict[str, list[str]], member: str, names: Sequence[str]) -> None:
    group = groups.setdefault(member, [member])
    group.extend(names)
    groups.update(dict.fromkeys(names, group))


class _Importer:
    """Walks one graph."""

    def __init__(self, graph_module: Json, payloads: Sequence[_Payloads], source: str) -> None:
        self._graph = graph_module["graph"]
        self._signature = graph_module["signature"]
        self._payloads = payloads
        self._conversion = Conversion(source)
        self._source = source
        self._n = NchwBuilder()
        self._environment: dict[str, Imported | int] = {}
        self._metas = dict(self._graph["tensor_values"].items())

    def program(self) -> Program:
        """The whole model."""
        aliases = _Aliases()
        nodes = [_node(json) for json in self._graph["nodes"].elements()]
        results = list(self._result_names())
        inputs = [name for _, _, name in self._inputs()]
        self._conversion.check_definitions(inputs, nodes, results)
        for node in nodes:
            aliases.enter(node)
        wanted = [aliases.newest(name) for name in results]
        live = live_nodes(nodes, wanted)
        self._add_inputs({*wanted, *(name for node in live for name in node.reads)})
        for node in live:
            self._convert(node)
        return self._conversion.finish(
            lambda: self._n.finish([self._output(name, aliases) for name in results])
        )

    # --- the graph's interface

    def _inputs(self) -> Iterator[tuple[str, Json, str]]:
        """(kind, specification, name in the graph) of every tensor input."""
        for spec in self._signature["input_specs"].elements():
            kind, body = spec.variant()
            if kind == "user_input":
                inner, argument = body["arg"].variant()
                if inner == "as_tensor":
                    yield kind, body, argument["name"].text()
            elif kind in ("parameter", "buffer", "tensor_constant"):
                yield kind, body, body["arg"]["name"].text()

    def _result_names(self) -> Iterator[str]:
        for spec in self._signature["output_specs"].elements():
            kind, body = spec.variant()
            if kind in ("user_output", "loss_output"):
                argument = body["arg"]
                if kind == "loss_output":
                    yield argument["name"].text()
                else:
                    yield from _references(argument)

    def _output(self, name: str, aliases: _Aliases) -> Imported:
        value = self._environment.get(name)
        if aliases.is_stale(name):
            raise UsageError(f"{self._source}: output {name!r} {_STALE}")
        if not isinstance(value, Imported):
            raise UsageError(f"{self._source}: the output {name!r} is not computed by Niwaki")
        return value

    def _add_inputs(self, wanted: set[str]) -> None:
        """Arguments for all inputs of the user, weights for what is `wanted`."""
        for kind, body, name in self._inputs():
            if kind == "user_input":
                self._environment[name] = self._argument(name)
            elif name in wanted:
                weight = self._weight(kind, body)
                self._environment.update({} if weight is None else {name: weight})

    def _argument(self, name: str) -> Imported:
        meta = self._metas.get(name)
        if meta is None:
            raise self._graph.fail(f"no shape of the input {name!r}")
        element = _ELEMENTS.get(meta["dtype"].integer())
        if element is None:
            raise UsageError(
                f"{self._source}: input {name!r} is neither float32 nor integer; export the model"
                " with float32 inputs"
            )
        sizes = (size.variant() for size in meta["sizes"].elements())
        shape = self._conversion.input_shape(
            name, (value.integer() if kind == "as_int" else None for kind, value in sizes)
        )
        convert = self._conversion.run
        argument = convert("input", name, lambda: self._n.argument(shape, element, name))
        assert argument is not None, "an argument is never unsupported"
        return argument

    def _weight(self, kind: str, body: Json) -> Imported | None:
        name = body[f"{kind}_name"].text()
        for table in self._payloads:
            if name in table:
                fixed = kind != "parameter" or not table.trainable(name)
                array = self._conversion.run(
                    "parameter", repr(name), lambda table=table: narrowed(table.array(name))
                )
                return None if array is None else self._n.weight(name, array, fixed)
        raise body.fail(f"the archive has no weight {name!r}")

    # --- nodes

    def _convert(self, node: _Node) -> None:
        self._n.b.location = node.location
        rule = RULES.get(node.op)
        if rule is None or node.stale:
            self._conversion.reject(node.op + (f" ({_STALE})" if rule else ""), node.place)
            self._stand_in(node)
            return
        arguments = Arguments(node.arguments, self._environment)
        result = self._conversion.run(node.op, node.place, lambda: rule.convert(self._n, arguments))
        if result is None:
            self._stand_in(node)
            return
        self._define(node, result)

    def _define(self, node: _Node, result: Result) -> None:
        values = list(result) if isinstance(result, Sequence) else [result]
        self._environment.update(zip(node.outputs, values, strict=False))
        self._environment.update(dict.fromkeys(node.renews, values[0]))

    def _stand_in(self, node: _Node) -> None:
        """Values of the right shapes, so that what follows can be checked as well."""
        for name in node.outputs:
            meta = self._metas.get(name)
            if meta is None:
                continue
            sizes = [size.variant() for size in meta["sizes"].elements()]
            shape = [value.integer() for kind, value in sizes if kind == "as_int"]
            element = {**_ELEMENTS, BOOL: i1}.get(meta["dtype"].integer())
            if element is not None and len(shape) == len(sizes):
                stand_in = partial(self._n.argument, shape, element, name)
                value = self._conversion.run(node.op, node.place, stand_in)
                self._environment.update({} if value is None else {name: value})
