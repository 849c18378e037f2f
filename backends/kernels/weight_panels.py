"""Weights in the panels that products read: packed by a kernel, or once at compile time."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.panel_packing import Pack, RowLoop, pack_rows, pack_transposed
from niwaki.backends.kernels.tiles import Panel
from niwaki.ir.weights import Array


@dataclass(frozen=True)
class WeightPanels:
    """B of one product per group of a weight; places are elements of the plain weight."""

    rows: tuple[RowLoop, ...]
    """The loops over i, with their steps in the weight."""
    column_step: int
    """From column to column."""
    panels: tuple[Panel, ...]
    first: int = 0
    """Where i and column are 0, in the first group."""
    groups: int = 1
    group_step: int = 0
    """From group to group."""

    @property
    def length(self) -> int:
        """Terms of a sum."""
        return prod(row.count for row in self.rows)

    @property
    def elements(self) -> int:
        """Packed, of all groups."""
        return self.groups * sum(p.width * p.repeat for p in self.panels) * self.length

    def pack(self, k: KernelBuilder, weight: Operand, start: Index, scratch: Operand) -> Pack:
        """What packs a panel in a kernel; `start`: of the group or matrix in `weight`."""
        start = k.iadd(start, self.first)
        if self.column_step == 1:
            return pack_rows(k, weight, start, self.rows, scratch)
        return pack_transposed(k, weight, start, self.column_step, self.length, scratch)

    @property
    def taken(self) -> int:
        """Elements of the weight that are packed: all but padding."""
        return self.groups * sum(p.columns * p.repeat for p in self.panels) * self.length

    def pairs(self, plain: Array, packed: Array) -> Iterator[tuple[Array, Array]]:
        """The same elements in both layouts, panel by panel: views of flat arrays."""
        counts = tuple(row.count for row in self.rows)
        size = plain.itemsize
        strides = (*(row.step * size for row in self.rows), self.column_step * size)
        end = 0
        for group in range(self.groups):
            first = self.first + group * self.group_step
            for panel in self.panels:
                for number in range(panel.repeat):
                    start = first + self.column_step * (panel.start + number * panel.width)
                    source = as_strided(plain[start:], (*counts, panel.columns), strides)
                    goal = packed[end : end + panel.width * self.length]
                    yield source, goal.reshape(*counts, panel.width)[..., : panel.columns]
                    end += panel.width * self.length


@dataclass(frozen=True)
class PackedWeight:
    """A weight in the panels of several products, one after another."""

    shape: tuple[int, ...]
    """Of the weight."""
    products: tuple[WeightPanels, ...]

    @property
    def elements(self) -> int:
        """Packed, padding included."""
        return sum(panels.elements for panels in self.products)

    @property
    def complete(self) -> bool:
        """Whether every element of the weight is in a panel; none is in two."""
        return sum(panels.taken for panels in self.products) == prod(self.shape)

    def packed(self, array: Array) -> Array:
        """The panels of a weight, zeros where they are padded."""
        stored = np.zeros(self.elements, array.dtype)
        for plain, packed in self._pairs(np.ascontiguousarray(array).reshape(-1), stored):
            packed[...] = plain
        return stored

    def plain(self, stored: Array) -> Array:
        """The weight whose panels `stored` are."""
        array = np.empty(prod(self.shape), stored.dtype)
        for plain, packed in self._pairs(array, stored):
            plain[...] = packed
        return array.reshape(self.shape)

    def _pairs(self, plain: Array, stored: Array) -> Iterator[tuple[Array, Array]]:
        end = 0
        for panels in self.products:
            yield from panels.pairs(plain, stored[end : end + panels.elements])
            end += panels.elements
