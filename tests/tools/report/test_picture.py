"""The PNG of an entry point."""

import pytest

from niwaki.ir.lowered import EntryPoint
from niwaki.tools.report.picture import png_picture
from tests.tools.report import cases

ENTRIES = {
    "small": cases.entry(),
    "hostile": cases.entry(label=cases.HOSTILE),
    "large": cases.large_entry(10_000),
    "empty": EntryPoint("infer", (), (), 0, 0, (), ()),
}


@pytest.mark.parametrize("name", ENTRIES)
def test_png_has_the_promised_size(name: str) -> None:
    data = png_picture(cases.report(ENTRIES[name]).entries[0], f"{name} {cases.HOSTILE}")
    assert data.startswith(b"\x89PNG")
    width, height = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    assert (width, height) == (1600, 1000)
