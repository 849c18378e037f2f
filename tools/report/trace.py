"""The calls of a program as a trace for chrome://tracing and ui.perfetto.dev.

The format is the JSON object form of Chrome's "Trace Event Format".
"""

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from niwaki.ir.lowered import Buffer
from niwaki.printable import printable
from niwaki.tools.report.contents import EntryReport, Report

_CALL_MICROSECONDS = 1
"""Nothing was measured: a slice says which call, not how long."""


def trace_json(report: Report) -> bytes:
    """One process for each entry point: a slice for each call, a counter of the bytes alive."""
    events = [
        event
        for process, entry in enumerate(report.entries, 1)
        for event in _events(entry, process)
    ]
    time = f"{_CALL_MICROSECONDS} microsecond for each call: order, not duration"
    document = {
        "traceEvents": events,
        "displayTimeUnit": "ms",
        "otherData": {"title": printable(report.title), "time": time},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _events(report: EntryReport, process: int) -> Iterator[dict[str, Any]]:
    yield metadata_event("process_name", process, {"name": report.entry.name})
    yield metadata_event("process_sort_index", process, {"sort_index": process})
    yield metadata_event("thread_name", process, {"name": "kernel calls"})
    first, last = defaultdict[int, list[str]](list), defaultdict[int, list[str]](list)
    for buffer in report.entry.buffers:
        first[buffer.first].append(_describe(buffer))
        last[buffer.last].append(_describe(buffer))
    for number, call in enumerate(report.calls):
        time = number * _CALL_MICROSECONDS
        yield {
            "ph": "X",
            "name": call.kernel,
            "cat": call.op,
            "ts": time,
            "dur": _CALL_MICROSECONDS,
            "pid": process,
            "tid": 1,
            "args": {
                "call": number,
                "place": call.place,
                "flops": call.flops,
                "bytes read": call.bytes_read,
                "bytes written": call.bytes_written,
                "bytes alive": call.live_bytes,
                "buffers that begin": first[number],
                "buffers that end": last[number],
            },
        }
        yield _counter(process, time, call.live_bytes)
    yield _counter(process, len(report.calls) * _CALL_MICROSECONDS, 0)


def metadata_event(name: str, process: int, args: dict[str, object]) -> dict[str, Any]:
    """What a process or thread is called."""
    return {"ph": "M", "name": name, "pid": process, "tid": 1, "args": args}


def _counter(process: int, time: int, value: int) -> dict[str, Any]:
    args = {"bytes alive": value}
    return {"ph": "C", "name": "arena", "ts": time, "pid": process, "args": args}


def _describe(buffer: Buffer) -> str:
    return f"{printable(buffer.label)}: {buffer.bytes} bytes at {buffer.offset}"
