"""A group of operations that one kernel computes."""

from xdsl.dialects.utils import AbstractYieldOperation
from xdsl.ir import Attribute
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    region_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import IsolatedFromAbove, IsTerminator, Pure
from xdsl.utils.exceptions import VerifyException


@irdl_op_definition
class YieldOp(AbstractYieldOperation[Attribute]):
    """Ends the body of `nn.fused`."""

    name = "nn.yield"
    traits = traits_def(IsTerminator(), Pure())


@irdl_op_definition
class FusedOp(IRDLOperation):
    """One kernel: at most one contraction or reduction (the anchor), and elementwise ops.

    The body sees the operands as block arguments and yields the results. Its meaning is that of
    its operations, one after another.
    """

    name = "nn.fused"
    traits = traits_def(Pure(), IsolatedFromAbove())
    inputs = var_operand_def()
    outputs = var_result_def()
    body = region_def("single_block")

    assembly_format = (
        "`(` $inputs `)` attr-dict-with-keyword `:` functional-type($inputs, $outputs) $body"
    )

    def verify_(self) -> None:
        block = self.body.block
        if tuple(a.type for a in block.args) != tuple(self.operand_types):
            raise VerifyException("the block arguments must have the types of the operands")
        terminator = block.last_op
        if not isinstance(terminator, YieldOp):
            raise VerifyException("the body must end with nn.yield")
        if tuple(terminator.operand_types) != tuple(self.result_types):
            raise VerifyException("nn.yield must yield values of the result types")


OPS = [FusedOp, YieldOp]
