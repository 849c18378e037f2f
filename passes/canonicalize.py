"""`canonicalize`: local simplifications, until none applies."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass

from niwaki.ir.builder import Builder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import TensorOp
from niwaki.passes.simplifications import elementwise, rows, shape

Rule: TypeAlias = Callable[[Any, Builder], Value | None]

_RULES: dict[type[Operation], Rule] = {
    nn.ReshapeOp: shape.simplify_reshape,
    nn.BroadcastOp: shape.simplify_broadcast,
    nn.TransposeOp: shape.simplify_transpose,
    nn.PadOp: shape.simplify_pad,
    nn.SliceOp: shape.simplify_slice,
    nn.ConcatOp: shape.simplify_concat,
    nn.ReduceSumOp: shape.simplify_reduction,
    nn.ReduceMeanOp: shape.simplify_reduction,
    nn.ReduceMaxOp: shape.simplify_reduction,
    nn.Conv2dOp: shape.fold_pad_into_conv2d,
    nn.AddOp: elementwise.simplify_add,
    nn.SubOp: elementwise.simplify_sub,
    nn.MulOp: elementwise.simplify_mul,
    nn.DivOp: elementwise.simplify_div,
    nn.NegOp: elementwise.simplify_neg,
    nn.SelectOp: elementwise.simplify_select,
    nn.ReluOp: elementwise.simplify_relu,
    nn.Relu6Op: elementwise.simplify_relu6,
    nn.MaxOp: elementwise.simplify_max,
    nn.MinOp: elementwise.simplify_min,
    nn.DropoutOp: rows.compute_on_rows,
    nn.LayerNormOp: rows.compute_on_rows,
    nn.RmsNormOp: rows.compute_on_rows,
}


@dataclass(frozen=True)
class CanonicalizePass(ModulePass):
    """Drops operations that change nothing, merges chains, and erases what becomes unused.

    No rewrite changes a result, but for the order of summation when a sum of sums becomes one.
    """

    name = "canonicalize"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in op.body.block.ops:
            if isinstance(function, FuncOp):
                for block in function.body.blocks:
                    _canonicalize(block)


def _canonicalize(block: Block) -> None:
    # An ordered set used as a stack: the first operation of the block is on top.
    worklist: dict[Operation, None] = dict.fromkeys(reversed(list(block.ops)))
    while worklist:
        op, _ = worklist.popitem()
        if op.parent is None or not isinstance(op, TensorOp):
            continue
        if not any(r.first_use for r in op.results):
            _erase(op, worklist)
            continue
        value = _simplified(op)
        if value is None:
            continue
        worklist.update((use.operation, None) for use in op.results[0].uses)
        op.results[0].replace_all_uses_with(value)
        if isinstance(value, OpResult):
            worklist[value.op] = None
        _erase(op, worklist)


def _simplified(op: TensorOp) -> Value | None:
    builder = Builder.before(op)
    rule = _RULES.get(type(op))
    value = None if rule is None else rule(op, builder)
    if value is None and isinstance(op, nn.Elementwise):
        value = elementwise.drop_broadcasts(op, builder)
        value = rows.compute_on_rows(op, builder) if value is None else value
    return value


def _erase(op: Operation, worklist: dict[Operation, None]) -> None:
    """Erases the unused `op`; its operands' producers may have become unused."""
    producers: list[SSAValue] = list(op.operands)
    op.detach()
    op.erase()
    worklist.update((v.op, None) for v in producers if isinstance(v, OpResult))
