"""What the code of a kernel follows from besides the kernel and the target."""

from functools import cache
from hashlib import sha256
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

_LIBRARIES = ("niwaki", "xdsl", "llvmlite")
_SOURCES = ("niwaki.ir", "niwaki.backends")


@cache
def code_fingerprint() -> str:
    """A hash of the versions of the libraries, and of Niwaki's sources that make code.

    Sources change under developers' hands without a new version.
    """
    state = sha256("\n".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    for package in _SOURCES:
        for folder in import_module(package).__path__:
            for path in sorted(Path(folder).rglob("*.py")):
                state.update(f"\n{path.relative_to(folder)}\n".encode())
                state.update(path.read_bytes())
    return state.hexdigest()
