"""The `kernel` dialect: what the loop level needs beyond xDSL's scf, arith, math and vector.

xDSL's arith.cmpi, arith.cmpf and arith.select take scalar conditions only; these take vectors too.
"""

from collections.abc import Mapping
from types import MappingProxyType

from xdsl.dialects.builtin import IntegerType, StringAttr, VectorType, i1
from xdsl.ir import Attribute, Dialect, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    irdl_op_definition,
    operand_def,
    prop_def,
    result_def,
    traits_def,
)
from xdsl.traits import Pure

from niwaki.ir.dialects.tensor_op import require

PREDICATES: Mapping[str, bool] = MappingProxyType(
    {
        "oeq": True, "ogt": True, "oge": True, "olt": True, "ole": True,
        "eq": False, "ne": False, "slt": False, "sle": False, "sgt": False, "sge": False,
        "ult": False,
    }
)  # fmt: skip
"""Predicate -> whether it compares floats. LLVM's names."""


def mask_type(kind: Attribute) -> Attribute:
    """i1 for a scalar type, a vector of i1 for a vector type."""
    return VectorType(i1, kind.get_shape()) if isinstance(kind, VectorType) else i1


@irdl_op_definition
class CompareOp(IRDLOperation):
    """lhs `predicate` rhs, elementwise, as i1."""

    name = "kernel.compare"
    traits = traits_def(Pure())
    predicate = prop_def(StringAttr)
    lhs = operand_def()
    rhs = operand_def()
    result = result_def()
    assembly_format = (
        "$predicate $lhs `,` $rhs attr-dict `:` type($lhs) `,` type($rhs) `->` type($result)"
    )

    @classmethod
    def make(cls, predicate: str, lhs: SSAValue, rhs: SSAValue) -> "CompareOp":
        """Builds the operation; the result type follows from the operands'."""
        return cls.create(
            operands=[lhs, rhs],
            properties={"predicate": StringAttr(predicate)},
            result_types=[mask_type(lhs.type)],
        )

    def verify_(self) -> None:
        require(self.predicate.data in PREDICATES, f"unknown predicate '{self.predicate.data}'")
        require(self.lhs.type == self.rhs.type, "operands must have one type")
        require(self.result.type == mask_type(self.lhs.type), "the result must be the mask type")
        element = (
            self.lhs.type.element_type if isinstance(self.lhs.type, VectorType) else self.lhs.type
        )
        require(
            not (PREDICATES[self.predicate.data] and isinstance(element, IntegerType)),
            "a float predicate on integers",
        )


@irdl_op_definition
class SelectOp(IRDLOperation):
    """a where mask, else b, elementwise."""

    name = "kernel.select"
    traits = traits_def(Pure())
    mask = operand_def()
    a = operand_def()
    b = operand_def()
    result = result_def()
    assembly_format = (
        "$mask `,` $a `,` $b attr-dict `:` type($mask) `,` type($a) `,` type($b) `->` type($result)"
    )

    @classmethod
    def make(cls, mask: SSAValue, a: SSAValue, b: SSAValue) -> "SelectOp":
        """Builds the operation; the result type is that of `a`."""
        return cls.create(operands=[mask, a, b], result_types=[a.type])

    def verify_(self) -> None:
        require(self.a.type == self.b.type == self.result.type, "both arms must have one type")
        require(self.mask.type == mask_type(self.a.type), "the mask must fit the arms")


KERNEL = Dialect("kernel", [CompareOp, SelectOp])
