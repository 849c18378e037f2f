"""What a memory space of a program holds at first, kept in a file instead of in memory."""

import mmap
import os
import tempfile
import weakref
from collections.abc import Callable
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray


class Image:
    """Bytes in a file without a name, which goes with this object and its arrays.

    The file lies in the folder for temporary files; where none can be written, in memory.
    """

    def __init__(self, size: int, fill: Callable[[BinaryIO], object]) -> None:
        """`fill` writes to the file, which is `size` zeros at first; it may be asked twice."""
        self._size = size
        try:
            self._file = _filled(tempfile.TemporaryFile(), size, fill)  # noqa: SIM115
        except OSError:
            memory = os.memfd_create("image", os.MFD_CLOEXEC)
            self._file = _filled(os.fdopen(memory, "w+b"), size, fill)
        weakref.finalize(self, self._file.close)

    @classmethod
    def of(cls, content: bytes) -> Self:
        """The image that is `content`."""
        return cls(len(content), lambda file: file.write(content))

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        return self.array().tobytes()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self).of, (bytes(self),)

    def array(self) -> NDArray[np.uint8]:
        """The bytes, read-only, as uint8 [size]: pages of the file while the array lives."""
        if not self._size:
            return np.empty(0, np.uint8)
        pages = mmap.mmap(self._file.fileno(), self._size, access=mmap.ACCESS_READ)
        return np.frombuffer(pages, np.uint8)


def _filled(file: BinaryIO, size: int, fill: Callable[[BinaryIO], object]) -> BinaryIO:
    try:
        file.truncate(size)
        fill(file)
        file.flush()
    except BaseException:
        file.close()
        raise
    return file
