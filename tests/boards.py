"""Boards for tests."""

from collections.abc import Mapping
from pathlib import Path


def write_board(path: Path, core: str, *regions: Mapping[str, object]) -> Path:
    """A .toml board with `regions`, each with its keys and values."""
    lines = [f'core = "{core}"']
    for region in regions:
        lines.append("[[region]]")
        lines += [f"{key} = {_toml(value)}" for key, value in region.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: object) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            return f'"{value}"'
        case _:
            return str(value)
