"""The memory picture: complete, self-contained, and proof against hostile names."""

import json
import re
from io import BytesIO

import pytest

from niwaki.ir.lowered import Buffer, CallInfo, EntryPoint
from niwaki.tools import picture

HOSTILE = '</script><script>alert("x")</script> $\\frac{'


def _entry(label: str = "conv1") -> EntryPoint:
    return EntryPoint(
        name="train_step",
        inputs=(),
        outputs=(),
        arena_bytes=160,
        bound_bytes=128,
        buffers=(Buffer(label, 0, 64, 0, 1), Buffer("relu", 64, 64, 1, 2)),
        calls=tuple(CallInfo(f"kernel_{i}", label, 10) for i in range(3)),
    )


def test_html_is_self_contained_and_names_every_buffer() -> None:
    page = picture.memory_html(_entry(), "digits")
    assert not re.search(r"<(script|link)[^>]*(src|href)=", page)
    assert "conv1" in page
    assert "relu" in page
    assert "lower bound" in page


def test_html_escapes_names() -> None:
    page = picture.memory_html(_entry(HOSTILE), HOSTILE)
    assert "alert(" in page
    assert '<script>alert("x")' not in page
    assert json.dumps("<script>alert") not in page


def test_html_is_the_same_every_time() -> None:
    assert picture.memory_html(_entry(), "a") == picture.memory_html(_entry(), "a")


@pytest.mark.parametrize("label", ["conv1", HOSTILE])
def test_png_has_the_promised_size(label: str) -> None:
    data = picture.memory_png(_entry(label), label)
    assert data.startswith(b"\x89PNG")
    header = BytesIO(data[16:24])
    width, height = (int.from_bytes(header.read(4), "big") for _ in range(2))
    assert (width, height) == (1600, 1000)
