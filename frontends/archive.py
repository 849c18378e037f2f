"""Untrusted zip archives, read member by member, in memory; nothing is ever extracted."""

import struct
import zipfile
import zlib
from pathlib import PurePosixPath
from typing import BinaryIO

from niwaki.ir.errors import ModelFileError

_BROKEN = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
    OverflowError,
)
"""What zipfile raises on damaged or encrypted archives."""


class Archive:
    """The members of a zip file whose names and sizes are plausible.

    Members must be stored without compression, as torch.export writes them: what is read can
    then never be more than the file itself.
    """

    def __init__(self, file: BinaryIO, source: str) -> None:
        """Raises ModelFileError if `file` is no such archive."""
        self._source = source
        try:
            size = file.seek(0, 2)
            self._zip = zipfile.ZipFile(file)
        except _BROKEN as error:
            raise ModelFileError(f"{source}: not a readable zip archive: {error}") from None
        infos = self._zip.infolist()
        self._members = {info.filename: info for info in infos}
        if len(self._members) != len(infos):
            raise ModelFileError(f"{source}: two members of the archive have the same name")
        for info in infos:
            self._check(info)
        if sum(info.file_size for info in infos) > size:
            raise ModelFileError(f"{source}: the members claim more bytes than the archive has")

    def _check(self, info: zipfile.ZipInfo) -> None:
        path = PurePosixPath(info.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in info.orig_filename:
            raise ModelFileError(f"{self._source}: unsafe member name {info.filename!r}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ModelFileError(
                f"{self._source}: member {info.filename!r} is compressed; torch.export stores"
                " members as they are"
            )

    @property
    def names(self) -> list[str]:
        """The names of the members, in the order of the archive."""
        return list(self._members)

    def size(self, name: str) -> int:
        """The size of a member in bytes; ModelFileError if it is missing."""
        if name not in self._members:
            raise ModelFileError(f"{self._source}: member {name!r} is missing")
        return self._members[name].file_size

    def read(self, name: str) -> bytes:
        """The content of a member; ModelFileError if it is missing or damaged."""
        size = self.size(name)
        try:
            data = self._zip.read(name)
        except _BROKEN as error:
            raise ModelFileError(f"{self._source}: member {name!r}: {error}") from None
        if len(data) != size:
            raise ModelFileError(f"{self._source}: member {name!r} is truncated")
        return data
