"""What products take."""

from math import prod

from xdsl.ir import Operation

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of


def product_flops(op: Operation) -> int:
    """Multiply-adds of `op`, counted as two; 0 if it is no convolution or matrix product."""
    match op:
        case nn.Conv2dOp() | nn.IntegerConv2dOp():
            return 2 * prod(shape_of(op.y)) * prod(shape_of(op.w)[1:])
        case nn.Conv2dDxOp() | nn.IntegerConv2dDxOp():
            return 2 * prod(shape_of(op.dy)) * prod(shape_of(op.w)[1:])
        case nn.Conv2dDwOp() | nn.IntegerConv2dDwOp():
            return 2 * prod(shape_of(op.dy)) * prod(shape_of(op.dw)[1:])
        case nn.MatmulOp():
            inner = shape_of(op.a)[-2 if op.transpose_a.value.data else -1]
            return 2 * prod(shape_of(op.y)) * inner
        case _:
            return 0
