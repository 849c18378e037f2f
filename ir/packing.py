"""Layouts of a frozen tensor in memory that a kernel reads faster than the plain one."""

from typing import Protocol

from niwaki.ir.weights import Array


class Packing(Protocol):
    """How the elements of a tensor lie. Equal packings compare and hash as equal."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        ...

    @property
    def elements(self) -> int:
        """That are stored, in one dimension; padding included."""
        ...

    @property
    def complete(self) -> bool:
        """Whether every element of the tensor is stored."""
        ...

    def packed(self, array: Array) -> Array:
        """The stored elements of a tensor."""
        ...

    def plain(self, stored: Array) -> Array:
        """The tensor of which `packed` made `stored`; the packing must be complete."""
        ...
