"""Memories of a board: regions as plain data, and their description in a .toml file."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from niwaki.ir.errors import UsageError

_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class MemoryRegion:
    """One memory of a board."""

    name: str
    """A lower-case C identifier; part of the names in generated code."""
    bytes: int
    cost: float = 1.0
    """Of an access to one byte, relative to the fastest region."""
    read_only: bool = False
    """Flash: holds code and frozen weights."""
    address: int | None = None
    """For the linker script of the example; None: the user has a linker script."""
    reserved: int = 0
    """Bytes that the rest of the program keeps: its data, its stack, its code."""

    def __post_init__(self) -> None:
        _check(_NAME.fullmatch(self.name) is not None, f"region name '{self.name}' must be a-z0-9_")
        _check(self.bytes > 0, f"region '{self.name}' must have bytes > 0")
        _check(self.cost > 0, f"region '{self.name}' must have a cost > 0")
        _check(0 <= self.reserved <= self.bytes, f"region '{self.name}' reserves more than it has")

    @property
    def capacity(self) -> int:
        """Bytes for the model."""
        return self.bytes - self.reserved


@dataclass(frozen=True)
class Board:
    """A core with its memories."""

    core: str
    """The name of a target."""
    regions: tuple[MemoryRegion, ...]
    """The first writable one holds the rest of the program as well: its data and its stack."""

    def __post_init__(self) -> None:
        names = [r.name for r in self.regions]
        _check(len(set(names)) == len(names), "two regions have the same name")
        _check(any(not r.read_only for r in self.regions), "a board needs a writable region")
        _check(
            sum(r.read_only for r in self.regions) <= 1,
            "a board has one read-only region at most: the one that holds frozen weights",
        )
        _check(
            len({r.address is None for r in self.regions}) == 1,
            "give the address of every region, or of none",
        )


def read_board(path: Path) -> Board:
    """The board that a .toml file describes.

    `core = "NAME"`, and a table `[[region]]` with the fields of MemoryRegion for each memory.

    Raises UsageError that names what is wrong in the file.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"cannot read the board {path}: {error}") from None
    try:
        _check_keys(table, _BOARD_KEYS, {"core", "region"}, "a board")
        return Board(table["core"], tuple(map(_region, table["region"])))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


_BOARD_KEYS = {"core": (str,), "region": (list,)}
_REGION_KEYS = {
    "name": (str,),
    "bytes": (int,),
    "cost": (int, float),
    "read_only": (bool,),
    "address": (int,),
    "reserved": (int,),
}


def _region(table: object) -> MemoryRegion:
    if not _is_table(table):
        raise UsageError("'region' must be written as [[region]]")
    _check_keys(table, _REGION_KEYS, {"name", "bytes"}, "a region")
    return MemoryRegion(**table)


def _is_table(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _check_keys(
    table: Mapping[str, object],
    kinds: Mapping[str, tuple[type, ...]],
    needed: set[str],
    what: str,
) -> None:
    unknown = sorted(set(table) - set(kinds))
    _check(not unknown, f"unknown key(s) {', '.join(unknown)}; {what} has {', '.join(kinds)}")
    missing = sorted(needed - set(table))
    _check(not missing, f"{what} needs {', '.join(missing)}")
    for key, value in table.items():
        # Not isinstance: true is no number of bytes.
        _check(type(value) in kinds[key], f"'{key}' has the wrong type")


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise UsageError(message)
