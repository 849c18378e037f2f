"""How much memory a compiled program needs, and where its peak is."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import Buffer, EntryPoint, Lowered, RegionUse
from niwaki.printable import printable

_LOCATION = re.compile(
    r"""loc\((?:"(?P<name>(?:[^"\\]|\\.)*)"\()?"(?P<file>(?:[^"\\]|\\.)*)":(?P<line>\d+):\d+\)+"""
)


@dataclass(frozen=True)
class Savings:
    """What was done to keep a memory limit."""

    techniques: tuple[str, ...]
    """As in "4 micro-batches", "recomputation"."""
    bytes: int
    """Bytes of arena and state less than without."""
    extra_time: float
    """Additional estimated time of a step, in per cent."""


@dataclass(frozen=True)
class Memory:
    """Bytes of each kind of memory."""

    arena_bytes: int
    """Scratch of a step; one arena serves every entry point."""
    lower_bound_bytes: int
    """Most bytes alive at once: no arena for this order of operations can be smaller."""
    state_bytes: int
    """What a step changes: updated parameters, optimizer state, counters."""
    constant_bytes: int
    """Frozen weights."""
    entries: tuple[EntryPoint, ...]
    savings: Savings | None = None
    """What was done to keep the memory limit; None if nothing was needed."""
    regions: tuple[RegionUse, ...] = ()
    """What each memory of the board holds; empty where there is one memory."""

    @classmethod
    def of(cls, lowered: Lowered, savings: Savings | None = None) -> "Memory":
        """The memory of `lowered`."""
        entries = tuple(lowered.entries.values())
        return cls(
            arena_bytes=lowered.arena_bytes,
            lower_bound_bytes=max((e.bound_bytes for e in entries), default=0),
            state_bytes=len(lowered.state_image),
            constant_bytes=len(lowered.constants_image),
            entries=entries,
            savings=savings,
            regions=lowered.regions,
        )

    def table(self) -> str:
        """Every figure, and the largest buffers at the peak of each entry point, as text."""
        lines = [
            f"{'entry point':<14}{'arena':>12}{'lower bound':>14}{'any order':>14}{'':>10}"
            f"{'calls':>8}",
            *(
                f"{e.name:<14}{e.arena_bytes:>12,}{e.bound_bytes:>14,}"
                f"{e.order_bound_bytes:>14,}{_verdict(e):>10}{len(e.calls):>8}"
                for e in self.entries
            ),
            f"{'state':<14}{self.state_bytes:>12,}",
            f"{'constants':<14}{self.constant_bytes:>12,}",
        ]
        lines += [_region_row(region) for region in self.regions]
        if self.savings is not None:
            lines.append(
                f"{' and '.join(self.savings.techniques)} saved {self.savings.bytes:,} bytes "
                f"for {self.savings.extra_time:.2f} % more estimated time"
            )
        for entry in self.entries:
            lines.append(f"largest at the peak of {entry.name}, in bytes:")
            lines += [f"  {describe(entry, buffer)}" for buffer in largest_at_peak(entry, 5)]
        return "\n".join(lines)


def _region_row(use: RegionUse) -> str:
    held = {"arena": use.arena_bytes, "state": use.state_bytes, "constants": use.constant_bytes}
    parts = " + ".join(f"{size:,} {name}" for name, size in held.items() if size) or "nothing"
    return f"{use.name:<14}{sum(held.values()):>12,} of {use.capacity:,}: {parts}"


def _verdict(entry: EntryPoint) -> str:
    """How far the order of `entry` may be from the best one."""
    if entry.order_proven:
        return "proven"
    if not entry.order_bound_bytes:
        return "unknown"
    return f"+{entry.bound_bytes / entry.order_bound_bytes - 1:.2%}"


def largest_at_peak(entry: EntryPoint, count: int) -> Sequence[Buffer]:
    """The `count` largest buffers alive during the call where most bytes are."""
    live = entry.live_bytes
    if not live:
        return ()
    peak = live.index(max(live))
    alive = [b for b in entry.buffers if b.first <= peak <= b.last]
    return sorted(alive, key=lambda b: (-b.bytes, b.offset))[:count]


def place(entry: EntryPoint, buffer: Buffer) -> str:
    """Where the operation that makes `buffer` comes from in the user's model."""
    return readable(entry.calls[buffer.first].location)


def readable(location: str) -> str:
    """The location of a call for people, as in "conv1 (model.py:31)"."""
    match = _LOCATION.fullmatch(location)
    if match is None:
        return printable(location.removeprefix("loc(").removesuffix(")"))
    line = f"{match['file']}:{match['line']}"
    return printable(line if match["name"] is None else f"{match['name']} ({line})")


def describe(entry: EntryPoint, buffer: Buffer) -> str:
    """One line: bytes, what is in the buffer, where it comes from."""
    return f"{buffer.bytes:>12,}  {printable(buffer.label)}, {place(entry, buffer)}"


class Planned(Protocol):
    """A program whose buffers have their places."""

    @property
    def entries(self) -> Mapping[str, EntryPoint]: ...
    @property
    def arena_bytes(self) -> int: ...
    @property
    def state_bytes(self) -> int: ...


def bytes_needed(planned: Planned) -> int:
    """Bytes of RAM: arena and state."""
    return planned.arena_bytes + planned.state_bytes


def check_limit(planned: Planned, limit: int) -> None:
    """Raises DoesNotFitError if arena and state together exceed `limit` bytes."""
    if bytes_needed(planned) > limit:
        raise DoesNotFitError(too_large(planned, limit))


def too_large(planned: Planned, limit: int) -> str:
    """That `planned` needs more than `limit` bytes, and the largest buffers at its peak."""
    entry = max(planned.entries.values(), key=lambda e: e.arena_bytes)
    peak = "\n".join(f"  {describe(entry, buffer)}" for buffer in largest_at_peak(entry, 3))
    return (
        f"the step needs {bytes_needed(planned):,} bytes of RAM ({planned.arena_bytes:,} arena, "
        f"{planned.state_bytes:,} state), the limit is {limit:,}.\n"
        f"The largest buffers at the peak of {entry.name}, in bytes:\n{peak}"
    )
