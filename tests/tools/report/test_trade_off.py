"""Time against memory: what is planned, and how it is drawn."""

import re
from itertools import pairwise

import pytest

from niwaki.backends.targets import get_target
from niwaki.fitting import fit, smallest_plan
from niwaki.ir.training import TrainingOptions
from niwaki.passes.planner import Planner
from niwaki.tools.report.curve import svg_curve
from niwaki.tools.report.page import html_page
from niwaki.tools.report.picture import png_curve
from niwaki.tools.report.trade_off import Point, trade_off
from tests.conv_chains import conv_chain
from tests.tools.report import cases

SVG = '<svg class="trade-off"'
POINTS = (
    Point(20_000, 1.5, ("2 micro-batches", "recomputation")),
    Point(40_000, 1.25, ("recomputation",)),
    Point(80_000, 1.0, ()),
)


@pytest.mark.parametrize("norm", [False, True])
def test_less_memory_takes_more_time(norm: bool) -> None:
    planner = Planner(conv_chain(2, 3, norm), TrainingOptions(), get_target("x86-64"))
    points = trade_off(planner, 2)
    plain = planner.plan(planner.techniques)
    assert points[0].bytes == smallest_plan(planner).bytes < plain.bytes
    assert (points[-1].bytes, points[-1].time, points[-1].techniques) == (plain.bytes, 1.0, ())
    for small, large in pairwise(points):
        assert small.bytes < large.bytes
        assert small.time > large.time
        assert small.techniques
    for point in points:
        assert fit(planner, point.bytes)[0].bytes <= point.bytes


def test_the_curve_has_steps_and_names() -> None:
    drawn = svg_curve(POINTS)
    ((x0, y0, *steps),) = re.findall(
        r'class="curve" d="M(.*?) (.*?)H(.*?)V(.*?)H(.*?)V(.*?)"', drawn
    )
    x1, y1, x2, y2 = map(float, steps)
    assert float(x0) < x1 < x2
    assert float(y0) < y1 < y2
    assert drawn.count("<circle") == 3
    assert "20,000 bytes, +50.00%: 2 micro-batches and recomputation" in drawn


def test_one_point_is_drawn() -> None:
    assert svg_curve(POINTS[-1:]).count("<circle") == 1
    assert png_curve(POINTS[-1:], "alone").startswith(b"\x89PNG")


def test_the_page_shows_picture_and_table() -> None:
    page = html_page(cases.report(cases.entry(), trade_off=POINTS))
    assert page.count(SVG) == 1
    assert "<td>2 micro-batches and recomputation</td>" in page
    assert SVG not in html_page(cases.report(cases.entry()))


def test_png_has_the_promised_size() -> None:
    data = png_curve(POINTS, f"hostile {cases.HOSTILE}")
    assert [int.from_bytes(data[at : at + 4], "big") for at in (16, 20)] == [1600, 800]
