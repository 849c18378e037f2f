"""The weight store: arrays live here, not in the IR; an op has name, type and content hash."""

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


def content_hash(array: Array) -> str:
    """SHA-256 (hex, first 16 digits) of dtype, shape and little-endian bytes of `array`."""
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class WeightStore(Mapping[str, Array]):
    """Named arrays with content hashes. Arrays are read-only once stored."""

    def __init__(self) -> None:
        self._arrays: dict[str, Array] = {}
        self._hashes: dict[str, str] = {}

    def add(self, name: str, array: Array) -> str:
        """Stores a read-only contiguous copy of `array` under `name`; returns its content hash.

        Raises KeyError if the name is taken by another content.
        """
        stored = np.array(array, order="C")
        stored.flags.writeable = False
        digest = content_hash(stored)
        if self._hashes.get(name, digest) != digest:
            raise KeyError(f"weight '{name}' is stored already, with another content")
        self._arrays[name] = stored
        self._hashes[name] = digest
        return digest

    def replace(self, name: str, array: Array) -> str:
        """Stores `array` in place of the content of `name`; returns the new content hash.

        Raises KeyError if there is no such name.
        """
        del self._arrays[name], self._hashes[name]
        return self.add(name, array)

    def hash(self, name: str) -> str:
        """The content hash of `name`."""
        return self._hashes[name]

    def copy(self) -> "WeightStore":
        """A store that shares the (read-only) arrays."""
        other = WeightStore()
        other._arrays = dict(self._arrays)
        other._hashes = dict(self._hashes)
        return other

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)
