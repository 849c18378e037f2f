"""The parameters of a compiled step, as the user's model has them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from niwaki.ir.packing import Packing
from niwaki.ir.weights import Array


@dataclass(frozen=True)
class Layout:
    """How the stored array comes of the model file's."""

    permutation: tuple[int, ...] | None = None
    """Of the dimensions (numpy.transpose); None: as they are."""
    orders: tuple[tuple[int, ...], ...] = ()
    """Of the channels: for each dimension the index of the file's that stands at each place; empty
    for dimensions, or a whole array, in the file's order."""
    packing: Packing | None = None
    """Of what results; None: it is stored as it is."""

    def stored(self, array: Array) -> Array:
        """The stored form of the file's `array`."""
        if self.permutation is not None:
            array = array.transpose(self.permutation)
        array = self._take(array, inverse=False)
        return array if self.packing is None else self.packing.packed(array)

    def original(self, array: Array) -> Array:
        """The file's form of the stored `array`."""
        if self.packing is not None:
            array = self.packing.plain(array)
        array = self._take(array, inverse=True)
        return array if self.permutation is None else array.transpose(np.argsort(self.permutation))

    def _take(self, array: Array, inverse: bool) -> Array:
        for axis, order in enumerate(self.orders):
            if order:
                array = np.take(array, np.argsort(order) if inverse else order, axis)
        return array


Layouts: TypeAlias = Mapping[str, Layout]
"""Name of each parameter of the user's model -> its layout."""


class Parameters(Mapping[str, Array]):
    """Name -> a copy of the parameter's value now, in the layout of the user's model."""

    def __init__(self, live: Mapping[str, Array], layouts: Layouts) -> None:
        """`live`: arrays in Niwaki's layout, which steps change."""
        self._live = live
        self._layouts = layouts

    def __getitem__(self, name: str) -> Array:
        return np.array(self._layouts.get(name, Layout()).original(self._live[name]), order="C")

    def assign(self, name: str, value: Array) -> None:
        """Overwrites a parameter with `value`, which has the user's layout."""
        self._live[name][...] = self._layouts.get(name, Layout()).stored(value)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)
