"""Elementwise operations, with NumPy's broadcasting."""

from abc import ABC
from typing import ClassVar

from xdsl.dialects.builtin import (
    Float32Type,
    Float64Type,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    f32,
)
from xdsl.ir import Attribute
from xdsl.irdl import (
    irdl_op_definition,
    operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from niwaki.ir.dialects.tensor_op import (
    NARROW,
    Attributes,
    TensorOp,
    Tensors,
    broadcast_shapes,
    common_element,
    get_int,
    i1,
    require,
    tensor,
)


class Elementwise(TensorOp, ABC):
    """One result element depends on one element of each operand."""

    traits = traits_def(Pure())

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        shape = broadcast_shapes(*(t.get_shape() for t in operands))
        return [tensor(shape, common_element(operands))]


class Unary(Elementwise, ABC):
    """y = f(x)."""

    x = operand_def()
    y = result_def()


class Binary(Elementwise, ABC):
    """y = f(a, b), broadcast."""

    a = operand_def()
    b = operand_def()
    y = result_def()


@irdl_op_definition
class AddOp(Binary):
    """a + b. A bias is an `nn.add` whose second operand has rank 1."""

    name = "nn.add"


@irdl_op_definition
class SubOp(Binary):
    """a - b."""

    name = "nn.sub"


@irdl_op_definition
class MulOp(Binary):
    """a * b."""

    name = "nn.mul"


@irdl_op_definition
class DivOp(Binary):
    """a / b."""

    name = "nn.div"


@irdl_op_definition
class MaxOp(Binary):
    """max(a, b); the gradient goes to a where a >= b."""

    name = "nn.max"


@irdl_op_definition
class MinOp(Binary):
    """min(a, b); the gradient goes to a where a <= b."""

    name = "nn.min"


@irdl_op_definition
class NegOp(Unary):
    """-x."""

    name = "nn.neg"


@irdl_op_definition
class AbsOp(Unary):
    """|x|; the gradient at 0 is 0."""

    name = "nn.abs"


@irdl_op_definition
class ExpOp(Unary):
    """e to the x."""

    name = "nn.exp"


@irdl_op_definition
class LogOp(Unary):
    """Natural logarithm."""

    name = "nn.log"


@irdl_op_definition
class SqrtOp(Unary):
    """Square root."""

    name = "nn.sqrt"


@irdl_op_definition
class RsqrtOp(Unary):
    """1 / sqrt(x)."""

    name = "nn.rsqrt"


@irdl_op_definition
class ErfOp(Unary):
    """The error function."""

    name = "nn.erf"


@irdl_op_definition
class ReluOp(Unary):
    """max(x, 0); the gradient at 0 is 0."""

    name = "nn.relu"


@irdl_op_definition
class Relu6Op(Unary):
    """min(max(x, 0), 6); the gradient at 0 and 6 is 0."""

    name = "nn.relu6"


@irdl_op_definition
class LeakyReluOp(Unary):
    """x where x > 0, else slope * x."""

    name = "nn.leaky_relu"
    slope = prop_def(FloatAttr)


@irdl_op_definition
class SigmoidOp(Unary):
    """1 / (1 + exp(-x))."""

    name = "nn.sigmoid"


@irdl_op_definition
class TanhOp(Unary):
    """Hyperbolic tangent."""

    name = "nn.tanh"


@irdl_op_definition
class HardSigmoidOp(Unary):
    """min(max(x / 6 + 1/2, 0), 1) (MobileNetV3, section 5.2)."""

    name = "nn.hard_sigmoid"


@irdl_op_definition
class HardSwishOp(Unary):
    """x * hard_sigmoid(x) (MobileNetV3, section 5.2)."""

    name = "nn.hard_swish"


@irdl_op_definition
class SiluOp(Unary):
    """x * sigmoid(x)."""

    name = "nn.silu"


@irdl_op_definition
class SoftplusOp(Unary):
    """log(1 + exp(x)), computed without overflow."""

    name = "nn.softplus"


@irdl_op_definition
class GeluOp(Unary):
    """x * Phi(x); `approximate` is "none" (erf) or "tanh" (Hendrycks & Gimpel 2016)."""

    name = "nn.gelu"
    approximate = prop_def(StringAttr)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        kind = attributes.get("approximate")
        require(
            isinstance(kind, StringAttr) and kind.data in ("none", "tanh"),
            '\'approximate\' must be "none" or "tanh"',
        )
        return super().infer(operands, attributes)


@irdl_op_definition
class CompareOp(Binary):
    """a `predicate` b as bits; predicates gt, ge, lt, le, eq. Not differentiable."""

    name = "nn.compare"
    predicate = prop_def(StringAttr)

    PREDICATES: ClassVar = ("gt", "ge", "lt", "le", "eq")

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        predicate = attributes.get("predicate")
        require(
            isinstance(predicate, StringAttr) and predicate.data in cls.PREDICATES,
            f"'predicate' must be one of {', '.join(cls.PREDICATES)}",
        )
        (result,) = super().infer(operands, attributes)
        return [tensor(result.get_shape(), i1)]


@irdl_op_definition
class AndOp(Binary):
    """Logical and of two masks. Not differentiable."""

    name = "nn.and"

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(all(t.element_type == i1 for t in operands), "operands must be masks (i1)")
        return super().infer(operands, attributes)


@irdl_op_definition
class SelectOp(Elementwise):
    """a where mask, else b, broadcast."""

    name = "nn.select"
    mask = operand_def()
    a = operand_def()
    b = operand_def()
    y = result_def()

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(operands[0].element_type == i1, "the first operand must be a mask (i1)")
        shape = broadcast_shapes(*(t.get_shape() for t in operands))
        return [tensor(shape, common_element(operands[1:]))]


@irdl_op_definition
class CastOp(Unary):
    """Converts to the element type `to` numbers that it can hold. Not differentiable.

    Integers of 8 to 64 bits, f32, f64; i1 and bf16 only as operand. f32 takes integers rounded to
    nearest; to integers, numbers lose their fraction. What `to` cannot hold gives any value.
    """

    name = "nn.cast"
    to = prop_def(Attribute)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        to = attributes["to"]
        require(
            isinstance(to, IntegerType | Float32Type | Float64Type) and to != i1,
            f"there is no conversion to {to}",
        )
        return [tensor(operands[0].get_shape(), to)]


@irdl_op_definition
class NarrowOp(Unary):
    """Rounds f32 to the nearest element of `to`, bf16 or i8; ties go to even.

    i8 saturates at -127 and 127; nan becomes -127. Not differentiable.
    """

    name = "nn.narrow"
    to = prop_def(Attribute)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        require(operands[0].element_type == f32, "the operand must be of f32")
        require(attributes["to"] in NARROW, "'to' must be bf16 or i8")
        return [tensor(operands[0].get_shape(), attributes["to"])]


@irdl_op_definition
class OneHotOp(Elementwise):
    """Integer labels [..., 1] to 0 and 1 of type `to` (f32), [..., depth]. Not differentiable."""

    name = "nn.one_hot"
    labels = operand_def()
    y = result_def()
    depth = prop_def(IntegerAttr)
    to = opt_prop_def(Attribute)

    @classmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        (labels,) = operands
        require(isinstance(labels.element_type, IntegerType), "labels must be integers")
        require(labels.get_shape()[-1:] == (1,), f"the last size of {labels} must be 1")
        depth = get_int(attributes, "depth")
        require(depth > 1, f"depth is {depth}, must be at least 2")
        shape = [*labels.get_shape()[:-1], depth]
        return [tensor(shape, attributes.get("to", f32))]


TRANSCENDENTAL = (
    ExpOp, LogOp, SqrtOp, RsqrtOp, ErfOp, SigmoidOp, TanhOp, SiluOp, SoftplusOp, GeluOp,
)  # fmt: skip
"""Those that take many more operations of an element than one, or much longer ones."""

OPS = [
    AddOp, SubOp, MulOp, DivOp, MaxOp, MinOp, NegOp, AbsOp, ExpOp, LogOp, SqrtOp, RsqrtOp, ErfOp,
    ReluOp, Relu6Op, LeakyReluOp, SigmoidOp, TanhOp, HardSigmoidOp, HardSwishOp, SiluOp,
    SoftplusOp, GeluOp, CompareOp, AndOp, SelectOp, CastOp, NarrowOp, OneHotOp,
]  # fmt: skip
