"""What the parts of an update scheme contribute, as a PNG. Needs matplotlib (extra `report`)."""

from io import BytesIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from niwaki.passes.scheme_search import RATIOS, Contributions, FoundScheme, SchemeSpace

_CURVE, _CHOSEN, _GRID = "#4e79a7", "#c73e3e", "#d1d9e0"
_SHADES = ("#bcd0e5", "#8fb0d3", "#6490bf", "#3a6ea5")
"""From the smallest ratio to all channels."""
_WIDTH = 0.8 / len(RATIOS)
_ABOVE: Any = {"loc": "lower right", "bbox_to_anchor": (1, 1), "frameon": False}


def contribution_picture(
    space: SchemeSpace, contributions: Contributions, found: FoundScheme, model: str
) -> bytes:
    """Gains of biases by depth, and of weights by layer and ratio; what was chosen stands out."""
    figure = Figure(figsize=(12, 7.5), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    title = f"{model}: contributions, scheme of {found.bytes:,.0f} bytes"
    # A "$" in a name is no formula.
    figure.suptitle(title, x=0.01, ha="left", size=14, weight="bold", parse_math=False)
    top, bottom = figure.subplots(2, 1, height_ratios=[2, 3])
    _draw_biases(top, contributions, found)
    _draw_weights(bottom, space, contributions, found)
    for axes in (top, bottom):
        axes.set_ylabel("decrease of the loss")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axhline(0, color="black", linewidth=0.8)
        axes.grid(color=_GRID, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    file = BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _draw_biases(axes: Axes, contributions: Contributions, found: FoundScheme) -> None:
    depth = found.scheme.biases
    assert depth is not None
    axes.plot(*zip(*contributions.biases.items(), strict=True), marker="o", color=_CURVE)
    axes.plot(depth, contributions.biases[depth], "o", color=_CHOSEN, label="chosen", zorder=3)
    axes.set_xlabel("biases of the last layers, compared with the head alone")
    axes.legend(**_ABOVE)


def _draw_weights(
    axes: Axes, space: SchemeSpace, contributions: Contributions, found: FoundScheme
) -> None:
    chosen = {(int(number), ratio) for number, ratio in (found.scheme.weights or {}).items()}
    for place, (ratio, shade) in enumerate(zip(RATIOS, _SHADES, strict=True)):
        bars = [part for part in contributions.weights if part[1] == ratio]
        axes.bar(
            [number + (place - 1.5) * _WIDTH for number, _ in bars],
            np.array([contributions.weights[part] for part in bars]),
            _WIDTH,
            color=shade,
            edgecolor=[_CHOSEN if part in chosen else shade for part in bars],
            linewidth=[1.8 if part in chosen else 0 for part in bars],
        )
    axes.set_xlim(-0.5, len(space.layers) - 0.5)
    axes.set_xlabel("layer whose weights are updated, compared with all biases")
    legend = [
        Patch(color=shade, label=f"{ratio:.4g} of the channels")
        for ratio, shade in zip(RATIOS, _SHADES, strict=True)
    ]
    legend.append(Patch(facecolor="none", edgecolor=_CHOSEN, linewidth=1.8, label="chosen"))
    axes.legend(handles=legend, ncols=len(legend), **_ABOVE)
