"""Where parameters, state and constants lie: one layout for all functions of a module."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, ModuleOp
from xdsl.ir import Attribute, Operation

from niwaki.backends.kernels.spec import buffer_bytes, memref_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import get_ints, i1, shape_of, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.errors import UsageError
from niwaki.ir.image import Image
from niwaki.ir.lowered import Part, StorageEntry
from niwaki.passes.arenas.problem import align
from niwaki.passes.functions import functions
from niwaki.passes.views import Allocation, View

Weights: TypeAlias = Mapping[str, NDArray[np.generic]]

_Source: TypeAlias = train.Storage | nn.ConstantOp
_Key: TypeAlias = str | tuple[Attribute, Attribute]
"""The name of a parameter or state, or value and type of a constant."""


@dataclass(frozen=True)
class StorageSpace:
    """The entries of one space, in address order."""

    entries: tuple[StorageEntry, ...]
    fills: tuple[float | int | None, ...]
    """The initial value of all elements of each entry; None: the array of its name."""
    allocations: tuple[Allocation, ...]
    size: int
    """Bytes, a multiple of the alignment."""

    def in_order(self, order: Sequence[int], alignment: int) -> Self:
        """The same entries in another order, one after another."""
        entries: list[StorageEntry] = []
        end = 0
        for number in order:
            entries.append(replace(self.entries[number], offset=end))
            end = align(end + self.allocations[number].size, alignment)
        return replace(
            self,
            entries=tuple(entries),
            fills=tuple(self.fills[n] for n in order),
            allocations=tuple(self.allocations[n] for n in order),
        )

    def image(self, weights: Weights) -> Image:
        """The bytes that the space holds at first.

        Raises UsageError if a parameter has no array of its shape in `weights`.
        """

        def write(file: BinaryIO) -> None:
            for entry, fill in zip(self.entries, self.fills, strict=True):
                array = _parameter(entry, weights) if fill is None else np.full(entry.shape, fill)
                file.seek(entry.offset)
                file.write(array.astype(entry.dtype, order="C").tobytes())

        return Image(self.size, write)


def _parameter(entry: StorageEntry, weights: Weights) -> NDArray[np.generic]:
    array = weights.get(entry.name)
    if array is None or array.shape != entry.shape:
        raise UsageError(
            f"parameter '{entry.name}' has no array of shape {list(entry.shape)} in the weights: "
            "load the program together with its weights, or only plan its memory (niwaki report "
            "--plan-only)"
        )
    return array


class StorageLayout:
    """What a module's functions share: `state` (what one of them may write) and `constants`."""

    def __init__(self, module: ModuleOp, alignment: int) -> None:
        self._alignment = alignment
        self._allocations: dict[_Key, Allocation] = {}
        sources = _sources(module)
        written = written_boxes(module)
        is_state = {k: isinstance(op, train.StateOp) or k in written for k, op in sources.items()}
        self.state = self._lay_out(
            "state", {k: op for k, op in sources.items() if is_state[k]}, written, alignment
        )
        self.constants = self._lay_out(
            "constants", {k: op for k, op in sources.items() if not is_state[k]}, {}, alignment
        )

    def view(self, op: _Source) -> View:
        """The whole tensor that `op` reads."""
        return View(self._allocations[_key(op)], 0, memref_of(type_of(op.results[0])))

    def order_state(self, order: Sequence[int]) -> None:
        """Puts the entries of the state (by their numbers now) in another order."""
        self.state = self.state.in_order(order, self._alignment)

    def offsets(self) -> dict[Allocation, int]:
        """Where each entry lies in its space."""
        return {
            allocation: entry.offset
            for space in (self.state, self.constants)
            for allocation, entry in zip(space.allocations, space.entries, strict=True)
        }

    def _lay_out(
        self,
        space: str,
        sources: Mapping[_Key, _Source],
        written: Mapping[str, tuple[int, ...]],
        alignment: int,
    ) -> StorageSpace:
        entries: list[StorageEntry] = []
        end = 0
        for key, op in sources.items():
            name = key if isinstance(key, str) else f"constant_{len(entries)}"
            size = buffer_bytes(memref_of(type_of(op.results[0])))
            entries.append(_entry(name, end, op, written.get(name)))
            self._allocations[key] = Allocation(space, size, label=name)
            end = align(end + size, alignment)
        allocations = tuple(self._allocations[key] for key in sources)
        return StorageSpace(tuple(entries), tuple(map(_fill, sources.values())), allocations, end)


def _key(op: _Source) -> _Key:
    return op.key if isinstance(op, train.Storage) else (op.value, op.y.type)


def _sources(module: ModuleOp) -> dict[_Key, _Source]:
    """The first operation that reads each, in program order."""
    found: dict[_Key, _Source] = {}
    for op in _top_level(module):
        if not isinstance(op, _Source):
            continue
        first = found.setdefault(_key(op), op)
        if first.results[0].type != op.results[0].type:
            raise UsageError(
                f"'{_key(op)}' is {first.results[0].type} in one function and "
                f"{op.results[0].type} in another: import the model again"
            )
    return found


def written_boxes(module: ModuleOp) -> dict[str, tuple[int, ...]]:
    """Name of each parameter or state -> the sizes of the leading box that the module writes."""
    written: dict[str, tuple[int, ...]] = {}
    for op in _top_level(module):
        if isinstance(op, train.AssignOp):
            box = shape_of(op.value)
            before = written.get(name := train.storage_of(op.target).key, box)
            written[name] = tuple(map(max, before, box))
    return written


def _top_level(module: ModuleOp) -> Iterable[Operation]:
    for function in functions(module):
        yield from function.body.block.ops


def _entry(name: str, offset: int, op: _Source, updated: tuple[int, ...] | None) -> StorageEntry:
    tensor = type_of(op.results[0])
    if tensor.element_type == i1:
        shape: Sequence[int] = memref_of(tensor).get_shape()
        return StorageEntry(name, offset, tuple(shape), "int8", updated, _kind(op))
    dtype = str(dtype_of(tensor.element_type))
    return StorageEntry(name, offset, tensor.get_shape(), dtype, updated, _kind(op), _part(op))


def _part(op: _Source) -> Part | None:
    if not isinstance(op, train.ParameterOp) or op.whole is None:
        return None
    return Part(op.whole.data, get_ints(op.properties, "starts"))


def _kind(op: _Source) -> Literal["parameter", "optimizer", "counter", "constant"]:
    match op:
        case train.StateOp():
            return "optimizer" if shape_of(op.value) else "counter"
        case nn.ConstantOp():
            return "constant"
        case _:
            return "parameter"


def _fill(op: _Source) -> float | int | None:
    match op:
        case train.StateOp():
            return op.init.value.data
        case nn.ConstantOp(value=FloatAttr() | IntegerAttr() as value):
            is_mask = type_of(op.y).element_type == i1
            return -int(value.value.data != 0) if is_mask else value.value.data
        case _:
            return None
