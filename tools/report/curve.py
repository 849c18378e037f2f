"""The trade-off of time against memory as a drawing of the page."""

from collections.abc import Sequence

from niwaki.tools.report.drawing import unit_of
from niwaki.tools.report.trade_off import Point

_WIDTH, _HEIGHT = 660, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 16, 48
_TICKS = 5


def svg_curve(points: Sequence[Point]) -> str:
    """Steps from point to point: a budget between two points gets the smaller plan's time.

    Holds no text of the user's model.
    """
    unit, scale = unit_of(points[-1].bytes)
    most, slowest = points[-1].bytes, max(points[0].time, 1.01)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def x(size: float) -> float:
        return round(_LEFT + size / most * (right - _LEFT), 1)

    def y(time: float) -> float:
        return round(bottom - (time - 1) / (slowest - 1) * (bottom - _TOP), 1)

    lines: list[str] = []
    for tick in range(_TICKS + 1):
        size, time = most * tick / _TICKS, 1 + (slowest - 1) * tick / _TICKS
        below, beside = bottom + 18, _LEFT - 8
        lines += [
            f'<path class="grid" d="M{x(size)} {_TOP}V{bottom}M{_LEFT} {y(time)}H{right}"/>',
            f'<text x="{x(size)}" y="{below}" text-anchor="middle">{size / scale:,.0f}</text>',
            f'<text x="{beside}" y="{y(time) + 4}" text-anchor="end">{time - 1:+.0%}</text>',
        ]
    middle = (_LEFT + right) / 2
    lines.append(
        f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">'
        f"budget of arena and state, {unit}</text>"
    )
    steps = "".join(f"H{x(p.bytes)}V{y(p.time)}" for p in points[1:])
    start = f"M{x(points[0].bytes)} {y(points[0].time)}"
    lines.append(f'<path class="curve" d="{start}{steps}"/>')
    lines += [
        f'<circle cx="{x(p.bytes)}" cy="{y(p.time)}" r="5">'
        f"<title>{p.bytes:,} bytes, {p.time - 1:+.2%}: {name_of(p)}</title></circle>"
        for p in points
    ]
    label = "estimated time of a step against its memory"
    body = "\n".join(lines)
    return (
        f'<svg class="trade-off" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{label}">\n{body}\n</svg>'
    )


def name_of(point: Point) -> str:
    """The techniques of `point`, for people."""
    return " and ".join(point.techniques) or "nothing needed"
