"""The saved state of a library: the same bytes on this machine and on every core.

Eight little-endian words, then the payload: of every entry of the state, by name, the rows that a
step writes, one after another. See "templates/saved_state.c".
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from niwaki.ir.errors import ModelFileError, UsageError
from niwaki.ir.lowered import Lowered, StorageEntry
from niwaki.ir.weights import Array

MAGIC = int.from_bytes(b"NWK\2", "little")
"""With the version in its last byte."""
_HEAD = struct.Struct("<6If")
"""Magic, hash (two words), start of the payload, its bytes, sequence number, learning rate."""
HEAD_BYTES = _HEAD.size + 4
"""With the CRC-32 of these words and of the payload."""


@dataclass(frozen=True)
class Rows:
    """Rows of the same number of bytes at equal distances in the state."""

    offset: int
    bytes: int
    stride: int
    count: int

    def pieces(self, state: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
        """The rows in `state`; writing to them writes to it."""
        for number in range(self.count):
            start = self.offset + number * self.stride
            yield state[start : start + self.bytes]


def saved_rows(lowered: Lowered) -> list[Rows]:
    """What is saved, in order."""
    return [_rows(entry) for entry in _by_name(lowered.state)]


def payload_bytes(lowered: Lowered) -> int:
    """Bytes of everything that is saved, without the head."""
    return sum(rows.bytes * rows.count for rows in saved_rows(lowered))


def model_hash(lowered: Lowered) -> str:
    """Of the model and what its steps change: the same for every target and memory layout."""
    boxes = {_whole_name(e): e.updated for e in lowered.state}
    # Constants without a name are the compiler's own, and differ between targets.
    frozen = [e for e in lowered.constants if e.kind == "parameter"]
    parts: dict[str, list[tuple[StorageEntry, Array]]] = {}
    for entries, image in ((lowered.state, lowered.state_image), (frozen, lowered.constants_image)):
        stored = image.array()
        for entry in entries:
            parts.setdefault(_whole_name(entry), []).append((entry, entry.plain(stored)))
    digest = hashlib.sha256()
    for name, of_name in sorted(parts.items()):
        array = _assembled(of_name)
        head = name, array.shape, str(array.dtype), boxes.get(name)
        digest.update(json.dumps(head).encode())
        digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def pack(lowered: Lowered, state: NDArray[np.uint8], lr: float) -> bytes:
    """The saved form of `state`, an array of the layout of `lowered`."""
    rows = saved_rows(lowered)
    payload = b"".join(piece.tobytes() for r in rows for piece in r.pieces(state))
    hash_words = _hash_words(lowered)
    head = _HEAD.pack(MAGIC, *hash_words, HEAD_BYTES, len(payload), 0, lr)
    return head + zlib.crc32(payload, zlib.crc32(head)).to_bytes(4, "little") + payload


def unpack(lowered: Lowered, data: bytes, state: NDArray[np.uint8], source: str) -> float:
    """Puts saved bytes, or those of a whole slot, into `state`; returns the learning rate.

    Raises ModelFileError if `data` (from `source`) is damaged, UsageError if it is another
    model's; `state` is unchanged then.
    """
    if len(data) < HEAD_BYTES or int.from_bytes(data[:4], "little") != MAGIC:
        raise ModelFileError(f"{source} holds no state saved by a C library of this version")
    _, *hash_words, start, size, _, lr = _HEAD.unpack_from(data)
    payload = data[start : start + size]
    checksum = zlib.crc32(payload, zlib.crc32(data[: _HEAD.size]))
    if checksum != int.from_bytes(data[_HEAD.size : HEAD_BYTES], "little"):
        raise ModelFileError(f"{source} is damaged: its checksum is wrong")
    if tuple(hash_words) != _hash_words(lowered) or len(payload) != payload_bytes(lowered):
        raise UsageError(f"{source} belongs to another model, update scheme or optimizer")
    if not 0 <= lr < float("inf"):
        raise ModelFileError(f"{source} has the learning rate {lr}")
    end = 0
    for rows in saved_rows(lowered):
        for piece in rows.pieces(state):
            piece[:] = np.frombuffer(payload, np.uint8, rows.bytes, end)
            end += rows.bytes
    return float(lr)


def _by_name(entries: Sequence[StorageEntry]) -> list[StorageEntry]:
    return sorted(entries, key=lambda entry: entry.name)


def _hash_words(lowered: Lowered) -> tuple[int, int]:
    digits = model_hash(lowered)
    return int(digits[:8], 16), int(digits[8:], 16)


def _whole_name(entry: StorageEntry) -> str:
    return entry.name if entry.part is None else entry.part.whole


def _assembled(parts: Sequence[tuple[StorageEntry, Array]]) -> Array:
    """The array of the user's parameter."""
    starts = [(0,) * a.ndim if e.part is None else e.part.starts for e, a in parts]
    ends = [tuple(map(int.__add__, s, a.shape)) for s, (_, a) in zip(starts, parts, strict=True)]
    whole = np.empty(tuple(map(max, zip(*ends, strict=True))), parts[0][1].dtype)
    for start, end, (_, array) in zip(starts, ends, parts, strict=True):
        whole[tuple(map(slice, start, end))] = array
    return whole


def _rows(entry: StorageEntry) -> Rows:
    """The leading box that a step writes, in rows that end where its last cut dimension does.

    Of dimensions between the first and the last cut one all is saved.
    """
    shape, box = entry.shape, entry.shape if entry.updated is None else entry.updated
    size = np.dtype(entry.dtype).itemsize
    cut = max((n for n in range(len(shape)) if box[n] < shape[n]), default=0)
    if cut == 0:
        whole = prod(box) * size
        return Rows(entry.offset, whole, whole, 1)
    inner = prod(shape[cut + 1 :]) * size
    count = box[0] * prod(shape[1:cut])
    return Rows(entry.offset, box[cut] * inner, shape[cut] * inner, count)
