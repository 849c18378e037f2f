"""Kernels of elementwise operations alone: one, or a fused group without an anchor."""

from collections.abc import Sequence
from functools import partial

from xdsl.dialects.builtin import MemRefType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue

from niwaki.backends.kernels import masks
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.backends.kernels.collapse import collapse
from niwaki.backends.kernels.pointwise import Group, Pointwise
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target
from niwaki.ir.dialects.tensor_op import i1, shape_of, type_of


def elementwise(
    op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of a bare elementwise operation or an `nn.fused` of such.

    All results have one shape.
    """
    group = Group.of(op)
    return KernelSpec(
        operands=tuple(operands),
        results=tuple(results),
        workspace=0,
        in_place=in_place_pairs(group, operands, results),
        flops=group.flops,
        build=partial(_build, group, tuple(operands), tuple(results), target),
    )


def in_place_pairs(
    group: Group, operands: Sequence[MemRefType], results: Sequence[MemRefType]
) -> tuple[tuple[int, int], ...]:
    """Pairs (operand, result) of one type and layout: every element is read before it is written.

    That holds wherever the operand is read through `Pointwise` alone.
    """
    return tuple(
        (i, j)
        for i, (value, kind) in enumerate(zip(group.inputs, operands, strict=True))
        for j, (output, result) in enumerate(zip(group.outputs, results, strict=True))
        if type_of(value) == type_of(output) and kind == result
    )


def block_lanes(group: Group, target: Target) -> int:
    """How many elements to compute at once: with masks, on vector machines, whole bytes."""
    if target.lanes == 1 or not group.has_masks:
        return target.lanes
    return max(target.lanes, 8)


def is_mask(value: SSAValue) -> bool:
    """Whether a tensor value consists of i1."""
    return type_of(value).element_type == i1


def _build(
    group: Group,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
    name: str,
) -> FuncOp:
    shape = shape_of(group.outputs[0])
    assert all(shape_of(v) == shape for v in group.outputs)
    collapsed = collapse(group, shape, operands, results)
    k = KernelBuilder(name, [*operands, *results])
    refs = [k.view(ref, kind) for ref, kind in zip(k.args, collapsed.refs, strict=True)]
    point = Pointwise(collapsed.group, None, refs[: len(operands)], refs[len(operands) :])
    *outer, row = collapsed.shape
    by_byte = target.lanes == 1 and any(is_mask(v) for v in group.outputs)
    lanes = block_lanes(group, target)

    def row_of(indices: list[Index]) -> None:
        if by_byte:
            masks.each_byte(k, row, lambda start, n: point.emit_byte(k, [*indices, start], n))
        else:
            each_block(k, row, lanes, lambda start, n: point.emit(k, [*indices, start], n))

    k.nest(outer, row_of)
    return k.finish()
