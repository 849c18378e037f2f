"""Operations on the rows of matrices that a model states on [batch, tokens, width].

A dense layer works on [batch * tokens, width]. What is elementwise behind it, or works along rows,
then computes the same on the matrix: its kernel can be the product's, its bias the layer's.
"""

from xdsl.ir import OpResult

from niwaki.ir.builder import Builder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import TensorOp, shape_of, tensor, type_of


def compute_on_rows(op: TensorOp, b: Builder) -> Value | None:
    """Moves the reshape of a matrix to [batch, tokens, width] behind `op`."""
    if len(op.results) != 1 or len(shape_of(op.results[0])) != 3:
        return None
    shape = shape_of(op.results[0])
    if not any(_is_matrix(o, shape) for o in op.operands):
        return None
    if not all(_has_rows(o, shape) for o in op.operands):
        return None
    rows, width = shape[0] * shape[1], shape[2]
    operands: list[Value] = []
    for operand in op.operands:
        sizes = [rows, width] if shape_of(operand) == shape else shape_of(operand)[-1:]
        operands.append(b.reshape(_source(operand), sizes))
    kind = tensor([rows, width], type_of(op.results[0]).element_type)
    y = type(op).create(operands=operands, properties=op.properties, result_types=[kind])
    return b.reshape(b.one(y), shape)


def _is_matrix(value: Value, shape: tuple[int, ...]) -> bool:
    """Whether `value`, of this `shape`, is a view of a matrix."""
    rows = (shape[0] * shape[1], shape[2])
    return shape_of(value) == shape and shape_of(_source(value)) == rows


def _source(value: Value) -> Value:
    """What a reshape is a view of; any other value itself."""
    if isinstance(value, OpResult) and isinstance(value.op, nn.ReshapeOp):
        return value.op.x
    return value


def _has_rows(value: Value, shape: tuple[int, ...]) -> bool:
    """Whether `value` can be read row by row, and no product of stacks would lose its epilogue."""
    if shape_of(value) != shape:
        return all(size == 1 for size in shape_of(value)[:-1])
    return not (isinstance(value, OpResult) and isinstance(value.op, nn.MatmulOp))
