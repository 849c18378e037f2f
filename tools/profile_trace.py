"""A profiled step as a trace for chrome://tracing and ui.perfetto.dev.

The format is the JSON object form of Chrome's "Trace Event Format".
"""

import json
from collections.abc import Iterator
from typing import Any

from niwaki.printable import printable
from niwaki.profiling import Profile
from niwaki.tools.report.trace import metadata_event


def trace_json(profile: Profile, title: str) -> bytes:
    """One slice for the step, and in it one for each call, in microseconds; medians."""
    document = {
        "traceEvents": list(_events(profile)),
        "displayTimeUnit": "ns",
        "otherData": {"title": printable(title), "repetitions": profile.repetitions},
    }
    return json.dumps(document, separators=(",", ":")).encode()


def _events(profile: Profile) -> Iterator[dict[str, Any]]:
    yield metadata_event("process_name", 1, {"name": "training step"})
    yield metadata_event("thread_name", 1, {"name": "kernel calls"})
    # Medians of parts may exceed that of the whole.
    whole = max(profile.step_seconds, profile.call_seconds)
    yield _slice("step", "step", 0.0, whole, {"rest us": 1e6 * profile.rest_seconds})
    start = 0.0
    for number, call in enumerate(profile.calls):
        arguments: dict[str, object] = {
            "call": number,
            "place": call.place,
            "flops": call.flops,
            "bytes": call.bytes,
            "GFLOP/s": call.flops_per_second / 1e9,
            "GB/s": call.bytes_per_second / 1e9,
            "share of roofline": call.roofline_share,
        }
        yield _slice(call.kernel, call.op, start, call.seconds, arguments)
        start += call.seconds


def _slice(
    name: str, category: str, start: float, seconds: float, arguments: dict[str, object]
) -> dict[str, Any]:
    return {
        "ph": "X",
        "name": name,
        "cat": category,
        "ts": 1e6 * start,
        "dur": 1e6 * seconds,
        "pid": 1,
        "tid": 1,
        "args": arguments,
    }
