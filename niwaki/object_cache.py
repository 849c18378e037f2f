"""Compiled kernels, kept on disk from one process to the next."""

import os
import re
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError

VARIABLE = "NIWAKI_CACHE"
"""Environment variable: a folder for the cache, or "off"."""
LIMIT_BYTES = 256 << 20
_MAGIC = b"niwaki object 1\n"
_DIGEST_BYTES = 32
_SUFFIX = ".object"
_FILE = re.compile(rf"[0-9a-f]{{64}}{_SUFFIX}|\.[0-9a-f]{{64}}{_SUFFIX}\..*")
"""Objects, and what an interrupted write left: nothing else in the folder is touched."""


def default_cache() -> "ObjectCache | None":
    """The cache that this process uses; None if it is switched off."""
    folder = cache_folder(os.environ)
    return None if folder is None else ObjectCache(folder)


def cache_folder(environment: Mapping[str, str]) -> Path | None:
    """Where objects are kept; None: nowhere.

    `environment`: of NIWAKI_CACHE, XDG_CACHE_HOME and HOME, the first that says where.
    """
    chosen = environment.get(VARIABLE, "")
    if chosen == "off":
        return None
    if chosen:
        return Path(chosen)
    base = environment.get("XDG_CACHE_HOME", "")
    # A relative path there is to be ignored (XDG Base Directory Specification).
    if os.path.isabs(base):
        return Path(base) / "niwaki"
    home = environment.get("HOME", "")
    return Path(home) / ".cache" / "niwaki" if home else None


class ObjectCache:
    """Objects by key, a file each, below a bound on all of them together.

    Several processes may use one folder. A folder that cannot be written still serves what is in
    it; a file that is damaged counts as missing.
    """

    def __init__(self, folder: Path, limit_bytes: int = LIMIT_BYTES) -> None:
        """Keys are hashes, 64 hexadecimal digits. The folder is made when it is needed."""
        self.folder = folder
        self.limit_bytes = limit_bytes

    def get(self, key: str) -> bytes | None:
        """The object under `key`, which now counts as used; None if there is none."""
        path = self._path(key)
        try:
            data = path.read_bytes()
        except OSError:
            return None
        start = len(_MAGIC) + _DIGEST_BYTES
        code = data[start:]
        if data[:start] != _MAGIC + sha256(code).digest():
            return None
        with suppress(OSError):
            os.utime(path)
        return code

    def add(self, objects: Mapping[str, bytes]) -> None:
        """Keeps `objects`, and removes what was not used for longest while there is too much.

        Does nothing where the folder cannot be written: a cache is no reason to fail.
        """
        with suppress(OSError, UsageError):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            for key, code in objects.items():
                data = _MAGIC + sha256(code).digest() + code
                write_atomically(self._path(key), data)
        self._trim()

    def size(self) -> tuple[int, int]:
        """(objects, their bytes)."""
        files = self._files()
        return len(files), sum(size for _, size, _ in files)

    def _trim(self) -> None:
        files = sorted(self._files())
        excess = sum(size for _, size, _ in files) - self.limit_bytes
        for _, size, path in files:
            if excess <= 0:
                return
            # Another process may have removed it already.
            with suppress(OSError):
                os.unlink(path)
            excess -= size

    def _files(self) -> list[tuple[int, int, str]]:
        """(nanoseconds of the last use, bytes, path)."""
        found: list[tuple[int, int, str]] = []
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                if _FILE.fullmatch(entry.name) is None:
                    continue
                with suppress(OSError):
                    status = entry.stat()
                    found.append((status.st_mtime_ns, status.st_size, entry.path))
        return found

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}{_SUFFIX}"
