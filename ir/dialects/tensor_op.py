"""What all tensor-level operations share: static shapes, inferred result types, attributes."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from math import prod
from typing import Self, TypeAlias, cast

from xdsl.dialects.builtin import (
    AnyFloat,
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    IntegerType,
    StringAttr,
    TensorType,
    bf16,
    f32,
    i1,
    i8,
    i32,
    i64,
)
from xdsl.ir import Attribute, Operation, SSAValue
from xdsl.irdl import IRDLOperation, ParsePropInAttrDict
from xdsl.utils.exceptions import VerifyException

Tensor: TypeAlias = TensorType[Attribute]
Tensors: TypeAlias = Sequence[Tensor]
Attributes: TypeAlias = Mapping[str, Attribute]
AttributeValue: TypeAlias = Attribute | bool | int | float | str | Sequence[int]


def tensor(shape: Sequence[int], element: Attribute = f32) -> Tensor:
    """The static tensor type of `shape`."""
    return TensorType(element, shape)


def type_of(value: SSAValue | Operation) -> Tensor:
    """The tensor type of a value; VerifyException if it is no tensor of static shape."""
    value_type = value.type if isinstance(value, SSAValue) else SSAValue.get(value).type
    if not isinstance(value_type, TensorType):
        raise VerifyException(f"expected a tensor, got {value_type}")
    return cast(Tensor, value_type)


def shape_of(value: SSAValue | Operation) -> tuple[int, ...]:
    """The static shape of a tensor value."""
    return type_of(value).get_shape()


def ints(values: Sequence[int]) -> DenseArrayBase:
    """`array<i64: ...>`."""
    return DenseArrayBase.from_list(i64, list(values))


def to_attribute(value: AttributeValue) -> Attribute:
    """The attribute of a Python value: bool, int (i64), float (f64-printed f32), str, ints."""
    if isinstance(value, Attribute):
        return value
    if isinstance(value, bool):
        return BoolAttr.from_bool(value)
    if isinstance(value, int):
        return IntegerAttr(value, i64)
    if isinstance(value, float):
        return FloatAttr(value, f32)
    if isinstance(value, str):
        return StringAttr(value)
    return ints(value)


def get_ints(attributes: Mapping[str, Attribute], name: str) -> tuple[int, ...]:
    """The value of the integer-array attribute `name`."""
    attribute = attributes.get(name)
    if not isinstance(attribute, DenseArrayBase):
        raise VerifyException(f"'{name}' must be an array of i64")
    return tuple(int(v) for v in attribute.get_values())


def get_int(attributes: Mapping[str, Attribute], name: str) -> int:
    """The value of the integer attribute `name`."""
    attribute = attributes.get(name)
    if not isinstance(attribute, IntegerAttr):
        raise VerifyException(f"'{name}' must be an integer")
    return attribute.value.data


def tensor_bytes(tensor_type: Tensor) -> int:
    """Bytes in memory; masks (i1) take a bit per element, each last-dimension row whole bytes."""
    shape = tensor_type.get_shape()
    if tensor_type.element_type != i1:
        return prod(shape) * cast(AnyFloat | IntegerType, tensor_type.element_type).size
    *rows, row = shape or (1,)
    return prod(rows) * ((row + 7) // 8)


def require(condition: bool, message: str) -> None:
    """VerifyException with `message` unless `condition`."""
    if not condition:
        raise VerifyException(message)


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """NumPy's broadcasting rule; VerifyException if the shapes do not fit."""
    rank = max((len(s) for s in shapes), default=0)
    padded = [(1,) * (rank - len(s)) + tuple(s) for s in shapes]
    result: list[int] = []
    for sizes in zip(*padded, strict=True):
        size = max(sizes) if 0 not in sizes else 0
        if any(s not in (1, size) for s in sizes):
            raise VerifyException(f"shapes {[list(s) for s in shapes]} do not broadcast")
        result.append(size)
    return tuple(result)


def common_element(operands: Sequence[Tensor]) -> Attribute:
    """The element type that all operands have; VerifyException if they differ."""
    element = operands[0].element_type
    if any(t.element_type != element for t in operands):  # printing types is slow: only if needed
        raise VerifyException(f"element types differ: {', '.join(map(str, operands))}")
    return element


NARROW = (bf16, i8)
"""Element types that stand for f32 with fewer bits."""


def widened_element(operands: Sequence[Tensor]) -> Attribute:
    """`common_element` of operands that are read as f32 if they are of NARROW elements.

    A model that is all in bf16 stays so.
    """
    if all(t.element_type == bf16 for t in operands):
        return bf16
    wide = [tensor(t.get_shape(), f32) if t.element_type in NARROW else t for t in operands]
    return common_element(wide)


class TensorOp(IRDLOperation, ABC):
    """An operation on static tensors whose result types follow from operands and attributes."""

    irdl_options = (ParsePropInAttrDict(),)
    assembly_format = "operands attr-dict `:` functional-type(operands, results)"

    @classmethod
    @abstractmethod
    def infer(cls, operands: Tensors, attributes: Attributes) -> Tensors:
        """The shape rule: result types from operand types and attributes.

        Raises VerifyException, with a message for the user, if they do not fit.
        """

    @classmethod
    def make(cls, *operands: SSAValue | Operation, **attributes: AttributeValue) -> Self:
        """Builds the operation; the result types come from the shape rule."""
        values = [SSAValue.get(o) for o in operands]
        properties = {k: to_attribute(v) for k, v in attributes.items()}
        results = cls.infer([type_of(v) for v in values], properties)
        return cls.create(operands=values, properties=properties, result_types=list(results))

    def verify_(self) -> None:
        expected = tuple(self.infer([type_of(o) for o in self.operands], self.properties))
        actual = tuple(self.result_types)
        if expected != actual:
            names = [", ".join(str(t) for t in types) for types in (expected, actual)]
            raise VerifyException(f"'{self.name}' must produce {names[0]}, not {names[1]}")


__all__ = [
    "NARROW",
    "AttributeValue",
    "Attributes",
    "Tensor",
    "TensorOp",
    "Tensors",
    "bf16",
    "broadcast_shapes",
    "common_element",
    "f32",
    "get_int",
    "get_ints",
    "i1",
    "i8",
    "i32",
    "ints",
    "require",
    "shape_of",
    "tensor",
    "tensor_bytes",
    "to_attribute",
    "type_of",
    "widened_element",
]
