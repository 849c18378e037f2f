"""Files are written whole or not at all."""

from pathlib import Path

import pytest

from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError
from niwaki.printable import printable


def test_replaces_a_file(tmp_path: Path) -> None:
    path = tmp_path / "f"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o400
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.mkdir()
    with pytest.raises(UsageError, match=r"cannot write .*f: Is a directory"):
        write_atomically(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_printable() -> None:
    assert printable("conv1.weight ü") == "conv1.weight ü"
    assert printable("a\nb\x1b[2J") == "a\\nb\\x1b[2J"
