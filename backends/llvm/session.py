"""A compiled program loaded into this process, with its memory."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from niwaki.backends.llvm.compile import LoadedObject, pointer_block
from niwaki.ir.image import Image
from niwaki.ir.lowered import EntryPoint, Lowered
from niwaki.ir.weights import Array

ALIGNMENT = 64


def aligned_bytes(size: int) -> NDArray[np.uint8]:
    """`size` uninitialised bytes that start at a multiple of 64."""
    block = np.empty(size + ALIGNMENT, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + size]


class Session:
    """Runs entry points on one arena, one state and one set of constants.

    Each memory region of a board is a piece of the arena with a place of its own.
    """

    def __init__(
        self, lowered: Lowered, code: bytes, kernels: Sequence[bytes] = (), threads: int = 1
    ) -> None:
        """`code`: the object file of `lowered` for this machine, for `threads` threads; `kernels`:
        what it calls into."""
        self.lowered = lowered
        self.arena = aligned_bytes(lowered.arena_bytes)
        self.state = _filled(lowered.state_image)
        self.constants = _filled(lowered.constants_image)
        self._loaded = LoadedObject(code, self._symbols(), kernels, threads)
        self._ports = {name: _Ports(entry, self) for name, entry in lowered.entries.items()}

    def _symbols(self) -> list[str]:
        """The entry points of the code."""
        return list(self.lowered.entries)

    def arena_parts(self) -> list[NDArray[np.uint8]]:
        """The arena by region, in the order of the argument block."""
        sizes = [r.arena_bytes for r in self.lowered.arena_regions] or [len(self.arena)]
        return np.split(self.arena, np.cumsum(sizes)[:-1])

    def state_parts(self) -> list[NDArray[np.uint8]]:
        """The state by region, in the order of the argument block."""
        sizes = [part.size for part in self.lowered.state_regions] or [len(self.state)]
        return np.split(self.state, np.cumsum(sizes)[:-1])

    def reset(self) -> None:
        """Brings the state back to what it was compiled with."""
        self.state[:] = self.lowered.state_image.array()

    def close(self) -> None:
        """Ends the threads; `run` starts them again."""
        self._loaded.stop()

    def run(self, name: str, inputs: Sequence[Array]) -> list[Array]:
        """Runs entry point `name`; returns fresh arrays. Shapes must be those of its ports."""
        ports = self._ports[name]
        for port, array in zip(ports.inputs, inputs, strict=True):
            np.copyto(port, array, casting="same_kind")
        self._loaded.functions[name](ports.address)
        return [output.copy() for output in ports.outputs]


class _Ports:
    """The arrays that an entry point reads and writes; their addresses never change."""

    def __init__(self, entry: EntryPoint, session: Session) -> None:
        self.inputs = [_port_array(p.shape, p.dtype) for p in entry.inputs]
        self.outputs = [_port_array(p.shape, p.dtype) for p in entry.outputs]
        spaces = (*session.arena_parts(), *session.state_parts(), session.constants)
        self._block = pointer_block([*spaces, *self.inputs, *self.outputs])
        self.address = self._block.ctypes.data


def _filled(image: Image) -> NDArray[np.uint8]:
    space = aligned_bytes(len(image))
    space[:] = image.array()
    return space


def _port_array(shape: tuple[int, ...], dtype: str) -> Array:
    kind = np.dtype(dtype)
    size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
    return aligned_bytes(size).view(kind).reshape(shape)
