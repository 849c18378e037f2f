"""The memory of one entry point as a picture: buffers by address and life, and bytes alive.

Needs the extra `report` (plotly, matplotlib).
"""

import html
from io import BytesIO
from typing import Any

from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Buffer, EntryPoint
from niwaki.memory import live_bytes, place

try:
    import plotly.graph_objects as plotly
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.collections import PatchCollection
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle
    from plotly.subplots import make_subplots
except ImportError as error:
    raise UsageError(
        f"pictures need {error.name}: install it with pip install 'niwaki[report]'"
    ) from None

_LABEL = {"facecolor": "black", "alpha": 0.4, "edgecolor": "none", "pad": 1.5}
"""Behind names in the PNG: legible on every colour."""


def memory_html(entry: EntryPoint, title: str) -> str:
    """One self-contained page: the buffers, with names under the pointer, and the bytes alive."""
    figure: Any = make_subplots(
        rows=2,
        cols=1,
        shared_xaxes=True,
        row_heights=[0.7, 0.3],
        vertical_spacing=0.06,
        subplot_titles=("buffers: address over time", "bytes alive"),
    )
    buffers = entry.buffers
    figure.add_trace(
        plotly.Bar(
            x=[(b.first + b.last + 1) / 2 for b in buffers],
            width=[b.last + 1 - b.first for b in buffers],
            base=[b.offset for b in buffers],
            y=[b.bytes for b in buffers],
            customdata=[
                [html.escape(b.label), html.escape(place(entry, b)), b.bytes, b.first, b.last]
                for b in buffers
            ],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}"
            "<br>%{customdata[2]:,} bytes at %{base:,}"
            "<br>calls %{customdata[3]} to %{customdata[4]}<extra></extra>",
            marker={"color": [b.first for b in buffers], "colorscale": "Viridis"},
            showlegend=False,
        ),
        row=1,
        col=1,
    )
    live = live_bytes(entry)
    figure.add_trace(
        plotly.Scatter(
            x=[i + 0.5 for i in range(len(live))],
            y=live,
            customdata=[[html.escape(c.kernel), html.escape(c.location)] for c in entry.calls],
            hovertemplate="%{customdata[0]}<br>%{customdata[1]}<br>%{y:,} bytes<extra></extra>",
            line={"shape": "hvh"},
            fill="tozeroy",
            name="alive",
        ),
        row=2,
        col=1,
    )
    sides = ("top left", "bottom right")
    for (name, value), dash, side in zip(_levels(entry), ("solid", "dot"), sides, strict=True):
        text = f"{name}: {value:,}"
        line = {"dash": dash, "color": "black", "width": 1}
        figure.add_hline(
            y=value, line=line, annotation_text=text, annotation_position=side, row=2, col=1
        )
    figure.update_layout(title=html.escape(title), barmode="overlay", showlegend=False)
    figure.update_yaxes(rangemode="tozero")
    figure.update_xaxes(title_text="kernel call", row=2, col=1)
    return str(figure.to_html(include_plotlyjs=True, full_html=True, div_id="memory"))


def memory_png(entry: EntryPoint, title: str) -> bytes:
    """The same as a PNG of 1600 x 1000 pixels."""
    figure = Figure(figsize=(16, 10), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[7, 3])
    rectangles = [
        Rectangle((b.first, b.offset), b.last + 1 - b.first, b.bytes) for b in entry.buffers
    ]
    patches = PatchCollection(rectangles, cmap="viridis", edgecolor="white", linewidth=0.4)
    patches.set_array([b.first for b in entry.buffers])
    top.add_collection(patches)
    for b in entry.buffers:
        if _is_legible(entry, b):
            middle = ((b.first + b.last + 1) / 2, b.offset + b.bytes / 2)
            style = {"ha": "center", "va": "center", "size": 8, "color": "white"}
            # A "$" in a name is no formula.
            top.text(*middle, b.label, parse_math=False, bbox=_LABEL, clip_on=True, **style)
    top.set_ylim(0, max(entry.arena_bytes, 1))
    top.set_ylabel("address in the arena")
    top.set_title(title, parse_math=False)
    live = live_bytes(entry)
    bottom.stairs(live, fill=True, alpha=0.5)
    for (name, value), style in zip(_levels(entry), ("-", ":"), strict=True):
        label = f"{name}: {value:,}"
        bottom.axhline(value, linestyle=style, color="black", linewidth=1, label=label)
    bottom.set_ylabel("bytes alive")
    bottom.set_xlabel("kernel call")
    bottom.set_xlim(0, max(len(live), 1))
    bottom.set_ylim(0, 1.1 * max(entry.arena_bytes, 1))
    bottom.legend(loc="lower left")
    file = BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _is_legible(entry: EntryPoint, buffer: Buffer) -> bool:
    """Whether a name fits into the rectangle of `buffer`."""
    high = buffer.bytes >= 0.03 * entry.arena_bytes
    return high and buffer.last + 1 - buffer.first >= 0.06 * len(entry.calls)


def _levels(entry: EntryPoint) -> list[tuple[str, int]]:
    """(name, bytes) of the horizontal lines."""
    return [("arena", entry.arena_bytes), ("lower bound", entry.bound_bytes)]
