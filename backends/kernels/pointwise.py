"""Elementwise operations at one place: what kernels do around their anchor, or all they do."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import FloatAttr, IntegerAttr, MemRefType, f32, i32
from xdsl.ir import Operation, SSAValue

from niwaki.backends.kernels import masks, random, scalar
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.special import one_hot
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import i1, tensor, type_of

POINTWISE = (nn.Elementwise, nn.ConstantOp, nn.BroadcastOp)
"""What a group may hold besides its anchor."""


@dataclass(frozen=True)
class Group:
    """The operations of one kernel."""

    inputs: tuple[SSAValue, ...]
    """The values that stand for the operands."""
    ops: tuple[Operation, ...]
    """In order."""
    outputs: tuple[SSAValue, ...]
    """The values that stand for the results."""

    @classmethod
    def of(cls, op: Operation) -> "Group":
        """The body of an `nn.fused`, or a bare operation alone."""
        if not isinstance(op, nn.FusedOp):
            return cls(tuple(op.operands), (op,), tuple(op.results))
        *ops, terminator = op.body.block.ops
        return cls(tuple(op.body.block.args), tuple(ops), tuple(terminator.operands))

    @property
    def anchor(self) -> Operation | None:
        """The operation that is not elementwise, if there is one."""
        return next((op for op in self.ops if not isinstance(op, POINTWISE)), None)

    @property
    def has_masks(self) -> bool:
        """Whether an input or an output consists of bits."""
        return any(type_of(v).element_type == i1 for v in (*self.inputs, *self.outputs))

    @property
    def is_transcendental(self) -> bool:
        """Whether one of the operations is far more than an instruction."""
        return any(isinstance(op, nn.TRANSCENDENTAL) for op in self.ops)

    @property
    def flops(self) -> int:
        """One for each element of each elementwise operation's result."""
        plain = [op for op in self.ops if isinstance(op, nn.Elementwise)]
        return sum(prod(type_of(op.results[0]).get_shape()) for op in plain)

    def needed(self, values: Sequence[SSAValue], known: Sequence[SSAValue]) -> list[Operation]:
        """The operations, in order, that compute `values` from the inputs and `known`."""
        wanted, result = set(values) - set(known), list[Operation]()
        for op in reversed(self.ops):
            if any(r in wanted for r in op.results):
                result.append(op)
                wanted.update(o for o in op.operands if o not in known)
        return result[::-1]


class Pointwise:
    """Evaluates the elementwise part of `op` at one place and stores the results.

    `op` is an `nn.fused`, a bare operation or a group. Values that `anchor` results in are given
    at each place; the other results follow from them and from what is loaded of `operand_refs`.
    """

    def __init__(
        self,
        op: Operation | Group,
        anchor: Operation | None,
        operand_refs: Sequence[Value],
        result_refs: Sequence[Value],
        ascending: bool = False,
    ) -> None:
        """`ascending`: at each place all of the last dimension is emitted, in order, one by one."""
        self._group = op if isinstance(op, Group) else Group.of(op)
        self._anchored: tuple[SSAValue, ...] = () if anchor is None else tuple(anchor.results)
        self._refs = dict(zip(self._group.inputs, operand_refs, strict=True))
        self._stores = list(zip(self._group.outputs, result_refs, strict=True))
        self._ascending = ascending

    @property
    def has_masks(self) -> bool:
        """Whether bits are loaded or stored."""
        return self._group.has_masks

    def emit(
        self, k: KernelBuilder, indices: Sequence[Index], lanes: int, *anchor_values: Value
    ) -> None:
        """Computes and stores `lanes` elements along the last dimension from `indices` on.

        `indices` counts in the result's shape; `anchor_values` are the anchor's results there.
        Blocks of n < 8 mask elements start at multiples of n, longer ones at multiples of 8.
        """
        results = [v for v, _ in self._stores]
        values = self.values(k, results, indices, lanes, *anchor_values)
        for (result, ref), value in zip(self._stores, values, strict=True):
            if self._ascending and value.type == i1 and type_of(result).get_shape()[-1] % 8 == 0:
                masks.shift_in(k, value, ref, indices)
            else:
                store(k, value, ref, indices)

    @property
    def mask_refs(self) -> list[Value]:
        """Of the results that are masks."""
        return [ref for result, ref in self._stores if type_of(result).element_type == i1]

    def emit_but_masks(
        self, k: KernelBuilder, indices: Sequence[Index], *anchor_values: Value
    ) -> list[Value]:
        """Like `emit` for one element, but the bits for `mask_refs` are left to the caller."""
        results = [v for v, _ in self._stores]
        values = self.values(k, results, indices, 1, *anchor_values)
        for (_, ref), value in zip(self._stores, values, strict=True):
            if value.type != i1:
                k.store(value, ref, indices)
        return [value for value in values if value.type == i1]

    def emit_byte(self, k: KernelBuilder, indices: Sequence[Index], count: int) -> None:
        """Like `emit` for `count` <= 8 elements, one by one: for machines without vectors.

        Stores each byte of a mask once. The first element is at a multiple of 8.
        """
        places = [[*indices[:-1], k.iadd(indices[-1], i)] for i in range(count)]
        results = [v for v, _ in self._stores]
        rows = [self.values(k, results, place, 1) for place in places]
        for number, (_, ref) in enumerate(self._stores):
            values = [row[number] for row in rows]
            if values[0].type == i1:
                masks.store_byte(k, values, ref, indices)
                continue
            for place, value in zip(places, values, strict=True):
                k.store(value, ref, place)

    def prefetch(self, k: KernelBuilder, indices: Sequence[Index]) -> None:
        """Prefetches what `emit` will load and store at a place.

        Of f32 operands and results of the first result's shape. A store to memory that is in no
        cache reads its line first.
        """
        whole = tensor(type_of(self._stores[0][0]).get_shape(), f32)
        for value in self._group.inputs:
            if type_of(value) == whole and self._is_loaded(value):
                k.prefetch(self._refs[value], indices)
        for value, ref in self._stores:
            if type_of(value) == whole:
                k.prefetch(ref, indices)

    def _is_loaded(self, value: SSAValue) -> bool:
        """Whether elementwise operations read an operand, and not the anchor alone."""
        return any(isinstance(use.operation, POINTWISE) for use in value.uses)

    def _position(self, k: KernelBuilder, indices: Sequence[Index]) -> Value:
        """The number of the element at `indices`, in row-major order, i32."""
        result, ref = self._stores[0]
        sizes = (*ref_shape(ref)[:-1], *type_of(result).get_shape()[-1:])
        number: Index = 0
        for index, size in zip(indices, sizes, strict=True):
            number = k.iadd(k.imul(number, size), index)
        return k.cast(k.index(number), i32)

    def values(
        self,
        k: KernelBuilder,
        wanted: Sequence[SSAValue],
        indices: Sequence[Index],
        lanes: int,
        *anchor_values: Value,
    ) -> list[Value]:
        """`wanted` values of the group at `indices`, `lanes` of each; stores nothing."""
        known = dict(zip(self._anchored, anchor_values, strict=bool(anchor_values)))

        def value(v: SSAValue, count: int) -> Value:
            """Values of the size 1 along the last dimension stay scalars while they can."""
            if v not in known:
                known[v] = load(k, self._refs[v], v, indices, _lanes(v, lanes))
            return known[v] if _lanes(v, lanes) == count else k.broadcast(known[v], count)

        for op in self._group.needed(wanted, self._anchored):
            (result,) = op.results
            count = _lanes(result, lanes)
            if isinstance(op, nn.ConstantOp):
                assert isinstance(op.value, FloatAttr | IntegerAttr)
                known[result] = k.constant(op.value.value.data, op.value.type, count)
            elif isinstance(op, nn.BroadcastOp):
                known[result] = value(op.x, count)
            elif isinstance(op, nn.RandomUniformOp):
                first = self._position(k, indices)
                known[result] = random.uniform(k, op, value(op.counter, 1), first, count)
            elif isinstance(op, nn.OneHotOp):
                known[result] = one_hot(k, value(op.labels, 1), indices[-1], count)
            else:
                known[result] = scalar.evaluate(k, op, [value(o, count) for o in op.operands])
        return [value(v, lanes) for v in wanted]


def _lanes(value: SSAValue, lanes: int) -> int:
    """How many different elements of `value` a block of `lanes` sees."""
    shape = type_of(value).get_shape()
    return lanes if shape and shape[-1] != 1 else 1


def load(
    k: KernelBuilder, ref: Value, like: SSAValue, indices: Sequence[Index], lanes: int
) -> Value:
    """`lanes` elements of `ref`, which holds the tensor `like`, at their broadcast position."""
    kind = type_of(like)
    shape = kind.get_shape()
    if shape:  # the kernel's view of the operand may have its leading dimensions collapsed
        shape = (*ref_shape(ref)[:-1], shape[-1])
    tail = indices[len(indices) - len(shape) :]
    place = [0 if size == 1 else index for size, index in zip(shape, tail, strict=True)]
    if kind.element_type == i1:
        return masks.load(k, ref, place, lanes)
    return k.load(ref, place, lanes)


def store(k: KernelBuilder, value: Value, ref: Value, indices: Sequence[Index]) -> None:
    """Stores a scalar or a vector, bits into a mask."""
    if masks.is_mask(value):
        masks.store(k, value, ref, indices)
    else:
        k.store(value, ref, indices)


def ref_shape(ref: Value) -> tuple[int, ...]:
    """The shape of a memref value."""
    assert isinstance(ref.type, MemRefType)
    return ref.type.get_shape()
