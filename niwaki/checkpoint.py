"""Saved training state: a safetensors file with everything that a step changes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from niwaki.files import write_atomically
from niwaki.ir.errors import ModelFileError, UsageError
from niwaki.ir.weights import Array

SCHEMA = 1


@dataclass(frozen=True)
class Checkpoint:
    """What a file of saved training state holds."""

    arrays: Mapping[str, Array]
    lr: float


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes the file whole or not at all; UsageError if it cannot be written."""
    arrays = {name: np.array(array, order="C") for name, array in checkpoint.arrays.items()}
    metadata = {"niwaki": json.dumps({"schema": SCHEMA, "lr": checkpoint.lr})}
    write_atomically(path, save(arrays, metadata))


def read_checkpoint(path: Path, like: Mapping[str, Array]) -> Checkpoint:
    """Reads a file with the names, shapes and dtypes of `like`.

    Raises UsageError if there is no such file or it belongs to another model, ModelFileError if
    it is damaged.
    """
    try:
        # The file has the size of the state and of a header; what is far larger is another.
        expected = sum(array.nbytes for array in like.values())
        if path.stat().st_size > 2 * expected + (16 << 20):
            raise UsageError(f"{path} is much larger than the state of this model")
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    try:
        arrays = load(data)
        lr = _learning_rate(data)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} is damaged, or no file saved by Niwaki: {error}") from None
    _check_same(path, arrays, like)
    return Checkpoint(arrays, lr)


def _learning_rate(data: bytes) -> float:
    # `load` has checked the header; the library hands out no metadata of bytes.
    size = int.from_bytes(data[:8], "little")
    metadata = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["niwaki"])
    if metadata["schema"] != SCHEMA:
        raise ValueError(f"unknown schema {metadata['schema']}")
    lr = float(metadata["lr"])
    if not 0 <= lr < float("inf"):
        raise ValueError(f"learning rate {lr}")
    return lr


def _check_same(path: Path, arrays: Mapping[str, Array], like: Mapping[str, Array]) -> None:
    missing = sorted(set(like) - set(arrays))
    unknown = sorted(set(arrays) - set(like))
    if missing or unknown:
        raise UsageError(
            f"{path} belongs to another model, update scheme or optimizer: "
            f"missing {missing or 'nothing'}, unknown {unknown or 'nothing'}"
        )
    for name, array in sorted(like.items()):
        given = arrays[name]
        if given.shape != array.shape or given.dtype != array.dtype:
            raise UsageError(
                f"{path}: '{name}' is {given.dtype}{list(given.shape)}, "
                f"this model has {array.dtype}{list(array.shape)}"
            )
