"""What every benchmark shares: rows, the JSON file, the table, fair timing."""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One measured number; `ratio` is peer / ours (over 1 = we are better) or as the unit says."""

    case: str
    metric: str
    value: float
    unit: str
    peer: str | None = None
    ratio: float | None = None


def interleaved(
    steps: Sequence[Callable[[], object]],
    seconds: float,
    least: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> list[float]:
    """Median milliseconds of each of `steps`, timed in turn so that all see the same machine.

    `clock`: with `time.thread_time`, what other processes take of the core does not count.
    """
    for step in steps:
        step()
        step()
    times: list[list[float]] = [[] for _ in steps]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < least:
        for step, samples in zip(steps, times, strict=True):
            start = clock()
            step()
            samples.append(1e3 * (clock() - start))
    return [statistics.median(samples) for samples in times]


def _machine() -> dict[str, object]:
    model = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            li.split(":", 1)[1].strip()
            for li in info.read_text().splitlines()
            if "model name" in li
        ]
        model = names[0] if names else model
    return {"cpu": model, "cores": os.cpu_count(), "system": platform.system()}


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in ("niwaki", "xdsl", "llvmlite", "numpy", "torch"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main(description: str | None, run: Callable[[bool], list[Row]]) -> None:
    """Command line of a benchmark: `run(quick)` gives the rows; table to stdout, JSON to a file."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="fewer cases, at most two minutes")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write the rows here")
    arguments = parser.parse_args()
    rows = run(arguments.quick)
    print_rows(rows)
    if arguments.json is not None:
        write_rows(arguments.json, rows)


def print_rows(rows: Sequence[Row]) -> None:
    """The table, to stdout."""
    print(f"{'case':<44} {'metric':<18} {'value':>14} {'unit':<12} {'peer':<8} {'ratio':>7}")
    for row in rows:
        ratio = "" if row.ratio is None else f"{row.ratio:.3f}"
        print(
            f"{row.case:<44} {row.metric:<18} {row.value:>14,.3f} {row.unit:<12} "
            f"{row.peer or '':<8} {ratio:>7}"
        )


def write_rows(
    path: Path, rows: Sequence[Row], versions: Mapping[str, str] | None = None, **more: object
) -> None:
    """The JSON file, whole or not at all.

    `versions`: beside those of this environment; `more`: further parts of the document.
    """
    document = {
        "schema": 1,
        "machine": _machine(),
        "versions": {**_versions(), **(versions or {})},
        "rows": [asdict(row) for row in rows],
        **more,
    }
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote."""
    document = json.loads(path.read_text())
    return [Row(**row) for row in document["rows"]]
