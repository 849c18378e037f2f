"""`split-parameters`: what a step writes of a parameter becomes a parameter of its own.

A step that updates a part of a weight keeps all of it in writable memory, unless the rest is stored
apart: in flash, which microcontrollers have more of. Where the whole is read, the parts are joined
just before: a copy of the weight, which lives as long as that operation runs.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import get_ints, ints, shape_of, tensor, to_attribute, type_of
from niwaki.ir.weights import WeightStore
from niwaki.passes.functions import functions
from niwaki.passes.storage_layout import written_boxes

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class SplitParametersPass(ModulePass):
    """Stores apart what is updated and what is frozen of parameters that are updated in part."""

    name = "split-parameters"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store = weights_of(ctx)
        whole = dict(store)
        written = written_boxes(op)
        for function in functions(op):
            _split(function, written, whole, store)


@dataclass(frozen=True)
class _Part:
    """A box of a parameter."""

    name: str
    starts: tuple[int, ...]
    sizes: tuple[int, ...]

    def of(self, array: Array) -> Array:
        """Its elements."""
        ends = map(int.__add__, self.starts, self.sizes)
        return array[tuple(map(slice, self.starts, ends))]


def _split(
    function: FuncOp,
    written: dict[str, tuple[int, ...]],
    whole: dict[str, Array],
    store: WeightStore,
) -> None:
    for op in function.body.block.ops:
        if not isinstance(op, train.ParameterOp):
            continue
        box = written.get(op.key, shape_of(op.value))
        if box != shape_of(op.value):
            _Splitting(op, box, whole.get(op.key), store).run()


class _Splitting:
    """Of one read of a parameter."""

    def __init__(
        self,
        op: train.ParameterOp,
        box: tuple[int, ...],
        array: Array | None,
        store: WeightStore,
    ) -> None:
        self.op = op
        self.box = box
        self.array = array
        self.store = store

    def run(self) -> None:
        """Replaces the operation."""
        op, shape = self.op, shape_of(self.op.value)
        updated = self._read(_Part(op.key, (0,) * len(shape), self.box))
        sizes, frozen = self.box, list[tuple[int, SSAValue]]()
        for axis, size in enumerate(shape):
            if sizes[axis] == size:
                continue
            starts = tuple(sizes[axis] if a == axis else 0 for a in range(len(shape)))
            rest = tuple(size - sizes[axis] if a == axis else s for a, s in enumerate(sizes))
            part = _Part(f"{op.key}.frozen{axis}", starts, rest)
            frozen.append((axis, self._read(part)))
            sizes = (*sizes[:axis], size, *sizes[axis + 1 :])
        for use in list(op.value.uses):
            reader = use.operation
            if isinstance(reader, train.AssignOp):
                reader.operands[use.index] = updated
            elif isinstance(reader, nn.SliceOp) and self._is_updated(reader):
                Rewriter.replace_op(reader, [], [updated])
            else:
                reader.operands[use.index] = _joined(Builder.before(reader), updated, frozen)
        Rewriter.erase_op(op)

    def _is_updated(self, op: nn.SliceOp) -> bool:
        starts, sizes, steps = (get_ints(op.properties, k) for k in ("starts", "sizes", "steps"))
        return not any(starts) and sizes == self.box and set(steps) <= {1}

    def _read(self, part: _Part) -> SSAValue:
        kept = {k: v for k, v in self.op.properties.items() if k not in ("orders", "update")}
        properties = {
            **kept,
            "name": to_attribute(part.name),
            "whole": to_attribute(self.op.key),
            "starts": ints(part.starts),
        }
        if self.array is not None:
            array = part.of(self.array)
            updated = part.name == self.op.key
            digest = (self.store.replace if updated else self.store.add)(part.name, array)
            properties["sha256"] = to_attribute(digest)
        kind = tensor(part.sizes, type_of(self.op.value).element_type)
        read = train.ParameterOp.create(properties=properties, result_types=[kind])
        return Builder.before(self.op).one(read)


def _joined(b: Builder, value: SSAValue, frozen: list[tuple[int, SSAValue]]) -> SSAValue:
    for axis, rest in frozen:
        value = b.concat([value, rest], axis)
    return value
