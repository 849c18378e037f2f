"""Boards in .toml files become targets with memory regions, or clear errors."""

from pathlib import Path

import pytest

from niwaki.backends.regions import MemoryRegion, read_board
from niwaki.backends.targets import get_target
from niwaki.ir.errors import UsageError
from tests.boards import write_board

SRAM = {"name": "sram", "bytes": 1 << 18, "cost": 2, "address": 0x20010000, "reserved": 4096}
DTCM = {"name": "dtcm", "bytes": 1 << 16, "address": 0x20000000}
FLASH = {"name": "flash", "bytes": 1 << 20, "cost": 4, "read_only": True, "address": 0}


def test_a_board_is_its_core_with_regions(tmp_path: Path) -> None:
    path = write_board(tmp_path / "board.toml", "cortex-m7", SRAM, DTCM, FLASH)
    target, core = get_target(str(path)), get_target("cortex-m7")
    assert (target.cpu, target.cc, target.board) == (core.cpu, core.cc, core.board)
    assert [region.name for region in target.writable] == ["dtcm", "sram"]
    assert target.read_only == MemoryRegion("flash", 1 << 20, 4, read_only=True, address=0)
    assert target.writable[1].capacity == (1 << 18) - 4096
    assert core.regions == ()
    assert not target.jit


def test_a_board_around_this_machine_runs_here(tmp_path: Path) -> None:
    path = write_board(tmp_path / "board.toml", "host", {"name": "ram", "bytes": 100})
    assert get_target(str(path)).jit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("core = 3", "'core' has the wrong type|a board needs region"),
        ('region = [{name = "a", bytes = 1}]', "a board needs core"),
        ('core = "host"\nregion = []', "needs a writable region"),
        ('core = "host"\nregion = ["a"]', r"written as \[\[region\]\]"),
        ('core = "host"\nspeed = 1\nregion = []', r"unknown key\(s\) speed; a board has core, re"),
        ('core = "host"\nregion = [{name = "a"}]', "a region needs bytes"),
        ('core = "host"\nregion = [{name = "a", bytes = true}]', "'bytes' has the wrong type"),
        ('core = "host"\nregion = [{name = "a", bytes = 0}]', "'a' must have bytes > 0"),
        ('core = "host"\nregion = [{name = "a b", bytes = 1}]', "region name 'a b'"),
        ('core = "host"\nregion = [{name = "a", bytes = 1, cost = 0}]', "a cost > 0"),
        ('core = "host"\nregion = [{name = "a", bytes = 1, reserved = 2}]', "reserves more"),
        (
            'core = "host"\nregion = [{name = "a", bytes = 1}, {name = "a", bytes = 2}]',
            "two regions have the same name",
        ),
        ('core = "host"\nregion = [{name = "a", bytes = 1, read_only = true}]', "writable region"),
        (
            'core = "host"\nregion = [{name = "a", bytes = 1, address = 0}, '
            '{name = "b", bytes = 1}]',
            "the address of every region, or of none",
        ),
        (
            'core = "host"\nregion = [{name = "a", bytes = 1}, '
            '{name = "b", bytes = 1, read_only = true}, '
            '{name = "c", bytes = 1, read_only = true}]',
            "one read-only region at most",
        ),
        ("core = ", "cannot read the board"),
    ],
)
def test_faults_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "board.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as failure:
        read_board(path)
    assert str(path) in str(failure.value)


def test_a_missing_file_and_an_unknown_core(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read the board"):
        get_target(str(tmp_path / "none.toml"))
    path = write_board(tmp_path / "board.toml", "z80", DTCM)
    with pytest.raises(UsageError, match="unknown target 'z80'"):
        get_target(str(path))
    with pytest.raises(UsageError, match="must be a target, not a board"):
        get_target(str(write_board(tmp_path / "other.toml", str(path), DTCM)))
