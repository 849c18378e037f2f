"""Constants, reductions and operations that move elements without computing."""

from abc import ABC

from xdsl.dialects.builtin import DenseArrayBase, FloatAttr, IntegerAttr, i32
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import Pure

from niwaki.ir.dialects.tensor_op import (
    Attributes,
    TensorOp,
    Tensors,
    broadcast_shapes,
    common_element,
    get_int,
    get_ints,
    require,
    tensor,
)


@irdl_op_definition
class ConstantOp(TensorOp):
    """One value in every element of `shape` (array of sizes; empty for a scalar)."""

    name = "nn.constant"
    traits = traits_def(Pure())
    value = prop_def(FloatAttr | IntegerAttr)
    shape = prop_def(DenseArrayBase)
    y = result_def()
    assembly_format = "attr-dict `:` type($y)"

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        value = attributes["value"]
        require(isinstance(value, FloatAttr | IntegerAttr), "'value' must be a number")
        assert isinstance(value, FloatAttr | IntegerAttr)
        return [tensor(get_ints(attributes, "shape"), value.type)]


class Reduction(TensorOp, ABC):
    """Reduces the dimensions `axes` to size 1 (the rank stays)."""

    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    axes = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        axes = get_ints(attributes, "axes")
        shape = operands[0].get_shape()
        require(
            list(axes) == sorted(set(axes)) and all(0 <= a < len(shape) for a in axes),
            f"'axes' must be ascending dimensions of {operands[0]}",
        )
        result = [1 if i in axes else size for i, size in enumerate(shape)]
        return [tensor(result, operands[0].element_type)]


@irdl_op_definition
class ReduceSumOp(Reduction):
    """Sum over `axes`."""

    name = "nn.reduce_sum"


@irdl_op_definition
class ReduceMeanOp(Reduction):
    """Mean over `axes`."""

    name = "nn.reduce_mean"


@irdl_op_definition
class ReduceMaxOp(Reduction):
    """Maximum over `axes`; equal maxima share the gradient evenly."""

    name = "nn.reduce_max"


@irdl_op_definition
class ReshapeOp(TensorOp):
    """The same elements in row-major order under another shape."""

    name = "nn.reshape"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    shape = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        result = tensor(get_ints(attributes, "shape"), operands[0].element_type)
        require(
            operands[0].element_count() == result.element_count(),
            f"cannot reshape {operands[0]} to {list(result.get_shape())}",
        )
        return [result]


@irdl_op_definition
class BroadcastOp(TensorOp):
    """Repeats elements to `shape` by NumPy's rule."""

    name = "nn.broadcast"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    shape = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        shape = get_ints(attributes, "shape")
        require(
            broadcast_shapes(operands[0].get_shape(), shape) == shape,
            f"{operands[0]} does not broadcast to {list(shape)}",
        )
        return [tensor(shape, operands[0].element_type)]


@irdl_op_definition
class TransposeOp(TensorOp):
    """Dimension i of the result is dimension `permutation`[i] of x."""

    name = "nn.transpose"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    permutation = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        permutation = get_ints(attributes, "permutation")
        shape = operands[0].get_shape()
        require(
            sorted(permutation) == list(range(len(shape))),
            f"'permutation' must permute the {len(shape)} dimensions",
        )
        return [tensor([shape[p] for p in permutation], operands[0].element_type)]


@irdl_op_definition
class PadOp(TensorOp):
    """`value` around (`low`, `high`) and between (`interior`) the elements of each dimension."""

    name = "nn.pad"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    low = prop_def(DenseArrayBase)
    high = prop_def(DenseArrayBase)
    interior = prop_def(DenseArrayBase)
    value = prop_def(FloatAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        shape = operands[0].get_shape()
        low, high, interior = (get_ints(attributes, k) for k in ("low", "high", "interior"))
        require(
            len(low) == len(high) == len(interior) == len(shape)
            and min((*low, *high, *interior), default=0) >= 0,
            "'low', 'high' and 'interior' must give a size >= 0 for each dimension",
        )
        result = [
            lo + size + max(size - 1, 0) * inner + hi
            for size, lo, hi, inner in zip(shape, low, high, interior, strict=True)
        ]
        return [tensor(result, operands[0].element_type)]


@irdl_op_definition
class SliceOp(TensorOp):
    """Elements `starts` + i * `steps`, `sizes` of them, of each dimension."""

    name = "nn.slice"
    traits = traits_def(Pure())
    x = operand_def()
    y = result_def()
    starts = prop_def(DenseArrayBase)
    sizes = prop_def(DenseArrayBase)
    steps = prop_def(DenseArrayBase)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        shape = operands[0].get_shape()
        starts, sizes, steps = (get_ints(attributes, k) for k in ("starts", "sizes", "steps"))
        require(
            len(starts) == len(sizes) == len(steps) == len(shape),
            "'starts', 'sizes' and 'steps' must name each dimension",
        )
        for size, start, count, step in zip(shape, starts, sizes, steps, strict=True):
            require(
                start >= 0 and count >= 1 and step >= 1 and start + (count - 1) * step < size,
                f"the slice leaves {operands[0]}",
            )
        return [tensor(sizes, operands[0].element_type)]


@irdl_op_definition
class ConcatOp(TensorOp):
    """The operands one after another along `axis`."""

    name = "nn.concat"
    traits = traits_def(Pure())
    xs = var_operand_def()
    y = result_def()
    axis = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        axis = get_int(attributes, "axis")
        require(len(operands) > 0, "nothing to concatenate")
        shapes = [t.get_shape() for t in operands]
        require(0 <= axis < len(shapes[0]), f"no dimension {axis} in {operands[0]}")
        rests = {(*s[:axis], *s[axis + 1 :]) for s in shapes if len(s) > axis}
        require(
            len(rests) == 1 and len({len(s) for s in shapes}) == 1,
            f"shapes {[list(s) for s in shapes]} differ outside dimension {axis}",
        )
        result = list(shapes[0])
        result[axis] = sum(s[axis] for s in shapes)
        return [tensor(result, common_element(operands))]


@irdl_op_definition
class GatherOp(TensorOp):
    """The rows of `table` [R, C] at integer `indices` [...]: [..., C].

    An index outside [0, R) gives a row of zeros. Differentiable in the table.
    """

    name = "nn.gather"
    traits = traits_def(Pure())
    table = operand_def()
    indices = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        table, indices = operands
        require(len(table.get_shape()) == 2, f"the table must be a matrix, got {table}")
        require(indices.element_type == i32, "indices must be i32")
        return [tensor([*indices.get_shape(), table.get_shape()[1]], table.element_type)]


@irdl_op_definition
class ScatterAddOp(TensorOp):
    """[`rows`, C]: each row the sum of those rows of x [..., C] that `indices` [...] put there.

    A row of x whose index is outside [0, `rows`) counts nowhere. The cotangent of the table of
    `nn.gather`.
    """

    name = "nn.scatter_add"
    traits = traits_def(Pure())
    x = operand_def()
    indices = operand_def()
    y = result_def()
    rows = prop_def(IntegerAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        x, indices = operands
        require(indices.element_type == i32, "indices must be i32")
        require(
            len(x.get_shape()) > 0 and x.get_shape()[:-1] == indices.get_shape(),
            f"there must be one index for each row of {x}, got {indices}",
        )
        return [tensor([get_int(attributes, "rows"), x.get_shape()[-1]], x.element_type)]


@irdl_op_definition
class AddRowsOp(TensorOp):
    """`table` [R, C] with the rows of x [..., C] added to those that `indices` [...] name.

    A row of x whose index is outside [0, R) counts nowhere. The step of a parameter whose cotangent
    is an `nn.scatter_add`. Not differentiable.
    """

    name = "nn.add_rows"
    traits = traits_def(Pure())
    table = operand_def()
    x = operand_def()
    indices = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        table, x, indices = operands
        require(indices.element_type == i32, "indices must be i32")
        require(
            len(table.get_shape()) == 2
            and x.get_shape() == (*indices.get_shape(), table.get_shape()[1]),
            f"x must hold a row of {table} for each index, got {x} and {indices}",
        )
        return [tensor(table.get_shape(), common_element(operands[:2]))]


@irdl_op_definition
class CountCorrectOp(TensorOp):
    """How many rows of [N, C] logits have their first maximum at the label. Not differentiable."""

    name = "nn.count_correct"
    traits = traits_def(Pure())
    logits = operand_def()
    labels = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        logits, labels = (t.get_shape() for t in operands)
        require(len(logits) == 2 and logits[:1] == labels, "logits must be [N, C], labels [N]")
        require(operands[1].element_type == i32, "labels must be i32")
        return [tensor([], i32)]


OPS = [
    ConstantOp, ReduceSumOp, ReduceMeanOp, ReduceMaxOp, ReshapeOp, BroadcastOp, TransposeOp,
    PadOp, SliceOp, ConcatOp, GatherOp, ScatterAddOp, AddRowsOp,
    CountCorrectOp,
]  # fmt: skip
