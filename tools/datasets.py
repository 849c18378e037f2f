"""Reads training data: a .npz file with the arrays `x` and `y`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from niwaki.ir.errors import UsageError
from niwaki.ir.weights import Array

_REMEDY = "write one with numpy.savez(path, x=x, y=y)"


def load_dataset(path: Path) -> tuple[Array, Array]:
    """(x, y), with as many samples each. Never unpickles.

    Raises UsageError if the file is damaged or holds something else.
    """
    try:
        # numpy.load leaves a file that it opened itself open when it fails.
        with path.open("rb") as stream:
            x, y = _arrays(path, np.load(stream, allow_pickle=False))
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    if x.ndim == 0 or y.ndim == 0 or len(x) != len(y):
        raise UsageError(
            f"{path}: x and y must have as many samples each, their shapes are "
            f"{list(x.shape)} and {list(y.shape)}"
        )
    return x, y


def _arrays(path: Path, file: object) -> tuple[Array, Array]:
    if not isinstance(file, np.lib.npyio.NpzFile):
        raise UsageError(f"{path} is no .npz file: {_REMEDY}")
    missing = {"x", "y"} - set(file.files)
    if missing:
        held = ", ".join(map(repr, file.files)) or "nothing"
        raise UsageError(f"{path} has no array '{min(missing)}', it holds {held}: {_REMEDY}")
    return file["x"], file["y"]
