"""The memory of one entry point as a PNG, and time against memory as another.

Needs matplotlib, of the extra `report`.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import StrMethodFormatter

from niwaki.ir.lowered import EntryPoint
from niwaki.tools.report.contents import EntryReport
from niwaki.tools.report.curve import name_of
from niwaki.tools.report.drawing import Canvas, groups, levels, unit_of
from niwaki.tools.report.trade_off import Point

_CANVAS = Canvas(width=1480, height=600, character=7.5)
_MOST_OUTLINED = 1500
"""Buffers; an outline would hide more than these behind itself."""
_ABOVE: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "frameon": False}
"""Where legends are: over their plots, on nothing."""
_CENTRED: Any = {"ha": "center", "va": "center", "clip_on": True, "parse_math": False}
_LIVE, _LEVEL, _GRID = "#4e79a7", "#c73e3e", "#d1d9e0"


def png_picture(report: EntryReport, title: str) -> bytes:
    """Buffers by address and life over the bytes alive: a PNG of 1600 x 1000 pixels."""
    figure = Figure(
        figsize=(16, 10), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    )
    canvas = FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[7, 3])
    # A "$" in a name is no formula.
    figure.suptitle(title, x=0.01, ha="left", size=15, weight="bold", parse_math=False)
    unit, scale = unit_of(report.entry.arena_bytes)
    for axes, name in ((top, "address"), (bottom, "alive")):
        axes.set_ylabel(f"{name}, {unit}")
        axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.grid(color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    _draw_buffers(top, report.entry, scale)
    _draw_live(bottom, report, scale)
    file = BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def png_curve(points: Sequence[Point], title: str) -> bytes:
    """Estimated time of a step by budget: a PNG of 1600 x 800 pixels."""
    figure = Figure(
        figsize=(16, 8), dpi=100, layout=ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.12)
    )
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    figure.suptitle(title, x=0.01, ha="left", size=15, weight="bold", parse_math=False)
    unit, scale = unit_of(points[-1].bytes)
    sizes, times = [p.bytes / scale for p in points], [100 * (p.time - 1) for p in points]
    axes.plot(sizes, times, "o-", drawstyle="steps-post", color=_LIVE)
    for size, time, point in zip(sizes, times, points, strict=True):
        axes.annotate(name_of(point), (size, time), (6, 6), textcoords="offset points", size=10)
    axes.set_xlabel(f"budget of arena and state, {unit}")
    axes.set_ylabel("additional estimated time of a step, %")
    axes.set_xlim(0, 1.15 * sizes[-1])
    axes.set_ylim(0, max(1.1 * times[0], 1))
    axes.grid(color=_GRID, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    file = BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _draw_buffers(axes: Axes, entry: EntryPoint, scale: int) -> None:
    outline = 0.5 if len(entry.buffers) <= _MOST_OUTLINED else 0
    legend: list[Patch] = []
    for group in groups(entry):
        rectangles = [
            Rectangle((b.first, b.offset / scale), b.last + 1 - b.first, b.bytes / scale)
            for b in group.buffers
        ]
        axes.add_collection(
            PatchCollection(
                rectangles, facecolor=group.colour, edgecolor="white", linewidth=outline
            )
        )
        legend.append(Patch(color=group.colour, label=group.name))
        for b in group.buffers:
            middle = ((b.first + b.last + 1) / 2, (b.offset + b.bytes / 2) / scale)
            caption = _CANVAS.caption(entry, b)
            if caption:
                axes.text(*middle, caption, size=9, color=group.text_colour, **_CENTRED)
    axes.set_ylim(0, max(entry.arena_bytes, 1) / scale)
    if legend:
        axes.legend(handles=legend, ncols=len(legend), **_ABOVE)


def _draw_live(axes: Axes, report: EntryReport, scale: int) -> None:
    live = [call.live_bytes / scale for call in report.calls]
    axes.stairs(live, fill=True, alpha=0.35, color=_LIVE)
    axes.stairs(live, color=_LIVE, baseline=None)
    for (text, size), style in zip(levels(report.entry), ("-", ":"), strict=False):
        axes.axhline(size / scale, linestyle=style, color=_LEVEL, linewidth=1.2, label=text)
    if report.calls:
        text = f"peak: call {report.peak}, {report.calls[report.peak].kernel}"
        axes.axvline(report.peak + 0.5, linestyle="--", color=_LEVEL, linewidth=1, label=text)
    axes.set_xlabel("kernel call")
    axes.set_xlim(0, max(len(live), 1))
    axes.set_ylim(0, 1.1 * max(report.entry.arena_bytes, 1) / scale)
    axes.legend(ncols=3, **_ABOVE)
