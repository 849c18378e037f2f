"""Where parameters, state and constants lie: one layout for all functions of a module."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, MemRefType, ModuleOp
from xdsl.ir import Attribute, Operation

from niwaki.backends.kernels.spec import buffer_bytes, memref_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import i1, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.errors import UsageError
from niwaki.passes.arena import align
from niwaki.passes.functions import functions
from niwaki.passes.views import Buffer, View

Weights: TypeAlias = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True)
class StorageEntry:
    """A tensor with a fixed place in the state or the constants."""

    name: str
    offset: int
    """Bytes from the start of its space."""
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    size: int
    """Bytes, without padding."""
    fill: float | int | None
    """The initial value of every element; None: the array of that name in the weight store."""


@dataclass(frozen=True)
class StorageSpace:
    """The entries of one space, in address order."""

    entries: tuple[StorageEntry, ...]
    size: int
    """Bytes, a multiple of the alignment."""

    def image(self, weights: Weights) -> bytes:
        """The bytes that the space holds at first.

        Raises UsageError if a parameter has no array of its shape in `weights`.
        """
        image = bytearray(self.size)
        for entry in self.entries:
            image[entry.offset : entry.offset + entry.size] = _initial_bytes(entry, weights)
        return bytes(image)


def _initial_bytes(entry: StorageEntry, weights: Weights) -> bytes:
    if entry.fill is not None:
        return np.full(entry.shape, entry.fill, entry.dtype).tobytes()
    array = weights.get(entry.name)
    if array is None or array.shape != entry.shape:
        raise UsageError(
            f"parameter '{entry.name}' has no array of shape {list(entry.shape)} in the weights: "
            "load the program together with its weights"
        )
    return array.astype(entry.dtype, copy=False).tobytes()


class StorageLayout:
    """What a module's functions share: `state` (may be written by one of them) and `constants`."""

    def __init__(self, module: ModuleOp, alignment: int) -> None:
        self._buffers: dict[_Key, Buffer] = {}
        found = _storage_of(module)
        written = _written_names(module)
        is_state = {k: isinstance(op, train.StateOp) or k in written for k, op in found.items()}
        self.state = self._lay_out("state", [k for k in found if is_state[k]], found, alignment)
        self.constants = self._lay_out(
            "constants", [k for k in found if not is_state[k]], found, alignment
        )

    def view(self, op: train.Storage | nn.ConstantOp) -> View:
        """The whole tensor that `op` reads."""
        return View(self._buffers[_key(op)], 0, memref_of(type_of(op.results[0])))

    def _lay_out(
        self,
        space: str,
        keys: Sequence["_Key"],
        ops: Mapping["_Key", train.Storage | nn.ConstantOp],
        alignment: int,
    ) -> StorageSpace:
        entries: list[StorageEntry] = []
        end = 0
        for key in keys:
            entry = _entry(_name(key, len(entries)), end, ops[key])
            entries.append(entry)
            self._buffers[key] = Buffer(space, entry.size, end, label=entry.name)
            end = align(end + entry.size, alignment)
        return StorageSpace(tuple(entries), end)


_Key: TypeAlias = str | tuple[Attribute, Attribute]
"""The name of a parameter or state, or value and type of a constant."""


def _key(op: train.Storage | nn.ConstantOp) -> _Key:
    return op.key if isinstance(op, train.Storage) else (op.value, op.y.type)


def _name(key: _Key, number: int) -> str:
    return key if isinstance(key, str) else f"constant_{number}"


def _storage_of(module: ModuleOp) -> dict[_Key, train.Storage | nn.ConstantOp]:
    """The first operation that reads each, in program order."""
    found: dict[_Key, train.Storage | nn.ConstantOp] = {}
    for op in _top_level(module):
        if isinstance(op, train.Storage | nn.ConstantOp):
            first = found.setdefault(_key(op), op)
            if first.results[0].type != op.results[0].type:
                raise UsageError(
                    f"'{_key(op)}' is {first.results[0].type} in one function and "
                    f"{op.results[0].type} in another: import the model again"
                )
    return found


def _written_names(module: ModuleOp) -> set[str]:
    return {
        train.storage_of(op.target).key
        for op in _top_level(module)
        if isinstance(op, train.AssignOp)
    }


def _top_level(module: ModuleOp) -> Iterable[Operation]:
    for function in functions(module):
        yield from function.body.block.ops


def _entry(name: str, offset: int, op: train.Storage | nn.ConstantOp) -> StorageEntry:
    kind = type_of(op.results[0])
    layout: MemRefType = memref_of(kind)
    size = buffer_bytes(layout)
    match op:
        case nn.ConstantOp(value=FloatAttr() | IntegerAttr() as value):
            fill: float | int | None = value.value.data
        case train.StateOp():
            fill = op.init.value.data
        case _:
            fill = None
    if kind.element_type == i1:
        return StorageEntry(
            name, offset, layout.get_shape(), np.dtype(np.int8), size, -1 if fill else 0
        )
    dtype = dtype_of(kind.element_type)
    return StorageEntry(name, offset, kind.get_shape(), dtype, size, fill)
