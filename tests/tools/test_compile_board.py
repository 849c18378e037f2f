"""`niwaki compile --target board.toml`."""

import json
from pathlib import Path

import pytest

from niwaki.tools.driver import main
from tests.boards import write_board

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "examples" / "tiny.pt2")
DTCM = {"name": "dtcm", "bytes": 2048, "address": 0x20000000}
SRAM = {"name": "sram", "bytes": 65536, "cost": 2, "address": 0x20010000}


def test_regions_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = str(write_board(tmp_path / "board.toml", "cortex-m7", SRAM, DTCM))
    out = tmp_path / "out"
    assert main(["compile", MODEL, "--target", board, "-o", str(out), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    sram, dtcm = result["regions"]
    assert (sram["name"], dtcm["name"]) == ("sram", "dtcm")
    assert 0 < dtcm["arena_bytes"] + dtcm["state_bytes"] <= dtcm["capacity"] == 2048
    assert sram["state_bytes"] + dtcm["state_bytes"] == result["state_bytes"]
    assert (
        "dtcm (rwx) : ORIGIN = 0x20000000, LENGTH = 2048" in (out / "platform/link.ld").read_text()
    )


def test_the_example_board(tmp_path: Path) -> None:
    board = str(ROOT / "examples" / "board.toml")
    assert main(["compile", MODEL, "--target", board, "-o", str(tmp_path / "out")]) == 0


def test_a_board_that_is_too_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = str(write_board(tmp_path / "board.toml", "cortex-m7", {**DTCM, "bytes": 256}))
    out = tmp_path / "out"
    assert main(["compile", MODEL, "--target", board, "-o", str(out)]) == 4
    assert "dtcm has 256 bytes" in capsys.readouterr().err
    assert not out.exists()


def test_a_board_that_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    board = str(write_board(tmp_path / "board.toml", "cortex-m7", {"name": "dtcm"}))
    assert main(["compile", MODEL, "--target", board, "-o", str(tmp_path / "out")]) == 2
    assert "a region needs bytes" in capsys.readouterr().err
