"""The calls of a step under the roofline of the machine, as a PNG.

Needs matplotlib, of the extra `report`. The model: Williams, Waterman, Patterson, "Roofline: an
insightful visual performance model for multicore architectures", CACM 52(4), 2009.
"""

from io import BytesIO

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from niwaki.backends.llvm.machine_limits import MachineLimits
from niwaki.profiling import CallProfile, Profile

_ROOF, _GRID = "#333333", "#d1d9e0"
_LARGEST = 1500.0
"""Area of the slowest call's mark, in square points."""
_MARK = 60.0
"""That of the legend's."""


def roofline_picture(profile: Profile, model: str) -> bytes:
    """Operations per second over operations per byte; areas are times. 1200 x 800 pixels."""
    figure = Figure(figsize=(12, 8), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    title = f"{model}: a step of {1e3 * profile.step_seconds:,.3g} ms, {profile.roofline_share:.0%}"
    # A "$" in a name is no formula.
    figure.suptitle(f"{title} of the roofline", x=0.01, ha="left", size=14, parse_math=False)
    axes = figure.subplots()
    # Without operations there is no place for a call.
    calls = [call for call in profile.calls if call.flops > 0]
    _draw_calls(axes, calls)
    _draw_roof(axes, profile.limits, calls)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations per byte of operands and results")
    axes.set_ylabel("GFLOP/s")
    axes.grid(color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    file = BytesIO()
    canvas.print_png(file)
    return file.getvalue()


def _draw_calls(axes: Axes, calls: list[CallProfile]) -> None:
    longest = max((call.seconds for call in calls), default=1.0)
    colours = colormaps["tab20"]
    for number, op in enumerate(dict.fromkeys(call.op for call in calls)):
        own, colour = [call for call in calls if call.op == op], colours(number % 20)
        axes.scatter(
            [_intensity(call) for call in own],
            [call.flops_per_second / 1e9 for call in own],
            [_LARGEST * call.seconds / longest for call in own],
            color=colour,
            alpha=0.7,
        )
        # In the legend, marks of the calls' sizes would hide the names.
        axes.scatter([], [], _MARK, color=colour, label=op)
    axes.legend(loc="lower right", frameon=False)


def _draw_roof(axes: Axes, limits: MachineLimits, calls: list[CallProfile]) -> None:
    """The peak, and the bandwidths of the smallest cache and of memory."""
    peak = limits.flops_per_second
    rates = list(limits.bytes_per_second.values())
    intensities = [_intensity(call) for call in calls] + [peak / rate for rate in rates]
    low, high = min(intensities) / 2, 2 * max(intensities)
    at = np.geomspace(low, high, 200)
    for rate, name in ((rates[0], "smallest cache"), (rates[-1], "memory")):
        roof = np.minimum(peak, rate * at) / 1e9
        axes.plot(at, roof, color=_ROOF, linewidth=1.2)
        place = (low, rate * low / 1e9)
        text = f"{name}: {rate / 1e9:,.0f} GB/s"
        axes.annotate(text, place, (4, 8), textcoords="offset points", rotation=35, size=9)
    text = f"multiply-adds: {peak / 1e9:,.0f} GFLOP/s"
    axes.annotate(text, (high, peak / 1e9), (0, 6), textcoords="offset points", ha="right", size=9)


def _intensity(call: CallProfile) -> float:
    return call.flops / max(call.bytes, 1)
