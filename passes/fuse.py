"""`fuse`: operations that one kernel computes become one `nn.fused`."""

from dataclasses import dataclass
from typing import TypeAlias

from xdsl.context import Context
from xdsl.dialects.builtin import ArrayAttr, FusedLoc, LocationAttr, ModuleOp, NoneAttr
from xdsl.ir import Attribute, Block, Operation, OpResult, Region, SSAValue
from xdsl.passes import ModulePass

from niwaki.ir.dialects import nn, train
from niwaki.passes.dependences import ANCHORS
from niwaki.passes.functions import functions
from niwaki.passes.fusion.groups import fusion_groups
from niwaki.passes.fusion.prologues import duplicate_prologues
from niwaki.passes.fusion.update_order import order_updates

_PRODUCTS = (
    nn.Conv2dOp,
    nn.Conv2dDxOp,
    nn.Conv2dDwOp,
    nn.IntegerConv2dOp,
    nn.IntegerConv2dDxOp,
    nn.IntegerConv2dDwOp,
    nn.MatmulOp,
)
_Input: TypeAlias = tuple[SSAValue, bool]
"""A value, and whether a product reads it.

What a product and its epilogue both read are two operands: each walks through it in its own way.
"""


@dataclass(frozen=True)
class FusePass(ModulePass):
    """Groups at most one contraction or reduction with elementwise operations around it.

    Elementwise operations follow a contraction (its epilogue), come before or follow a reduction,
    or stand alone. No merge holds more bytes than the separate operations did. The updates of
    parameters become epilogues of their gradients, behind all other readers of the parameter.
    Parameters, state and constants move to the start of the block.
    """

    name = "fuse"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            for block in function.body.blocks:
                order_updates(block)
                duplicate_prologues(block)
                _rebuild(block, fusion_groups(block))


def _rebuild(block: Block, groups: list[list[Operation]]) -> None:
    """Makes one operation of each group, in the order given."""
    sources = [op for op in block.ops if isinstance(op, train.Storage | nn.ConstantOp)]
    for op in list(block.ops):
        op.detach()
    block.add_ops(sources)
    for group in groups:
        if group[0].parent is None:
            block.add_op(group[0] if len(group) == 1 else _fused(group))
    for op in sources:
        if isinstance(op, nn.ConstantOp) and op.y.first_use is None:
            op.detach()
            op.erase()


def _fused(members: list[Operation]) -> nn.FusedOp:
    """`members`, detached and in a valid order, as one operation."""
    inside = set(members)
    inputs: dict[_Input, None] = {}
    constants: dict[SSAValue, nn.ConstantOp] = {}
    for op in members:
        for operand in op.operands:
            producer = operand.op if isinstance(operand, OpResult) else None
            if isinstance(producer, nn.ConstantOp):
                constants[operand] = producer
            elif producer not in inside:
                inputs[operand, isinstance(op, _PRODUCTS)] = None
    outputs = [
        r for op in members for r in op.results
        if any(use.operation not in inside for use in r.uses)
    ]  # fmt: skip

    body = Block(arg_types=[value.type for value, _ in inputs])
    local: dict[_Input, SSAValue] = dict(zip(inputs, body.args, strict=True))
    for value, constant in constants.items():
        copy = constant.clone()
        copy.location = constant.location
        body.add_op(copy)
        local[value, False] = local[value, True] = copy.y
    fused = nn.FusedOp.create(
        operands=[value for value, _ in inputs],
        result_types=[o.type for o in outputs],
        regions=[Region(body)],
        location=_location(members),
    )
    for op in members:
        op.operands = [local.get((o, isinstance(op, _PRODUCTS)), o) for o in op.operands]
        body.add_op(op)
    for inner, outer in zip(outputs, fused.results, strict=True):
        inner.replace_uses_with_if(outer, lambda use: use.operation not in inside)
    body.add_op(nn.YieldOp(*outputs))
    return fused


def _location(members: list[Operation]) -> LocationAttr:
    """The anchor's, else all of them."""
    for op in members:
        if isinstance(op, ANCHORS):
            return op.location
    locations: dict[Attribute, None] = dict.fromkeys(op.location for op in members)
    if len(locations) == 1:
        return members[0].location
    return FusedLoc(ArrayAttr(list(locations)), NoneAttr())
