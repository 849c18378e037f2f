"""The memory of one entry point as an interactive figure. Needs plotly, of the extra `report`."""

import html
import json
from typing import Any

import numpy as np
import plotly.graph_objects as plotly
from plotly.subplots import make_subplots

from niwaki.ir.lowered import Buffer, EntryPoint
from niwaki.memory import place
from niwaki.printable import printable
from niwaki.tools.report.contents import CallRow, EntryReport
from niwaki.tools.report.drawing import Canvas, Group, groups, levels, shortened, unit_of

HEIGHT = 700
"""Pixels."""
_CANVAS = Canvas(width=1000, height=380, character=6.5)
_MOST_OUTLINED = 1500
"""Buffers; an outline would hide more than these behind itself."""
_MOST_NAMED = 300
"""Buffers with a name in their rectangle."""
_LONGEST = 90
"""Characters of a name under the pointer."""

_BUFFER_HOVER = (
    "<b>%{customdata[0]}</b><br>%{customdata[1]}"
    "<br>%{customdata[2]:,} bytes at %{customdata[3]:,}"
    "<br>calls %{customdata[4]} to %{customdata[5]}<extra></extra>"
)
_CALL_HOVER = (
    "<b>%{customdata[0]}</b>, call %{customdata[2]}<br>%{customdata[1]}"
    "<br>%{customdata[3]:,} bytes alive<extra></extra>"
)


def figure_of(report: EntryReport) -> dict[str, Any]:
    """Buffers by address and life over the bytes alive, as plotly's JSON.

    Bars of one operation are one trace: few traces stay fast, and a click on the legend hides one.
    """
    entry = report.entry
    unit, scale = unit_of(entry.arena_bytes)
    figure: Any = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.05
    )
    named = _named(entry)
    for group in groups(entry):
        figure.add_trace(_bars(entry, group, named, scale), row=1, col=1)
    figure.add_trace(_live(report.calls, scale), row=2, col=1)
    _add_levels(figure, entry, scale)
    if report.calls:
        _add_peak(figure, report)
    title = {"standoff": 12}
    figure.update_yaxes(title={"text": f"address, {unit}", **title}, row=1, col=1)
    figure.update_yaxes(title={"text": f"alive, {unit}", **title}, row=2, col=1)
    top = max(entry.arena_bytes, 1) / scale
    figure.update_yaxes(range=[0, 1.01 * top], tickformat=",", row=1, col=1)
    figure.update_yaxes(range=[0, 1.3 * top], tickformat=",", row=2, col=1)
    figure.update_xaxes(range=[0, max(len(report.calls), 1)], zeroline=False)
    figure.update_xaxes(title={"text": "kernel call", **title}, row=2, col=1)
    figure.update_layout(
        template="none",
        height=HEIGHT,
        barmode="overlay",
        hovermode="closest",
        uniformtext={"minsize": 11, "mode": "hide"},
        legend={"orientation": "h", "x": 0, "y": -0.12, "yanchor": "top"},
        margin={"l": 70, "r": 16, "t": 56, "b": 50},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        hoverlabel={"align": "left"},
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": "#8b949e", "activecolor": "#4e79a7"},
    )
    return json.loads(figure.to_json())


def _bars(entry: EntryPoint, group: Group, named: set[Buffer], scale: int) -> Any:
    buffers = group.buffers
    outline = 0.6 if len(entry.buffers) <= _MOST_OUTLINED else 0
    return plotly.Bar(
        name=html.escape(group.name),
        x=np.array([(b.first + b.last + 1) / 2 for b in buffers]),
        width=np.array([b.last + 1 - b.first for b in buffers], np.int32),
        base=np.array([b.offset / scale for b in buffers]),
        y=np.array([b.bytes / scale for b in buffers]),
        customdata=[_buffer_data(entry, b) for b in buffers],
        hovertemplate=_BUFFER_HOVER,
        text=[_caption(entry, b) if b in named else "" for b in buffers],
        textposition="inside",
        insidetextanchor="middle",
        textangle=0,
        textfont={"size": 11, "color": group.text_colour},
        marker={
            "color": group.colour,
            "line": {"width": outline, "color": "rgba(255,255,255,0.7)"},
        },
    )


def _caption(entry: EntryPoint, buffer: Buffer) -> str:
    """What fits before zooming, or else the label: plotly shows it where it fits."""
    return html.escape(_CANVAS.caption(entry, buffer) or shortened(printable(buffer.label), 40))


def _buffer_data(entry: EntryPoint, b: Buffer) -> list[str | int]:
    return [_text(printable(b.label)), _text(place(entry, b)), b.bytes, b.offset, b.first, b.last]


def _text(name: str) -> str:
    """Plotly reads some markup in texts."""
    return html.escape(shortened(name, _LONGEST))


def _named(entry: EntryPoint) -> set[Buffer]:
    """The buffers that have a name in their rectangle, where it fits."""
    area = [(-b.bytes * (b.last + 1 - b.first), number) for number, b in enumerate(entry.buffers)]
    return {entry.buffers[number] for _, number in sorted(area)[:_MOST_NAMED]}


def _live(calls: tuple[CallRow, ...], scale: int) -> Any:
    # The line turns halfway between two points: one more at each end makes all steps whole.
    numbers = [0, *range(len(calls)), -1] if calls else []
    return plotly.Scatter(
        x=[0, *(i + 0.5 for i in range(len(calls))), len(calls)] if calls else [],
        y=np.array([calls[i].live_bytes / scale for i in numbers]),
        customdata=[
            [calls[i].kernel, _text(calls[i].place), i % len(calls), calls[i].live_bytes]
            for i in numbers
        ],
        hovertemplate=_CALL_HOVER,
        mode="lines",
        line={"shape": "hvh", "color": "#4e79a7", "width": 1.5},
        fill="tozeroy",
        fillcolor="rgba(78,121,167,0.3)",
        showlegend=False,
    )


def _add_levels(figure: Any, entry: EntryPoint, scale: int) -> None:
    sides = ("top right", "bottom right")
    for (text, size), dash, side in zip(levels(entry), ("solid", "dot"), sides, strict=False):
        line = {"color": "#e15759", "width": 1.2, "dash": dash}
        note = {"text": text, "position": side, "font_size": 12}
        notes = {f"annotation_{key}": value for key, value in note.items()}
        figure.add_hline(y=size / scale, line=line, **notes, row=2, col=1)


def _add_peak(figure: Any, report: EntryReport) -> None:
    """A line through both plots, at the call where most bytes are alive."""
    line = {"color": "#e15759", "width": 1, "dash": "dash"}
    x = report.peak + 0.5
    figure.add_vline(x=x, line=line, row="all", col=1)
    late = report.peak > len(report.calls) / 2
    figure.add_annotation(
        x=x,
        y=1.0,
        yref="y domain",
        xanchor="right" if late else "left",
        yanchor="bottom",
        text=f"peak: call {report.peak}, {report.calls[report.peak].kernel}",
        showarrow=False,
        font={"size": 12, "color": "#e15759"},
        row=1,
        col=1,
    )
