"""The page is complete, self-contained, and proof against hostile names."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

from plotly.offline import get_plotlyjs

from niwaki.ir.lowered import EntryPoint
from niwaki.tools.report.page import html_page
from tests.tools.report import cases


class Page(HTMLParser):
    """The tags, the text outside of scripts, and the scripts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[tuple[str, str]] = []
        """(type and class, text)."""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            found = dict(attrs)
            self.scripts.append((f"{found.get('type')} {found.get('class')}", ""))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] and self.tags[-1][0] == "script" and not self.scripts[-1][1]:
            self.scripts[-1] = (self.scripts[-1][0], data)
        else:
            self.words.append(data)

    def data(self, name: str) -> list[Any]:
        return [json.loads(t) for kind, t in self.scripts if kind == f"application/json {name}"]


def test_entry_points_in_order() -> None:
    page = Page(
        html_page(cases.report(cases.entry(), cases.entry("infer"), cases.entry("evaluate")))
    )
    sections = [attrs for tag, attrs in page.tags if tag == "section"]
    assert [("hidden" in attrs) for attrs in sections] == [False, True, True]
    text = " ".join(page.words)
    assert re.search(r"train_step\s.*infer\s.*evaluate", text, re.DOTALL)
    for heading in ("Buffers and bytes alive", "Largest at the peak", "What each technique saves"):
        assert text.count(heading) == 3
    assert "masks as bits" in text
    assert "60.0%" in text


def test_every_buffer_and_call_is_there() -> None:
    entry = cases.large_entry(60)
    page = Page(html_page(cases.report(entry)))
    (figure,) = page.data("figure-data")
    bars = [trace for trace in figure["data"] if trace["type"] == "bar"]
    labels = sorted(item[0] for trace in bars for item in trace["customdata"])
    assert labels == sorted(b.label for b in entry.buffers)
    (rows,) = page.data("call-data")
    assert [row[1] for row in rows] == [c.kernel for c in entry.calls]
    assert rows[7] == [7, "elementwise_7", "elementwise", "layer7 (model.py:7)", 700, 30, 20, 512]


def test_nothing_is_loaded() -> None:
    page = Page(html_page(cases.report(cases.entry())))
    for tag, attrs in page.tags:
        assert tag not in ("link", "img", "iframe", "base")
        assert not {"src", "href"} & set(attrs)


def test_only_the_scripts_of_the_page_may_run() -> None:
    page = Page(html_page(cases.report(cases.entry(label=cases.HOSTILE), title=cases.HOSTILE)))
    (policy,) = (a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    hashes = set(re.findall(r"'sha256-([^']+)'", policy))
    executable = [text for kind, text in page.scripts if kind == "None None"]
    assert len(executable) == 2
    assert {
        base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in executable
    } == hashes


def test_hostile_names_are_text() -> None:
    hostile = html_page(cases.report(cases.entry(label=cases.HOSTILE), title=cases.HOSTILE))
    plain = Page(html_page(cases.report(cases.entry())))
    page = Page(hostile)
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert "\u2028" not in hostile.replace(get_plotlyjs(), "")
    text = " ".join(page.words)
    assert "</script><script>alert('x')</script>" in text
    assert "{{ 7 * 6 }}" in text


def test_an_entry_point_without_calls() -> None:
    page = Page(html_page(cases.report(EntryPoint("infer", (), (), 0, 0, (), ()))))
    assert page.data("call-data") == [[]]


def test_ten_thousand_calls_stay_small() -> None:
    page = html_page(cases.report(cases.large_entry(10_000)))
    assert len(page) - len(get_plotlyjs()) < 4_000_000
    (figure,) = Page(page).data("figure-data")
    assert len(figure["data"]) < 20


def test_the_same_every_time() -> None:
    report = cases.report(cases.entry())
    assert html_page(report) == html_page(report)
