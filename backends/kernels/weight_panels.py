"""Weights in the panels that products read: packed by a kernel, or once at compile time."""

from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np
from numpy.typing import NDArray

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

    def places(self) -> NDArray[np.int64]:
        """Of each packed element, its place in the weight; -1: padding."""
        rows = np.zeros(1, np.int64)
        for loop in self.rows:
            rows = np.add.outer(rows, loop.step * np.arange(loop.count)).ravel()
        found: list[NDArray[np.int64]] = []
        for group in range(self.groups):
            start = self.first + group * self.group_step
            for panel in self.panels:
                for number in range(panel.repeat):
                    columns = np.arange(panel.width)
                    places = start + self.column_step * (
                        panel.start + number * panel.width + columns
                    )
                    block = np.add.outer(rows, places)
                    block[:, panel.columns :] = -1
                    found.append(block.ravel())
        return np.concatenate(found)


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
        """Whether every element of the weight is in a panel."""
        places = self._places
        return np.unique(places[places >= 0]).size == prod(self.shape)

    def packed(self, array: Array) -> Array:
        """The panels of a weight, zeros where they are padded."""
        places = self._places
        return np.where(places < 0, array.dtype.type(0), array.ravel()[places])

    def plain(self, stored: Array) -> Array:
        """The weight whose panels `stored` are."""
        places = self._places
        array = np.empty(prod(self.shape), stored.dtype)
        array[places[places >= 0]] = stored[places >= 0]
        return array.reshape(self.shape)

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        return np.concatenate([panels.places() for panels in self.products])
