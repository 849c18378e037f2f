"""What the planner must know of a kernel before it is built, and the memory layout of tensors."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod

from xdsl.dialects.builtin import (
    AnyFloat,
    IntegerType,
    MemRefType,
    StridedLayoutAttr,
    bf16,
    i8,
    i16,
)
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from niwaki.ir.dialects.tensor_op import Tensor, i1
from niwaki.ir.packing import Packing


@dataclass(frozen=True)
class KernelSpec:
    """A kernel chosen for one operation at one layout.

    Its function takes the operands, then the results, then (if `workspace` > 0) one
    memref<workspace x i8> of scratch.
    """

    operands: tuple[MemRefType, ...]
    results: tuple[MemRefType, ...]
    workspace: int
    """Bytes of scratch; what it holds before and after a call does not matter."""
    in_place: tuple[tuple[int, int], ...]
    """Pairs (operand, result) that may be the same memory."""
    flops: int
    """Floating-point operations of one call, a multiply-add counted as two."""
    build: Callable[[str], FuncOp]
    """Makes the function under a name."""
    prepacked: "Prepacked | None" = None
    """The kernel for an operand that comes packed, if it would pack that itself."""

    @cached_property
    def bytes(self) -> int:
        """Of operands and results, each once."""
        return sum(map(buffer_bytes, (*self.operands, *self.results)))

    @property
    def cost(self) -> int:
        """Estimated time of one call, to compare plans with: operations and bytes moved.

        Each byte of operands and results counts as one operation.
        """
        return self.flops + self.bytes


@dataclass(frozen=True)
class Prepacked:
    """A kernel that finds an operand as its loops read it, and does the rest alike."""

    operand: int
    packing: Packing
    select: Callable[[], KernelSpec]

    @cached_property
    def spec(self) -> KernelSpec:
        """Chosen when it is asked for; its operand has one dimension."""
        return self.select()


@cache
def memref_of(kind: Tensor) -> MemRefType:
    """The contiguous layout of a tensor type.

    Masks (i1) are bits: each row of the last dimension starts at a new byte, element 0 in the
    lowest bit, so memref<...x ceil(C / 8) x i8>. Of bf16, the bits are stored, as i16.
    """
    shape = list(kind.get_shape())
    if kind.element_type != i1:
        return MemRefType(stored_element(kind.element_type), shape)
    if not shape:
        return MemRefType(i8, [1])
    return MemRefType(i8, [*shape[:-1], (shape[-1] + 7) // 8])


def stored_element(element: Attribute) -> Attribute:
    """The element type in memory of a tensor's `element`, which is no mask's."""
    return i16 if element == bf16 else element


def element_bytes(element: Attribute) -> int:
    """Bytes of one element in memory."""
    assert isinstance(element, IntegerType | AnyFloat)
    return element.size


def strides_of(kind: MemRefType) -> tuple[int, ...]:
    """Strides in elements, constant."""
    if isinstance(kind.layout, StridedLayoutAttr):
        strides = kind.layout.get_strides()
        assert strides is not None
        return tuple(int(s) for s in strides if s is not None)
    shape = kind.get_shape()
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


def is_contiguous(kind: MemRefType) -> bool:
    """Whether the elements lie in row-major order without gaps."""
    shape = kind.get_shape()
    dense = tuple(prod(shape[i + 1 :]) for i in range(len(shape)))
    return all(
        size == 1 or a == b for size, a, b in zip(shape, strides_of(kind), dense, strict=True)
    )


def buffer_bytes(kind: MemRefType) -> int:
    """Bytes from the first to the last element, inclusive."""
    last = sum(
        (size - 1) * stride for size, stride in zip(kind.get_shape(), strides_of(kind), strict=True)
    )
    return (last + 1) * element_bytes(kind.element_type)
