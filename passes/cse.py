"""`cse`: common-subexpression elimination."""

from collections.abc import Hashable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.traits import Pure

from niwaki.passes.functions import functions


@dataclass(frozen=True)
class CsePass(ModulePass):
    """Replaces a pure operation by an earlier one that computes the same.

    Reads of parameters and state count as pure: they give the value at the start of the step.
    """

    name = "cse"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            eliminate_common_subexpressions(function.body.block)


def eliminate_common_subexpressions(block: Block) -> None:
    """One sweep from the start, with a table of what was computed."""
    computed: dict[Hashable, Operation] = {}
    for op in block.ops:
        if not op.results or op.regions or not op.has_trait(Pure):
            continue
        earlier = computed.setdefault(_key(op), op)
        if earlier is not op:
            Rewriter.replace_op(op, [], earlier.results)


def _key(op: Operation) -> Hashable:
    """Equal for two operations exactly if they compute the same from the same."""
    return (
        op.name,
        tuple(op.operands),
        tuple(sorted(op.properties.items(), key=lambda item: item[0])),
        tuple(op.result_types),
    )
