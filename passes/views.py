"""Buffers of a program and views of them: what every tensor value is at the plan level.

All views of one buffer are its aliases; where a buffer lies in its space is decided after this.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr

from niwaki.backends.kernels.spec import buffer_bytes, element_bytes, is_contiguous, strides_of


@dataclass(frozen=True, eq=False)
class Allocation:
    """A piece of one memory space; compared by identity."""

    space: str
    """As in `plan.view`."""
    size: int
    """Bytes."""
    index: int | None = None
    """The number of an input or output."""
    label: str = ""
    """What it holds, for people."""
    mask_bits: int = 0
    """Elements of the mask that it holds; 0 if it holds anything else."""

    @property
    def in_arena(self) -> bool:
        """Whether the planner places it."""
        return self.space == "arena"


@dataclass(frozen=True, eq=False)
class View:
    """One tensor value in a buffer; compared by identity: a value overwritten is another view."""

    allocation: Allocation
    offset: int
    """Bytes from the start of the buffer."""
    kind: MemRefType

    @property
    def size(self) -> int:
        """Bytes from the first to the last element."""
        return buffer_bytes(self.kind)

    def same_place(self, other: "View") -> bool:
        """Whether both are the same elements, in the same order, of the same memory."""
        if self.allocation is not other.allocation or self.offset != other.offset:
            return False
        dense = is_contiguous(self.kind) and is_contiguous(other.kind)
        return self.kind == other.kind or (dense and self.size == other.size)

    def reshaped(self, kind: MemRefType) -> "View":
        """The same bytes under another shape; the view must be contiguous."""
        assert is_contiguous(self.kind)
        return View(self.allocation, self.offset, kind)

    def box(self, starts: Sequence[int], sizes: Sequence[int]) -> "View":
        """The elements from `starts` on, `sizes` of them along each dimension."""
        if tuple(sizes) == self.kind.get_shape():
            return View(self.allocation, self.offset, self.kind)
        strides = strides_of(self.kind)
        first = sum(start * stride for start, stride in zip(starts, strides, strict=True))
        element = self.kind.element_type
        kind = MemRefType(element, sizes, StridedLayoutAttr(strides))
        if is_contiguous(kind):
            kind = MemRefType(element, sizes)
        return View(self.allocation, self.offset + first * element_bytes(element), kind)
