"""Writes a lowered program as a folder of C files."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from niwaki.backends.c.contract import Contract, fill
from niwaki.backends.c.example import TestVectors, main_file, vectors_header
from niwaki.backends.c.names import check_prefix
from niwaki.backends.c.toolchain import (
    STRICT,
    device_file,
    emulator_command,
    firmware_flags,
    link_script,
)
from niwaki.backends.targets import Target, get_target
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered

PACKAGES = ("plain", "cmake")
_MANIFEST = "niwaki-package.json"


def write_c(
    lowered: Lowered,
    directory: Path,
    package: str = "plain",
    name: str = "model",
    options: str = "",
    learning_rate: float = 0.01,
    vectors: TestVectors | None = None,
) -> Path:
    """Writes the C package of `lowered` to `directory`, whole or not at all; returns the folder.

    `name` starts every file and identifier, `options` is a line for the header, `learning_rate`
    the initial one. Raises UsageError if `package` is unknown, `name` is no C identifier or
    `directory` holds anything but an unchanged package of Niwaki; DoesNotFitError if a buffer is
    too large for 32-bit indices.
    """
    if package not in PACKAGES:
        raise UsageError(f"unknown package '{package}': use {', '.join(PACKAGES)}")
    check_prefix(name)
    _check_replaceable(directory)
    texts = package_files(lowered, package, name, options, learning_rate, vectors)
    _write_folder(directory, texts)
    return directory


def package_files(
    lowered: Lowered,
    package: str,
    name: str,
    options: str,
    learning_rate: float,
    vectors: TestVectors | None,
) -> dict[str, str]:
    """Path inside the package -> text."""
    contract = Contract(lowered, name, options, learning_rate)
    target = get_target(lowered.target_name)
    texts = {
        f"{name}.h": contract.header(),
        f"{name}.c": contract.code(),
        f"{name}_data.h": contract.data_header(),
        f"{name}_data.c": contract.data(),
        f"{name}_vectors.h": vectors_header(contract, vectors),
        "main.c": main_file(contract, vectors),
        **_platform_files(target),
    }
    commands = "\n".join(_commands(name, target))
    notes = ("" if target.board is None else _BOARD_NOTE) + _region_note(contract)
    texts["README.md"] = fill(
        "readme.txt", {**contract.names, "commands": commands, "notes": notes}
    )
    if package == "cmake":
        texts["CMakeLists.txt"] = fill("CMakeLists.txt", contract.names)
    return texts


_BOARD_NOTE = """\
The counts are instructions under QEMU, not cycles. `platform/link.ld` gives the program the RAM
that this target has: what does not fit is an error of the linker.
"""


def _region_note(contract: Contract) -> str:
    if not contract.regions:
        return ""
    sections = ", ".join(f"`.bss.{region}`" for region in contract.regions)
    macros = ", ".join(f"`{contract.prefix.upper()}_IN_{r.upper()}`" for r in contract.regions)
    return f"""\
`main.c` has an array for the arena and one for the state in each memory of the board. Their
sections are {sections}; the macros {macros} put them elsewhere.
"""


def _platform_files(target: Target) -> dict[str, str]:
    names = ["platform.h", "report.c", "platform_linux.c"]
    if target.board is not None:
        names = ["platform.h", "report.c", "platform_board.c", "board.h", "startup.c"]
    texts = {f"platform/{n}": device_file(n).read_text(encoding="utf-8") for n in names}
    if target.board is not None:
        texts["platform/link.ld"] = link_script(target)
    return texts


def _commands(name: str, target: Target) -> list[str]:
    sources = f"{name}.c {name}_data.c main.c platform/*.c"
    flags = " ".join(STRICT)
    cc = " ".join(target.cc)
    if target.board is None:
        build = f"{cc} {flags} -O2 -Iplatform {sources} -o {name} -lm"
        return [build, " ".join([*target.emulator, f"./{name}"])]
    board = " ".join(firmware_flags(target))
    build = f"{cc} {flags} {board} -Iplatform -Tplatform/link.ld {sources} -o {name}.elf -lm"
    return [build, " ".join(emulator_command(target, f"{name}.elf"))]


def _check_replaceable(directory: Path) -> None:
    """UsageError if writing would destroy anything that Niwaki did not write."""
    if not directory.exists():
        return
    if not directory.is_dir():
        raise UsageError(f"{directory} is a file: give a folder to write the package to")
    found = {p for p in directory.rglob("*") if not p.is_dir() or p.is_symlink()}
    written = _manifest(directory)
    for path in sorted(found):
        key = path.relative_to(directory).as_posix()
        if key == _MANIFEST and written:
            continue
        if path.is_symlink() or written.get(key) != _digest(path.read_bytes()):
            raise UsageError(
                f"{directory} holds '{key}', which Niwaki did not write or which was changed "
                "since: give an empty folder, or move that file away"
            )


def _manifest(directory: Path) -> Mapping[str, str]:
    """The files of the package in `directory` and their digests; empty if it holds none."""
    try:
        manifest = json.loads((directory / _MANIFEST).read_text(encoding="utf-8"))
        return {str(k): str(v) for k, v in manifest["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_folder(directory: Path, texts: Mapping[str, str]) -> None:
    """Makes the folder beside its place, then moves it there."""
    directory = directory.absolute()
    files = {path: _digest(text.encode()) for path, text in sorted(texts.items())}
    manifest = json.dumps({"schema": 1, "tool": "niwaki", "files": files}, indent=2) + "\n"
    fresh = directory.with_name(f".{directory.name}.{os.getpid()}.new")
    old = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    try:
        fresh.mkdir(parents=True)
        for path, text in {**texts, _MANIFEST: manifest}.items():
            place = fresh / path
            place.parent.mkdir(exist_ok=True)
            place.write_text(text, encoding="utf-8", newline="\n")
        if directory.exists():
            directory.rename(old)
        fresh.rename(directory)
    except OSError as error:
        if old.exists() and not directory.exists():
            old.rename(directory)
        raise UsageError(f"cannot write the package to {directory}: {error}") from None
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
