"""The page in a browser: it draws, answers and complains about nothing."""

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest

from niwaki.tools.report.page import html_page
from tests.tools.report import cases

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1300,1500",
    # Timers run ahead of the clock: the picture is taken when nothing is left to do.
    "--virtual-time-budget=30000",
    "--enable-logging=stderr",
    "--v=0",
)
SMALL = cases.report(cases.large_entry(40), cases.entry("infer"))

USE_THE_PAGE = """
const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const type = async (text) => {
  search.value = text;
  search.dispatchEvent(new Event("input"));
  await pause(500);
};
addEventListener("load", async () => {
  const result = {};
  await pause(500);
  const figure = document.querySelector(".figure");
  const rows = () => [...document.querySelector(".calls tbody").rows];
  result.bars = figure.querySelectorAll(".barlayer .point").length;
  result.rows = rows().length;
  await type("LAYER7 ");
  result.found = document.querySelector("output").textContent;
  result.bright = figure.data.filter((t) => t.type === "bar")
    .flatMap((t) => t.marker.opacity).filter((opacity) => opacity === 1).length;
  result.matching = rows().map((row) => row.cells[1].textContent);
  await type("");
  const heading = document.querySelectorAll(".calls th")[4];
  heading.click();
  heading.click();
  result.first = rows()[0].cells[4].textContent;
  Plotly.Fx.hover(figure, [{ curveNumber: 0, pointNumber: 0 }]);
  result.hover = document.querySelector(".hoverlayer").textContent;
  document.querySelectorAll("nav button")[1]?.click();
  await pause(500);
  result.shown = [...document.querySelectorAll("section")].map((section) => !section.hidden);
  result.images = document.images.length;
  document.documentElement.dataset.result = JSON.stringify(result);
});
"""


@pytest.fixture(scope="module")
def chromium() -> str:
    """The browser; skips where there is none, and fails instead in continuous integration."""
    found = shutil.which("chromium")
    if found is None and "CI" in os.environ:
        pytest.fail("chromium is not installed")
    if found is None:
        pytest.skip("chromium is not installed")
    return found


def browse(chromium: str, page: str, folder: Path, *flags: str) -> str:
    """Opens `page`; returns what it became. Fails on any message of the console."""
    file = folder / "page.html"
    file.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [chromium, *FLAGS, *flags, profile, file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"CONSOLE.*", done.stderr) == []
    return done.stdout


def use(chromium: str, page: str, folder: Path) -> dict[str, Any]:
    """What a user sees who searches, sorts, points and changes the entry point."""
    # The policy of the page would not let the script of this test run.
    page = re.sub(r"<meta http-equiv=[^>]*>", "", page, count=1)
    head, end = page.rsplit("</body>", 1)
    dom = browse(
        chromium, f"{head}<script>{USE_THE_PAGE}</script></body>{end}", folder, "--dump-dom"
    )
    match = re.search(r'<html[^>]* data-result="([^"]*)"', dom)
    assert match is not None
    return json.loads(html.unescape(match[1]))


@pytest.mark.parametrize("dark", [False, True])
def test_screenshot(chromium: str, tmp_path: Path, dark: bool) -> None:
    picture = tmp_path / "page.png"
    scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
    browse(chromium, html_page(SMALL), tmp_path, f"--screenshot={picture}", scheme)
    pixels = (matplotlib.image.imread(picture)[:, :, :3] * 255).round().astype(np.uint8)
    assert pixels.shape == (1500, 1300, 3)
    assert (pixels[-1, 0].mean() < 60) == dark
    colours, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    areas = {tuple(int(c) for c in k): n for k, n in zip(colours, counts, strict=True)}
    # Rectangles of three operations, and text: anything but an empty page.
    for colour in ((0x4E, 0x79, 0xA7), (0xF2, 0x8E, 0x2B), (0x59, 0xA1, 0x4F)):
        assert areas[colour] > 2000
    assert len(areas) > 100


def test_use(chromium: str, tmp_path: Path) -> None:
    assert use(chromium, html_page(SMALL), tmp_path) == {
        "bars": 40,
        "rows": 40,
        "found": "buffers: 1 (64 bytes), calls: 1",
        "bright": 1,
        "matching": ["elementwise_7"],
        "first": "3,900",
        "hover": "activation 0layer0 (model.py:0)64 bytes at 0calls 0 to 39",
        "shown": [False, True],
        "images": 0,
    }


def test_hostile_names(chromium: str, tmp_path: Path) -> None:
    report = cases.report(cases.entry(label=cases.HOSTILE), title=cases.HOSTILE)
    page = html_page(report)
    browse(chromium, page, tmp_path, "--dump-dom")
    result = use(chromium, page, tmp_path)
    assert result["bars"] == 2
    assert result["images"] == 0
    assert result["hover"].startswith("</script><script>alert('x')</script>")


def test_ten_thousand_calls(chromium: str, tmp_path: Path) -> None:
    result = use(chromium, html_page(cases.report(cases.large_entry(10_000))), tmp_path)
    assert (result["bars"], result["rows"]) == (10_000, 200)
    assert result["first"] == "999,900"
    assert result["found"] == "buffers: 1111 (71,104 bytes), calls: 1111"
    assert len(result["matching"]) == 200
