"""`dce`: dead-code elimination."""

from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.traits import Pure

from niwaki.passes.functions import functions


@dataclass(frozen=True)
class DcePass(ModulePass):
    """Removes operations without effect whose results nothing uses."""

    name = "dce"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            eliminate_dead_code(function.body.block)


def eliminate_dead_code(block: Block) -> None:
    """One sweep from the end: users are gone before what they use is looked at."""
    for op in reversed(list(block.ops)):
        if _is_dead(op):
            Rewriter.erase_op(op)


def _is_dead(op: Operation) -> bool:
    return (
        bool(op.results)
        and op.has_trait(Pure)
        and all(result.first_use is None for result in op.results)
    )
