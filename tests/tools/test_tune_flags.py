"""`niwaki compile --tune` and `--tuning`: what they write, and how they fail."""

import json
from pathlib import Path

import pytest

from niwaki.tools import driver

MODEL = str(Path(__file__).parents[2] / "examples" / "digits.pt2")
HEAD = ["compile", MODEL, "--update", "head"]


def run(*arguments: str | Path) -> int:
    return driver.main([str(a) for a in arguments])


def test_measure_then_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tuning.json"
    file.write_text(
        '{"format": 1, "machines": [{"cpu": "other", "features": "", "threads": 1, "tools": "",'
        ' "choices": {"matmul 0": "gone"}}]}'
    )
    assert run(*HEAD, "--tune", file, "--json") == 0
    data = json.loads(capsys.readouterr().out)
    assert data["output"] is None
    assert data["tuned_kernels"] >= 0
    machines = json.loads(file.read_text())["machines"]
    assert len(machines) == 2
    out = [tmp_path / name for name in ("a.o", "b.o")]
    for path in out:
        assert run(*HEAD, "--tuning", file, "--emit", "object", "-o", path) == 0
    assert out[0].read_bytes() == out[1].read_bytes()
    assert "kernels by measurement" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tune", "t.json", "--target", "cortex-m4"], "measures this machine"),
        (["--tune", "t.json", "--tuning", "t.json"], "leave one out"),
        (["--tuning", "t.json", "-o", "out"], "C package"),
        (["--tune", "t.json", "--tune-seconds", "0"], "--tune-seconds"),
        ([], "-o OUT"),
    ],
)
def test_flags_that_do_not_fit(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*HEAD, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_damaged_file_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tuning.json"
    file.write_text("{")
    assert run(*HEAD, "--tune", file) == 2
    assert "is damaged" in capsys.readouterr().err
    assert file.read_text() == "{"
