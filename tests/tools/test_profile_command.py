"""`niwaki profile`: what it prints and writes, and how it fails."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from niwaki.backends.llvm.machine_limits import MachineLimits
from niwaki.profiling import CallProfile, Profile
from niwaki.tools import driver
from niwaki.tools.profile_command import table
from niwaki.tools.profile_trace import trace_json

MODEL = str(Path(__file__).parents[2] / "examples" / "digits.pt2")
SHORT = ["profile", MODEL, "--update", "head", "--repetitions", "2"]

PROFILE = Profile(
    (
        CallProfile("conv2d_0", "conv2d", "conv (m.py:3)", 3e-6, 3000, 100, 1e-6),
        CallProfile("copy_0", "copy", "", 1e-6, 0, 4000, 1e-6),
        CallProfile("conv2d_1", "conv2d", "", 2e-6, 1000, 100, 1e-6),
    ),
    8e-6,
    MachineLimits(3e9, {1000: 4e9, 2000: 2e9}),
    5,
)


def run(*arguments: str | Path) -> int:
    return driver.main([str(a) for a in arguments])


def slices(profile: Profile) -> list[dict[str, Any]]:
    events = json.loads(trace_json(profile, "m.onnx"))["traceEvents"]
    return [event for event in events if event["ph"] == "X"]


@pytest.mark.parametrize("threads", [1, 2])
def test_json_adds_up(threads: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*SHORT, "--json", "--threads", str(threads)) == 0
    data = json.loads(capsys.readouterr().out)
    assert set(data) == {
        "schema",
        "command",
        "repetitions",
        "step_seconds",
        "call_seconds",
        "rest_seconds",
        "roofline_share",
        "machine",
        "calls",
    }
    assert (data["schema"], data["command"], data["repetitions"]) == (1, "profile", 2)
    for call in data["calls"]:
        assert set(call) == {
            "kernel",
            "op",
            "place",
            "seconds",
            "flops",
            "bytes",
            "least_seconds",
            "flops_per_second",
            "bytes_per_second",
            "roofline_share",
        }
    total = sum(call["seconds"] for call in data["calls"])
    assert data["call_seconds"] == pytest.approx(total)
    assert data["rest_seconds"] == pytest.approx(data["step_seconds"] - total)
    assert [set(level) for level in data["machine"]["bytes_per_second"]]
    assert {"conv2d", "matmul"} <= {call["op"] for call in data["calls"]}


def test_files_are_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace, picture = tmp_path / "t.json", tmp_path / "p.png"
    assert run(*SHORT, "--trace", trace, "--picture", picture) == 0
    assert json.loads(trace.read_bytes())["otherData"]["title"] == "digits.pt2"
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.endswith(f"written: {trace}\nwritten: {picture}\n")


def test_the_table_lists_the_slowest_calls_the_operations_and_the_rest() -> None:
    head, columns, *lines = table(PROFILE, 2)
    assert head == ("this machine: 3.0 GFLOP/s, 4.0 GB/s in the smallest cache, 2.0 GB/s in memory")
    assert columns.endswith("slowest calls")
    assert [line.split() for line in lines] == [
        ["3.00", "37.5%", "1.0", "0.0", "33%", "conv2d_0,", "conv", "(m.py:3)"],
        ["2.00", "25.0%", "0.5", "0.1", "50%", "conv2d_1"],
        [*columns.split()[:-2], "by", "operation"],
        ["5.00", "62.5%", "0.8", "0.0", "40%", "conv2d", "x", "2"],
        ["1.00", "12.5%", "0.0", "4.0", "100%", "copy", "x", "1"],
        ["6.00", "75.0%", "0.7", "0.7", "50%", "all", "calls"],
        ["2.00", "25.0%", "the", "rest:", "inputs,", "outputs,", "Python"],
        ["8.00", "100.0%", "the", "step"],
    ]


def test_calls_follow_each_other_in_the_trace_within_the_step() -> None:
    step, *calls = slices(PROFILE)
    assert (step["ts"], step["dur"]) == (0.0, pytest.approx(8.0))
    assert [call["name"] for call in calls] == ["conv2d_0", "copy_0", "conv2d_1"]
    assert [call["ts"] for call in calls] == pytest.approx([0.0, 3.0, 4.0])
    assert [call["dur"] for call in calls] == pytest.approx([3.0, 1.0, 2.0])
    assert calls[-1]["ts"] + calls[-1]["dur"] <= step["dur"]


def test_every_event_has_the_fields_of_its_phase() -> None:
    fields = {
        "M": {"name", "pid", "tid", "args"},
        "X": {"name", "cat", "ts", "dur", "pid", "tid", "args"},
    }
    for event in json.loads(trace_json(PROFILE, "m"))["traceEvents"]:
        assert set(event) == {"ph", *fields[event["ph"]]}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "cortex-m7"], "a profile is of this machine, and the target is cortex-m7"),
        (["--repetitions", "0"], "repetitions must be >= 1"),
        (["--top", "0"], "--top must be >= 1"),
        (["--trace", "x.txt"], "--trace must be a .json file"),
        (["--picture", "x.svg"], "--picture must be a .png file"),
    ],
)
def test_what_does_not_fit_is_one_message(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*SHORT, *flags) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_the_picture_needs_an_extra(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "niwaki.tools.roofline_picture", raising=False)
    assert run(*SHORT, "--picture", "p.png") == 2
    assert "pip install 'niwaki[report]'" in capsys.readouterr().err
