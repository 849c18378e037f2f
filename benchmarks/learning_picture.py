"""The picture of benchmarks/learning.py: accuracy against the memory that an update adds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.common import Row

_SERIES = {
    "fp32/none": ("float32", "s"),
    "int8+qas/stochastic": ("int8 + QAS, stochastic rounding", "o"),
    "int8+qas/error_feedback": ("int8 + QAS, error feedback", "^"),
    "int8+qas/nearest": ("int8 + QAS, rounding to nearest", "v"),
    "int8/stochastic": ("int8 without QAS, stochastic rounding", "D"),
}
"""Arithmetic and rounding -> name and marker."""
_LABELS = {"fp32/none": ((6, -12), "left"), "int8+qas/stochastic": ((-6, 4), "right")}
"""Where the names of schemes stand; other series have the same schemes as the second."""


@dataclass(frozen=True)
class Point:
    """One recipe."""

    series: str
    scheme: str
    kilobytes: float
    accuracy: float
    spread: float


def points_of(rows: Sequence[Row]) -> list[Point]:
    """Every summary among `rows`."""
    values = {(row.case, row.metric): row.value for row in rows}
    found: list[Point] = []
    for case, metric in values:
        if metric != "accuracy.mean":
            continue
        _, arithmetic, rounding, scheme, *_ = case.split("/")
        kilobytes = values[case, "update.bytes"] / 1024
        spread = values[case, "accuracy.spread"]
        series = f"{arithmetic}/{rounding}"
        found.append(Point(series, scheme, kilobytes, values[case, metric], spread))
    return found


def draw(points: Sequence[Point], path: Path) -> None:
    """Writes the PNG."""
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    axes = figure.subplots()
    for series, (name, marker) in _SERIES.items():
        chosen = sorted((p for p in points if p.series == series), key=lambda p: p.kilobytes)
        if not chosen:
            continue
        axes.errorbar(
            [p.kilobytes for p in chosen],
            [p.accuracy for p in chosen],
            [p.spread for p in chosen],
            marker=marker,
            capsize=3,
            linewidth=1,
            label=name,
        )
        for p in chosen:
            if series in _LABELS:
                offset, side = _LABELS[series]
                place = (p.kilobytes, p.accuracy)
                axes.annotate(p.scheme, place, offset, textcoords="offset points", ha=side)
    # The head adds next to nothing: linear there, logarithmic beyond.
    axes.set_xscale("symlog", linthresh=50)
    ticks = [0, 25, 50, 100, 200, 500, 1000, 2000, 5000]
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.set_xlim(-8, 1.5 * max(p.kilobytes for p in points))
    axes.set_xlabel("memory that the update adds to inference (KiB, analytic model)")
    axes.set_ylabel("accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    figure.savefig(path, dpi=100, metadata={"Software": None})
