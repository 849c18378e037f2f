"""A report as one self-contained HTML page. Needs plotly and jinja2, of the extra `report`."""

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from niwaki.memory import largest_at_peak, place
from niwaki.printable import printable
from niwaki.tools.report.contents import EntryReport, Report
from niwaki.tools.report.curve import name_of, svg_curve
from niwaki.tools.report.figure import figure_of

_HOLDERS = 15
"""Buffers listed for the peak."""


def html_page(report: Report) -> str:
    """The page: no part of it is loaded from anywhere.

    Names are data: jinja2 escapes them, and a content security policy lets nothing run but the
    two scripts of the page, known by their hashes.
    """
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["printable"] = printable
    scripts = [get_plotlyjs(), _resource("page.js")]
    return environment.from_string(_resource("page.html")).render(
        report=report,
        # Texts of this package, not of a model.
        style=Markup(_resource("page.css")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        figures=[figure_of(entry) for entry in report.entries],
        holders=[largest_at_peak(entry.entry, _HOLDERS) for entry in report.entries],
        curve=Markup(svg_curve(report.trade_off)) if report.trade_off else "",
        name_of=name_of,
        place=place,
        rows=_rows,
    )


def _rows(entry: EntryReport) -> list[tuple[int | str, ...]]:
    """Of the table of calls."""
    return [
        (i, c.kernel, c.op, c.place, c.flops, c.bytes_read, c.bytes_written, c.live_bytes)
        for i, c in enumerate(entry.calls)
    ]


def _resource(name: str) -> str:
    return files("niwaki.tools.report").joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
