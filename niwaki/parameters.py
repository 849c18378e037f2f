"""The parameters of a compiled step, as the user's model has them."""

from collections.abc import Iterator, Mapping
from typing import TypeAlias

import numpy as np

from niwaki.ir.weights import Array

Permutations: TypeAlias = Mapping[str, tuple[int, ...] | None]
"""Name of each parameter of the user's model -> the permutation that makes the stored array of
the model file's, None where they are the same."""


class Parameters(Mapping[str, Array]):
    """Name -> a copy of the parameter's value now, in the layout of the user's model."""

    def __init__(self, live: Mapping[str, Array], permutations: Permutations) -> None:
        """`live`: arrays in Niwaki's layout, which steps change."""
        self._live = live
        self._permutations = permutations

    def __getitem__(self, name: str) -> Array:
        array, permutation = self._live[name], self._permutations.get(name)
        if permutation is not None:
            array = array.transpose(np.argsort(permutation))
        return np.array(array, order="C")

    def assign(self, name: str, value: Array) -> None:
        """Overwrites a parameter with `value`, which has the user's layout."""
        permutation = self._permutations.get(name)
        self._live[name][...] = value if permutation is None else value.transpose(permutation)

    def __iter__(self) -> Iterator[str]:
        return iter(self._live)

    def __len__(self) -> int:
        return len(self._live)
