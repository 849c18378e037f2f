"""Reads TensorProtos of untrusted models; sizes are checked before anything is allocated."""

from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Protocol

import numpy as np

from niwaki.frontends.nchw import MAX_ELEMENTS, MAX_RANK, Array
from niwaki.frontends.onnx_operands import BOOL, FLOAT, INT8, INT32, INT64, UINT8
from niwaki.ir.errors import ModelFileError, UsageError

EXTERNAL = 1
"""TensorProto.DataLocation: the content is in another file."""

_DTYPES: Mapping[int, np.dtype[np.generic]] = {
    FLOAT: np.dtype("<f4"),
    UINT8: np.dtype("u1"),
    INT8: np.dtype("i1"),
    INT32: np.dtype("<i4"),
    INT64: np.dtype("<i8"),
    BOOL: np.dtype("?"),
}


class Entry(Protocol):
    """onnx.StringStringEntryProto."""

    key: str
    value: str


class TensorProto(Protocol):
    """onnx.TensorProto."""

    name: str
    dims: Sequence[int]
    data_type: int
    raw_data: bytes
    float_data: Sequence[float]
    int32_data: Sequence[int]
    int64_data: Sequence[int]
    data_location: int
    external_data: Sequence[Entry]

    def HasField(self, field_name: str) -> bool:
        """Whether an optional field is set."""
        ...


class TensorReader:
    """Decodes tensors; external data must lie inside `folder`, the model's own."""

    def __init__(self, source: str, folder: Path) -> None:
        self._source = source
        self._folder = folder
        self._total = 0

    def read(self, proto: TensorProto) -> Array:
        """The content as f32, i8, u8, i32, i64 or bool.

        Raises UsageError for other element types, ModelFileError where the content does not have
        the size that shape and type ask for.
        """
        dtype = _DTYPES.get(proto.data_type)
        if dtype is None:
            raise UsageError(
                f"{self._source}: tensor {proto.name!r} has data type {proto.data_type}; Niwaki"
                " reads float32 and integers: export the model in float32"
            )
        shape = tuple(proto.dims)
        if len(shape) > MAX_RANK or min(shape, default=1) < 0:
            raise self._fail(proto, f"shape {list(shape[:MAX_RANK])}")
        self._total += prod(shape)
        if self._total > MAX_ELEMENTS // 4:
            raise self._fail(proto, f"a shape of {list(shape)} is absurdly large")
        flat = self._content(proto, dtype, prod(shape))
        if flat.size != prod(shape):
            raise self._fail(proto, f"{flat.size} elements do not fill the shape {list(shape)}")
        return flat.reshape(shape)

    def _fail(self, proto: TensorProto, message: str) -> ModelFileError:
        return ModelFileError(f"{self._source}: tensor {proto.name!r}: {message}")

    def _content(self, proto: TensorProto, dtype: np.dtype[np.generic], count: int) -> Array:
        if proto.data_location == EXTERNAL:
            return np.frombuffer(self._external(proto, count * dtype.itemsize), dtype)
        if proto.HasField("raw_data"):
            if len(proto.raw_data) != count * dtype.itemsize:
                raise self._fail(proto, f"{len(proto.raw_data)} bytes for {count} elements")
            return np.frombuffer(proto.raw_data, dtype)
        match proto.data_type:
            case 1:
                return np.array(proto.float_data, dtype)
            case 7:
                return np.array(proto.int64_data, dtype)
            case _:
                return np.array(proto.int32_data, np.int32).astype(dtype)

    def _external(self, proto: TensorProto, size: int) -> bytes:
        """`size` bytes of the file that the tensor names."""
        entries = {entry.key: entry.value for entry in proto.external_data}
        path = self._safe_path(proto, entries.get("location", ""))
        numbers = [entries.get("offset", "0"), entries.get("length", str(size))]
        if not all(n.isascii() and n.isdecimal() and len(n) < 20 for n in numbers):
            raise self._fail(proto, "offset and length of the external data are no numbers")
        offset, length = (int(n) for n in numbers)
        if length != size:
            raise self._fail(proto, f"{length} bytes of external data, {size} are needed")
        try:
            with path.open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise self._fail(proto, f"cannot read {path.name!r}: {error.strerror}") from None
        if len(data) != size:
            raise self._fail(proto, f"{path.name!r} ends before the external data does")
        return data

    def _safe_path(self, proto: TensorProto, location: str) -> Path:
        """The regular file `location` inside the folder, links followed."""
        parts = {*PurePosixPath(location).parts, *PureWindowsPath(location).parts}
        absolute = PurePosixPath(location).is_absolute() or PureWindowsPath(location).drive
        if not location or "\0" in location or absolute or ".." in parts:
            raise self._fail(proto, f"unsafe location {location!r} of external data")
        try:
            folder = self._folder.resolve()
            path = (folder / location).resolve()
            inside = path.is_relative_to(folder) and path.is_file()
        except (OSError, RuntimeError, ValueError) as error:
            raise self._fail(proto, f"location {location!r}: {error}") from None
        if not inside:
            raise self._fail(proto, f"no file {location!r} in the model's folder")
        return path
