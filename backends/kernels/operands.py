"""The arguments of a contraction kernel: flat anchor operands, epilogue operands, scratch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod

from xdsl.dialects.builtin import MemRefType, f32, i32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute, Operation, SSAValue

from niwaki.backends.kernels import narrow
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.pointwise import Group, Pointwise
from niwaki.backends.kernels.spec import KernelSpec, Prepacked, buffer_bytes, is_contiguous
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, type_of
from niwaki.ir.packing import Packing


def _same(kind: MemRefType) -> MemRefType:
    return kind


@dataclass(frozen=True)
class Operand:
    """A flat memref as it enters products: f32 (or what stands for it), or codes as integers."""

    ref: Value
    zero_point: int | None = None
    """Of codes, which are read as i32 differences from it; None: floating-point numbers."""

    @property
    def element(self) -> Attribute:
        """What products are summed up in."""
        return f32 if self.zero_point is None else i32

    def load(self, k: KernelBuilder, index: Index, lanes: int = 1) -> Value:
        """`lanes` elements from `index` on, f32 or i32."""
        if self.zero_point is None:
            return narrow.load(k, self.ref, [index], lanes)
        codes = k.extend(k.load(self.ref, [index], lanes), i32)
        if self.zero_point == 0:
            return codes
        return k.sub(codes, k.constant(self.zero_point, i32, lanes))

    def clear(self, k: KernelBuilder, start: Index, count: int, lanes: int) -> None:
        """Sets `count` elements from `start` on to zero, in vectors of `lanes`."""

        def block(offset: Index, lanes: int) -> None:
            k.store(k.constant(0, self.element, lanes), self.ref, [k.iadd(start, offset)])

        each_block(k, count, lanes, block)

    def copy(
        self, k: KernelBuilder, start: Index, source: "Operand", origin: Index, count: int,
        lanes: int,
    ) -> None:  # fmt: skip
        """Sets `count` elements from `start` on to those of `source` from `origin` on."""

        def block(offset: Index, lanes: int) -> None:
            value = source.load(k, k.iadd(origin, offset), lanes)
            k.store(value, self.ref, [k.iadd(start, offset)])

        each_block(k, count, lanes, block)


@dataclass(frozen=True)
class References:
    """The arguments of a kernel under construction."""

    anchor: tuple[Operand, ...]
    """The anchor's operands."""
    pointwise: Pointwise
    """The epilogue, which stores the results."""
    scratch: Operand | None
    """Flat scratch of the elements that are summed up, if there is any."""
    bias: Value | None = None
    """What sums start from, one number per output channel: the epilogue does not add it."""

    def load_bias(self, k: KernelBuilder, channel: Index, lanes: int = 1) -> Value:
        """What the sums of `lanes` output channels start from, i32."""
        if self.bias is None:
            return k.constant(0, i32, lanes)
        assert isinstance(self.bias.type, MemRefType)
        return k.load(self.bias, [*[0] * (self.bias.type.get_num_dims() - 1), channel], lanes)


@dataclass(frozen=True)
class Contraction:
    """A contraction with its epilogue, at the layouts of its operands and results."""

    op: Operation
    operands: tuple[MemRefType, ...]
    results: tuple[MemRefType, ...]
    target: Target

    @property
    def anchor_operands(self) -> list[int]:
        """Where the anchor's operands are among the kernel's operands."""
        group = Group.of(self.op)
        anchor = group.anchor
        assert anchor is not None
        return [group.inputs.index(o) for o in anchor.operands]

    @property
    def in_place(self) -> tuple[tuple[int, int], ...]:
        """Epilogue operands that are read where a result is written, element by element."""
        taken = set(self.anchor_operands)
        return tuple(
            (i, j)
            for i, operand in enumerate(self.operands)
            for j, result in enumerate(self.results)
            if i not in taken and operand == result
        )

    def begin(
        self,
        name: str,
        workspace: int,
        view: Callable[[MemRefType], MemRefType] = _same,
        biased: bool = False,
        ascending: bool = False,
    ) -> tuple[KernelBuilder, References]:
        """Starts the kernel; `view` gives epilogue operands and results another shape.

        `biased`: sums start from the bias of the references, where there is one. `ascending`: the
        channels of a position are emitted one by one, in order.
        """
        anchored = self.anchor_operands
        anchor = Group.of(self.op).anchor
        zero_points = _zero_points(anchor)
        integer = zero_points[0] is not None
        kinds = [
            flat(kind) if i in anchored else view(kind) for i, kind in enumerate(self.operands)
        ]
        kinds += [view(kind) for kind in self.results]
        if workspace:
            kinds.append(MemRefType(i32 if integer else f32, [workspace // 4]))
        k = KernelBuilder(name, kinds)
        count = len(self.operands)
        group = Group.of(self.op)
        addition = _bias_addition(group) if biased else None
        pointwise = Pointwise(
            self.op,
            anchor if addition is None else addition.op,
            k.args[:count],
            k.args[count : count + len(self.results)],
            ascending,
        )
        bias = None if addition is None else k.args[group.inputs.index(addition.bias)]
        scratch = Operand(k.args[-1], 0 if integer else None) if workspace else None
        operands = zip((k.args[i] for i in anchored), zero_points, strict=True)
        return k, References(tuple(Operand(*o) for o in operands), pointwise, scratch, bias)

    @property
    def streams(self) -> bool:
        """Whether vectors pass by that the core's own caches cannot hold: prefetching pays."""
        moved = sum(map(buffer_bytes, (*self.operands, *self.results)))
        target = self.target
        return target.lanes > 1 and not target.has_flash and moved > target.cache_bytes

    def spec(self, workspace: int, flops: int, build: Callable[[str], FuncOp]) -> KernelSpec:
        """The finished choice; `workspace` in bytes."""
        return KernelSpec(self.operands, self.results, workspace, self.in_place, flops, build)

    def spec_in_scratch(
        self, elements: int, flops: int, emit: Callable[[KernelBuilder, References, Operand], None]
    ) -> KernelSpec:
        """The choice of what `emit` emits, with `elements` of scratch."""

        def build(name: str) -> FuncOp:
            k, refs = self.begin(name, 4 * elements)
            assert refs.scratch is not None
            emit(k, refs, refs.scratch)
            return k.finish()

        return self.spec(4 * elements, flops, build)

    def with_prepacked(
        self, spec: KernelSpec, packing: Packing, select: "Callable[[Contraction], KernelSpec]"
    ) -> KernelSpec:
        """`spec`, whose kernel packs the anchor's second operand, if that may come packed too.

        `select` chooses the kernel then. Only f32 is stored as it is multiplied.
        """
        number = self.anchor_operands[1]
        kinds = list(self.operands)
        if kinds[number].element_type != f32 or not self._only_anchor_reads(number):
            return spec

        def packed() -> KernelSpec:
            kinds[number] = MemRefType(f32, [packing.elements])
            return select(replace(self, operands=tuple(kinds)))

        return replace(spec, prepacked=Prepacked(number, packing, packed))

    def _only_anchor_reads(self, number: int) -> bool:
        group = Group.of(self.op)
        value = group.inputs[number]
        return sum(o is value for op in group.ops for o in op.operands) == 1


@dataclass(frozen=True)
class _BiasAddition:
    op: nn.AddOp
    bias: SSAValue


def _bias_addition(group: Group) -> _BiasAddition | None:
    """The addition of one number per output channel, if nothing else reads the anchor's result."""
    assert group.anchor is not None
    (products,) = group.anchor.results
    op = next((use.operation for use in products.uses), None)
    if op not in group.ops or not isinstance(op, nn.AddOp) or not products.has_one_use():
        return None
    bias = op.b if op.a is products else op.a
    *others, channels = type_of(bias).get_shape() or (0,)
    whole = prod(others) == 1 and channels == type_of(products).get_shape()[-1]
    return _BiasAddition(op, bias) if whole and bias in group.inputs else None


def _zero_points(anchor: Operation | None) -> tuple[int, int] | tuple[None, None]:
    """Of both operands; None where they are floating-point numbers."""
    match anchor:
        case nn.IntegerConv2dOp() | nn.IntegerConv2dDwOp():
            return get_int(anchor.properties, "zero_point"), 0
        case nn.IntegerConv2dDxOp():
            return 0, 0
        case _:
            return None, None


def flat(kind: MemRefType) -> MemRefType:
    """The one-dimensional view of a contiguous memref."""
    assert is_contiguous(kind), "anchor operands are contiguous"
    return MemRefType(kind.element_type, [prod(kind.get_shape())])


def collapsed(kinds: Sequence[MemRefType], rows: int) -> dict[MemRefType, MemRefType] | None:
    """[1, 1, rows, channels] views of NHWC memrefs, those that repeat over all rows as they are.

    None if one of them is neither: then a flat row number is not enough to address it.
    """
    result: dict[MemRefType, MemRefType] = {}
    for kind in kinds:
        shape = kind.get_shape()
        if prod(shape[:-1]) == 1 and (rows == 1 or len(shape) < 4):
            result[kind] = kind
        elif len(shape) == 4 and prod(shape[:-1]) == rows and is_contiguous(kind):
            result[kind] = MemRefType(kind.element_type, [1, 1, rows, shape[-1]])
        elif prod(shape[:-1]) == 1:
            result[kind] = kind
        else:
            return None
    return result
