"""Takes out of fused groups what nothing reads."""

from xdsl.ir import Block, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.dialects import nn
from niwaki.passes.dce import eliminate_dead_code


def trim_fused(block: Block) -> None:
    """Gives each nn.fused of `block` only the results that are used, and what they need."""
    for op in list(block.ops):
        if isinstance(op, nn.FusedOp) and any(r.first_use is None for r in op.results):
            _trim(op)


def _trim(op: nn.FusedOp) -> None:
    used = [i for i, result in enumerate(op.results) if result.first_use is not None]
    old = op.body.block
    terminator = old.last_op
    assert terminator is not None
    terminator.operands = [terminator.operands[i] for i in used]
    eliminate_dead_code(old)
    read = [i for i, argument in enumerate(old.args) if argument.first_use is not None]
    for i in reversed(range(len(old.args))):
        if i not in read:
            old.erase_arg(old.args[i])
    operands: list[SSAValue] = [op.operands[i] for i in read]
    region = Region()
    op.body.move_blocks(region)
    trimmed = nn.FusedOp.create(
        operands=operands,
        result_types=[op.results[i].type for i in used],
        regions=[region],
        location=op.location,
    )
    Rewriter.insert_op(trimmed, InsertPoint.before(op))
    for i, result in zip(used, trimmed.results, strict=True):
        result.name_hint = op.results[i].name_hint
        op.results[i].replace_all_uses_with(result)
    Rewriter.erase_op(op)
