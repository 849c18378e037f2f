"""The trace is what the Trace Event Format asks for."""

import json
from typing import Any

import pytest

from niwaki.tools.report.trace import trace_json
from tests.tools.report import cases


def events(*entries: cases.EntryPoint) -> list[dict[str, Any]]:
    return json.loads(trace_json(cases.report(*entries)))["traceEvents"]


def test_every_event_has_the_fields_of_its_phase() -> None:
    fields = {
        "M": {"name", "pid", "tid", "args"},
        "X": {"name", "cat", "ts", "dur", "pid", "tid", "args"},
        "C": {"name", "ts", "pid", "args"},
    }
    for event in events(cases.entry(), cases.entry("infer")):
        assert set(event) == {"ph", *fields[event["ph"]]}


def test_one_process_for_each_entry_point() -> None:
    found = events(cases.entry(), cases.entry("infer"))
    names = {e["pid"]: e["args"]["name"] for e in found if e["name"] == "process_name"}
    assert names == {1: "train_step", 2: "infer"}
    assert {e["pid"] for e in found} == {1, 2}


@pytest.mark.parametrize("calls", [4, 10_000])
def test_slices_follow_each_other_and_counters_are_the_bytes_alive(calls: int) -> None:
    entry = cases.large_entry(calls)
    found = events(entry)
    slices = [e for e in found if e["ph"] == "X"]
    assert [e["name"] for e in slices] == [c.kernel for c in entry.calls]
    ends = [e["ts"] + e["dur"] for e in slices]
    assert all(e["dur"] > 0 for e in slices)
    assert [e["ts"] for e in slices] == [0, *ends[:-1]]
    counters = [e for e in found if e["ph"] == "C"]
    assert [e["ts"] for e in counters] == [0, *ends]
    assert [e["args"]["bytes alive"] for e in counters] == [*entry.live_bytes, 0]
    for key in ("buffers that begin", "buffers that end"):
        assert sum(len(e["args"][key]) for e in slices) == len(entry.buffers)


def test_hostile_names_are_data() -> None:
    data = trace_json(cases.report(cases.entry(label=cases.HOSTILE), title=cases.HOSTILE))
    assert data.isascii()
    assert "\\u2028" in json.loads(data)["otherData"]["title"]
