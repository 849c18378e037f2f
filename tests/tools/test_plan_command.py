"""`niwaki plan`: files of minimalloc's form, plans that fit, and what it says about the others."""

import json
import sys
from pathlib import Path

import pytest

from niwaki.tools import driver

EXAMPLE = """id,lower,upper,size
b1,0,3,4
b2,3,9,4
b3,0,9,4
b4,9,21,4
b5,0,21,4
"""

# The smallest that greedy plans miss: they end at 10 bytes, 9 do.
HARD = """id,lower,upper,size
a,3,6,2
b,5,7,4
c,4,5,3
d,4,8,1
e,3,5,3
f,2,4,4
"""


def run(*arguments: str | Path) -> int:
    return driver.main(["plan", *map(str, arguments)])


@pytest.fixture
def example(tmp_path: Path) -> Path:
    path = tmp_path / "example.csv"
    path.write_text(EXAMPLE)
    return path


@pytest.mark.parametrize("solver", ["search", "greedy", "cpsat"])
def test_writes_offsets(example: Path, tmp_path: Path, solver: str) -> None:
    out = tmp_path / "out.csv"
    assert run(example, "--capacity", "12", "--solver", solver, "-o", out) == 0
    header, *rows = out.read_text().splitlines()
    assert header == "id,lower,upper,size,offset"
    assert [row.rsplit(",", 1)[0] for row in rows] == EXAMPLE.splitlines()[1:]
    offsets = {row.split(",")[0]: int(row.split(",")[-1]) for row in rows}
    assert {offsets["b1"], offsets["b3"], offsets["b5"]} == {0, 4, 8}
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["example.csv", "out.csv"]


def test_prints(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(example, "--capacity", "100") == 0
    output = capsys.readouterr()
    assert output.out.startswith("5 buffers fit: arena 12 bytes, lower bound 12, capacity 100")
    assert output.err == ""


def test_json(example: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(example, "--capacity", "12", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schema"], result["command"]) == (1, "plan")
    assert (result["arena_bytes"], result["lower_bound_bytes"]) == (12, 12)
    assert len(result["offsets"]) == result["buffers"] == 5


def test_does_not_fit(example: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.csv"
    assert run(example, "--capacity", "11", "-o", out) == 4
    error = capsys.readouterr().err
    assert "smallest plan found takes 12, and 12 are live" in error
    assert not out.exists()


def test_keeps_other_columns_alignment_and_pins(tmp_path: Path) -> None:
    """With `y` at 8, only one plan has 16 bytes."""
    path, out = tmp_path / "p.csv", tmp_path / "o.csv"
    path.write_text(
        "\ufeffname, id,lower,upper,size,offset,alignment\r\n"
        '"a, b",x,-5,2,3,,4\r\n'
        "\r\n"
        "c,y,0,2,4,8,\r\n"
        "d,z,1,2,8,,8\r\n"
    )
    assert run(path, "--capacity", "16", "-o", out) == 0
    assert out.read_text() == (
        "name,id,lower,upper,size,alignment,offset\n"
        '"a, b",x,-5,2,3,4,12\n'
        "c,y,0,2,4,,8\n"
        "d,z,1,2,8,8,0\n"
    )


def test_no_buffers(tmp_path: Path) -> None:
    path, out = tmp_path / "p.csv", tmp_path / "o.csv"
    path.write_text("id,lower,upper,size\n")
    assert run(path, "--capacity", "0", "-o", out) == 0
    assert out.read_text() == "id,lower,upper,size,offset\n"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("b,0,2", "line 3: 3 values for 4 columns"),
        ("b,0,2,4,5", "line 3: 5 values for 4 columns"),
        ("b,0,2,x", "line 3: size must be a whole number of at most 15 digits, not 'x'"),
        ("b,0,2,1e3", "not '1e3'"),
        ("b,0,2,", "not ''"),
        ("b,0,2,\x1b[2J", "not '\\x1b[2J'"),
        ("b,0,2,1234567890123456", "at most 15 digits"),
        ("b,0,2,-4", "line 3: size must be at least 0, not -4"),
        ("b,2,2,4", "line 3: lower must be less than upper, they are 2 and 2"),
        ("a,2,3,4", "line 3: id 'a' is taken by line 2"),
        ("\n".join(f"{i},0,1,999999999999999" for i in range(10)), "add up to more than 2**53"),
        ("\n".join(f"{i},0,1,1" for i in range(50_000)), "50001 buffers, the most are 50000"),
        ('b,0,2,"4', "unexpected end of data"),
        ("x" * 200_000, "field larger than field limit"),
    ],
)
def test_bad_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], rows: str, message: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(f"id,lower,upper,size\na,0,1,4\n{rows}\n")
    assert run(path, "--capacity", "10") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'id'"),
        ("id,lower,upper\n", "no column 'size'"),
        ("id,lower,upper,size,size\n", "names a column twice"),
        ("id,lower,upper,size,gaps\na,0,9,4,1-2\n", "gaps in a lifetime are not supported"),
        ("id,lower,upper,size,alignment\na,0,9,4,0\n", "alignment must be at least 1"),
        ("id,lower,upper,size,offset\na,0,9,4,-1\n", "offset must be at least 0"),
        ("id,lower,upper,size,alignment,offset\na,0,9,4,8,4\n", "no multiple of alignment 8"),
        ("id,lower,upper,size,offset\na,0,9,4,0\nb,8,9,4,3\n", "in the column 'offset' overlap"),
    ],
)
def test_bad_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(text)
    assert run(path, "--capacity", "10") == 2
    assert message in capsys.readouterr().err


def test_unreadable_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.csv", "--capacity", "10") == 2
    assert run(tmp_path, "--capacity", "10") == 2
    (tmp_path / "p.csv").write_bytes(b"\xff\x00")
    assert run(tmp_path / "p.csv", "--capacity", "10") == 2
    (tmp_path / "p.csv").write_bytes(b"id,lower,upper,size\n" + b"\n" * (17 << 20))
    assert run(tmp_path / "p.csv", "--capacity", "10") == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all("p.csv" in line or "cannot read" in line for line in lines)


@pytest.mark.parametrize("flags", [["--capacity", "-1"], ["--capacity", "1", "--nodes", "-1"]])
def test_negative_numbers(
    example: Path, capsys: pytest.CaptureFixture[str], flags: list[str]
) -> None:
    assert run(example, *flags) == 2
    assert "must not be negative" in capsys.readouterr().err


def test_cpsat_without_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for, and greedy plans do not do."""
    path = tmp_path / "p.csv"
    path.write_text(HARD)
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    assert run(path, "--capacity", "9", "--solver", "cpsat") == 2
    assert "pip install 'niwaki[solver]'" in capsys.readouterr().err


def test_the_search_fits_what_greedy_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "p.csv"
    path.write_text(HARD)
    assert run(path, "--capacity", "9", "--solver", "greedy") == 4
    assert run(path, "--capacity", "9", "--solver", "search", "--nodes", "0") == 4
    assert "or more --nodes" in capsys.readouterr().err
    assert run(path, "--capacity", "9", "--solver", "search") == 0
