"""The kernel of an operation."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, TypeAlias

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Operation

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.contraction import contraction_alternatives, select_contraction
from niwaki.backends.kernels.elementwise import elementwise
from niwaki.backends.kernels.indexed import add_rows, gather, scatter_add
from niwaki.backends.kernels.movement import concat, pad, reshape, slice_, transpose
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.pooling import pooling
from niwaki.backends.kernels.reduction import reduction
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.special import count_correct, random_mask
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn

Generator: TypeAlias = Callable[
    [Any, Sequence[MemRefType], Sequence[MemRefType], Target], KernelSpec
]
"""(operation, layouts of its operands, layouts of its results, target) -> kernel."""

FUSING: Mapping[type[Operation], Generator] = MappingProxyType(
    {
        nn.Conv2dOp: select_contraction,
        nn.Conv2dDxOp: select_contraction,
        nn.IntegerConv2dOp: select_contraction,
        nn.IntegerConv2dDxOp: select_contraction,
        nn.IntegerConv2dDwOp: select_contraction,
        nn.Conv2dDwOp: select_contraction,
        nn.MatmulOp: select_contraction,
        nn.ReduceSumOp: reduction,
        nn.ReduceMeanOp: reduction,
        nn.ReduceMaxOp: reduction,
        nn.MaxPool2dOp: pooling,
        nn.MaxPool2dGradOp: pooling,
        nn.AvgPool2dOp: pooling,
        nn.AvgPool2dGradOp: pooling,
    }
)
"""Anchors: alone or in an `nn.fused`."""

ALONE: Mapping[type[Operation], Generator] = MappingProxyType(
    {
        nn.ReshapeOp: reshape,
        nn.TransposeOp: transpose,
        nn.PadOp: pad,
        nn.SliceOp: slice_,
        nn.ConcatOp: concat,
        nn.GatherOp: gather,
        nn.ScatterAddOp: scatter_add,
        nn.AddRowsOp: add_rows,
        nn.CountCorrectOp: count_correct,
        nn.RandomMaskOp: random_mask,
    }
)
"""Operations that no kernel fuses anything into."""


def alternatives(
    op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> list[Alternative]:
    """The ways to compute `op`, an `nn` operation or `nn.fused`, at these layouts; best first.

    Raises NotImplementedError for an operation that has no kernel.
    """
    anchor = Group.of(op).anchor
    if anchor is not None and FUSING.get(type(anchor)) is select_contraction:
        return contraction_alternatives(op, operands, results, target)
    spec = select(op, operands, results, target)
    return [Alternative("only", lambda: spec)]


def select(
    op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `op` that `choice` prefers: the first of its `alternatives`.

    Raises NotImplementedError for an operation that has no kernel.
    """
    anchor = Group.of(op).anchor
    if anchor is None:
        return elementwise(op, operands, results, target)
    generator = FUSING.get(type(anchor)) or (ALONE.get(type(op)) if anchor is op else None)
    if generator is None:
        where = "" if anchor is op else " in nn.fused"
        raise NotImplementedError(f"no kernel for '{anchor.name}'{where}")
    return generator(op, operands, results, target)
