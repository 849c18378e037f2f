"""What the page and the picture draw alike: colours, which names fit, the horizontal lines."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from niwaki.ir.lowered import Buffer, EntryPoint
from niwaki.memory import place
from niwaki.printable import printable

WORKSPACE = "workspace"
OTHER = "other"

_COLOURS = ("#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#edc948", "#b07aa1")
"""Of Tableau's palette of ten: tells neighbours apart on white and on black."""
_OTHER_COLOUR = "#9c8f88"
_WORKSPACE_COLOUR = "#bab0ac"
_LIGHT = {"#f28e2b", "#76b7b2", "#edc948", _WORKSPACE_COLOUR}
"""Colours on which black is easier to read than white."""


@dataclass(frozen=True)
class Group:
    """Buffers of one colour: those that calls of one operation make."""

    name: str
    colour: str
    buffers: tuple[Buffer, ...]

    @property
    def text_colour(self) -> str:
        """For names inside the rectangles."""
        return "#1a1a1a" if self.colour in _LIGHT else "#ffffff"


def groups(entry: EntryPoint) -> list[Group]:
    """The buffers by what makes them, by area (bytes x calls); the many small ones together."""
    kinds = [_kind(entry, b) for b in entry.buffers]
    area: Counter[str] = Counter()
    for kind, buffer in zip(kinds, entry.buffers, strict=True):
        area[kind] += buffer.bytes * (buffer.last + 1 - buffer.first)
    ranked = [kind for kind, _ in area.most_common() if kind != WORKSPACE]
    colours = dict(zip(ranked, _COLOURS, strict=False))
    members: dict[str, list[Buffer]] = {name: [] for name in (*colours, OTHER, WORKSPACE)}
    for kind, buffer in zip(kinds, entry.buffers, strict=True):
        members[kind if kind in members else OTHER].append(buffer)
    colours |= {OTHER: _OTHER_COLOUR, WORKSPACE: _WORKSPACE_COLOUR}
    return [Group(name, colours[name], tuple(of)) for name, of in members.items() if of]


def _kind(entry: EntryPoint, buffer: Buffer) -> str:
    is_workspace = buffer.label.startswith("workspace of ")
    return WORKSPACE if is_workspace else entry.calls[buffer.first].op


@dataclass(frozen=True)
class Canvas:
    """Sizes of the buffer plot, to say which names fit."""

    width: float
    height: float
    character: float
    """Width of a character, in the unit of the two."""

    def caption(self, entry: EntryPoint, buffer: Buffer) -> str:
        """The longest name of `buffer` that fits into its rectangle; "" if none does."""
        width = (buffer.last + 1 - buffer.first) / len(entry.calls) * self.width
        height = buffer.bytes / max(entry.arena_bytes, 1) * self.height
        if height < 2.4 * self.character:
            return ""
        label = shortened(printable(buffer.label), 40)
        module = place(entry, buffer).partition(" (")[0]
        names = (f"{label} · {shortened(module, 40)}", label) if module else (label,)
        return next((n for n in names if (len(n) + 1) * self.character <= width), "")


def shortened(text: str, most: int) -> str:
    """`text` with its middle left out if it is longer than `most`."""
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[head + 1 - most :]}"


def levels(entry: EntryPoint) -> Sequence[tuple[str, int]]:
    """(text, bytes) of the horizontal lines in the plot of bytes alive."""
    if entry.arena_bytes == entry.bound_bytes:
        return [(f"arena = lower bound: {entry.arena_bytes:,} bytes", entry.arena_bytes)]
    return [
        (f"arena: {entry.arena_bytes:,} bytes", entry.arena_bytes),
        (f"lower bound: {entry.bound_bytes:,} bytes", entry.bound_bytes),
    ]


UNITS: Mapping[str, int] = {"MiB": 1 << 20, "KiB": 1 << 10, "bytes": 1}


def unit_of(size: int) -> tuple[str, int]:
    """(name, bytes) of the unit in which an axis up to `size` bytes is easy to read."""
    return next((u for u in UNITS.items() if size >= 4 * u[1]), ("bytes", 1))
