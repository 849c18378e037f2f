"""Progress on stderr, where a person watches."""

import sys
import time
from types import TracebackType
from typing import Self

INTERVAL = 0.1


class Progress:
    """One line that is rewritten; nothing at all where stderr is no terminal."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._next = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown:
            sys.stderr.write("\r\x1b[K")

    def show(self, line: str) -> None:
        """Replaces the line, at most ten times a second."""
        now = time.monotonic()
        if not self._shown or now < self._next:
            return
        self._next = now + INTERVAL
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()
