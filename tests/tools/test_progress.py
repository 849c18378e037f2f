"""Progress appears on terminals only, and leaves nothing behind."""

import io
import sys

import pytest

from niwaki.tools.progress import Progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def shown(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    with Progress() as progress:
        progress.show("step 1")
        progress.show("step 2")
    return stream.getvalue()


def test_silent_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(io.StringIO(), monkeypatch) == ""


def test_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(Terminal(), monkeypatch)
    assert "step 1" in text
    assert text.endswith("\r\x1b[K")
