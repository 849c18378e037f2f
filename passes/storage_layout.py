"""Where parameters, state and constants lie: one layout for all functions of a module."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import BinaryIO, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import FloatAttr, IntegerAttr, MemRefType, ModuleOp
from xdsl.ir import Attribute, Operation, SSAValue

from niwaki.backends.kernels.spec import buffer_bytes, memref_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import get_ints, i1, shape_of, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.errors import UsageError
from niwaki.ir.image import Image
from niwaki.ir.lowered import Part, StorageEntry
from niwaki.ir.packing import Packing
from niwaki.passes.arenas.problem import align
from niwaki.passes.functions import functions
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.packed_parameters import StoredForms, frozen_parameter, packed_parameters
from niwaki.passes.views import Allocation, View

Weights: TypeAlias = Mapping[str, NDArray[np.generic]]

_Source: TypeAlias = train.Storage | nn.ConstantOp
_Key: TypeAlias = str | tuple[Attribute, Attribute]
"""The name of a parameter or state, or value and type of a constant."""


@dataclass(frozen=True)
class _Item:
    """A tensor to be stored."""

    source: _Source
    packing: Packing | None = None
    is_copy: bool = False
    """Whether another item is the parameter that steps and users know."""

    @property
    def kind(self) -> MemRefType:
        """Its layout."""
        plain = memref_of(type_of(self.source.results[0]))
        if self.packing is None:
            return plain
        return MemRefType(plain.element_type, [self.packing.elements])

    @property
    def fill(self) -> float | int | str:
        """The initial value of all elements, or the name of the weight that is stored."""
        fill = _fill(self.source)
        if fill is not None:
            return fill
        assert isinstance(self.source, train.Storage)
        return self.source.key


@dataclass(frozen=True)
class StorageSpace:
    """The entries of one space, in address order."""

    entries: tuple[StorageEntry, ...]
    fills: tuple[float | int | str, ...]
    """The initial value of all elements of each entry, or the name of the weight in it."""
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
                named = isinstance(fill, str)
                array = _parameter(fill, entry, weights) if named else np.full(entry.shape, fill)
                file.seek(entry.offset)
                file.write(np.ascontiguousarray(array, entry.dtype).data)

        return Image(self.size, write)


def _parameter(name: str, entry: StorageEntry, weights: Weights) -> NDArray[np.generic]:
    array, packing = weights.get(name), entry.packing
    shape = entry.shape if packing is None else packing.shape
    if array is None or array.shape != shape:
        raise UsageError(
            f"parameter '{name}' has no array of shape {list(shape)} in the weights: "
            "load the program together with its weights, or only plan its memory (niwaki report "
            "--plan-only)"
        )
    return array if packing is None else packing.packed(array)


class StorageLayout:
    """What a module's functions share: `state` (what one of them may write) and `constants`.

    Some constants are stored as kernels of the library pack them (`packed_parameters`).
    """

    def __init__(self, module: ModuleOp, library: KernelLibrary) -> None:
        self._alignment = library.target.alignment
        self._allocations: dict[tuple[_Key, Packing | None], Allocation] = {}
        sources = _sources(module)
        self._written = written_boxes(module)
        forms = packed_parameters(module, self._written, library)
        state: dict[_Key, list[_Item]] = {}
        constants: dict[_Key, list[_Item]] = {}
        for key, op in sources.items():
            is_state = isinstance(op, train.StateOp) or key in self._written
            (state if is_state else constants)[key] = _items(op, forms.get(str(key)))
        self.state = self._lay_out("state", state)
        self.constants = self._lay_out("constants", constants)

    def view(self, op: _Source) -> View:
        """The whole tensor that `op` reads, plain."""
        key, kind = _key(op), memref_of(type_of(op.results[0]))
        # Nothing reads a plain tensor that is not stored: such an allocation has no place.
        allocation = self._allocations.setdefault(
            (key, None), Allocation("constants", buffer_bytes(kind), label=str(key))
        )
        return View(allocation, 0, kind)

    def packed_view(self, value: SSAValue, packing: Packing) -> View | None:
        """The tensor `value` in the layout `packing`, if it is stored so."""
        parameter = frozen_parameter(value, self._written)
        if parameter is None:
            return None
        allocation = self._allocations.get((parameter.key, packing))
        kind = _Item(parameter, packing).kind
        return None if allocation is None else View(allocation, 0, kind)

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

    def _lay_out(self, space: str, items: Mapping[_Key, Sequence[_Item]]) -> StorageSpace:
        entries: list[StorageEntry] = []
        allocations: list[Allocation] = []
        end = 0
        for key, item in ((key, item) for key, of_key in items.items() for item in of_key):
            name = f"constant_{len(entries)}"
            if isinstance(key, str) and not item.is_copy:
                name = key
            size = buffer_bytes(item.kind)
            entries.append(_entry(name, end, item, self._written.get(name)))
            allocations.append(Allocation(space, size, label=name))
            self._allocations[key, item.packing] = allocations[-1]
            end = align(end + size, self._alignment)
        fills = tuple(item.fill for of_key in items.values() for item in of_key)
        return StorageSpace(tuple(entries), fills, tuple(allocations), end)


def _items(op: _Source, forms: StoredForms | None) -> list[_Item]:
    """What is stored of `op`; the parameter itself is the first one that holds all of it."""
    if forms is None:
        return [_Item(op)]
    packings = sorted(forms.packings, key=lambda packing: not packing.complete)
    layouts = (None, *packings) if forms.plain else tuple(packings)
    return [_Item(op, packing, number > 0) for number, packing in enumerate(layouts)]


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


def _entry(name: str, offset: int, item: _Item, updated: tuple[int, ...] | None) -> StorageEntry:
    op = item.source
    tensor = type_of(op.results[0])
    if tensor.element_type == i1:
        shape: Sequence[int] = memref_of(tensor).get_shape()
        return StorageEntry(name, offset, tuple(shape), "int8", updated, _kind(op))
    dtype = str(dtype_of(tensor.element_type))
    if item.packing is not None:
        kind, stored = "constant" if item.is_copy else _kind(op), (item.packing.elements,)
        return StorageEntry(name, offset, stored, dtype, None, kind, _part(op), item.packing)
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
