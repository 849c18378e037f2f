"""How much memory a compiled program needs, and where its peak is."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import Buffer, EntryPoint, Lowered
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
    extra_flops: float
    """Additional floating-point operations of a step, in per cent."""


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
        if self.savings is not None:
            lines.append(
                f"{' and '.join(self.savings.techniques)} saved {self.savings.bytes:,} bytes "
                f"for {self.savings.extra_flops:.2f} % more operations"
            )
        for entry in self.entries:
            lines.append(f"largest at the peak of {entry.name}, in bytes:")
            lines += [f"  {describe(entry, buffer)}" for buffer in largest_at_peak(entry, 5)]
        return "\n".join(lines)


def _verdict(entry: EntryPoint) -> str:
    """How far the order of `entry` may be from the best one."""
    if entry.order_proven:
        return "proven"
    if not entry.order_bound_bytes:
        return "unknown"
    return f"+{entry.bound_bytes / entry.order_bound_bytes - 1:.2%}"


def live_bytes(entry: EntryPoint) -> list[int]:
    """Bytes alive during each call."""
    change = [0] * (len(entry.calls) + 1)
    for buffer in entry.buffers:
        change[buffer.first] += buffer.bytes
        change[buffer.last + 1] -= buffer.bytes
    total, live = 0, list[int]()
    for delta in change[:-1]:
        total += delta
        live.append(total)
    return live


def largest_at_peak(entry: EntryPoint, count: int) -> Sequence[Buffer]:
    """The `count` largest buffers alive during the call where most bytes are."""
    live = live_bytes(entry)
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


def bytes_needed(lowered: Lowered) -> int:
    """Bytes of RAM: arena and state."""
    return lowered.arena_bytes + len(lowered.state_image)


_LEAST = "That is the least that strips of rows, recomputation and micro-batches reach."


def check_limit(lowered: Lowered, limit: int, tried: bool = False, refusal: str = "") -> None:
    """Raises DoesNotFitError if arena and state together exceed `limit` bytes.

    `tried`: `lowered` is the smallest of several plans; `refusal`: why the batch was not split.
    """
    need = bytes_needed(lowered)
    if need <= limit:
        return
    entry = max(lowered.entries.values(), key=lambda e: e.arena_bytes)
    peak = "\n".join(f"  {describe(entry, buffer)}" for buffer in largest_at_peak(entry, 3))
    lines = [
        f"the step needs {need:,} bytes of RAM ({lowered.arena_bytes:,} arena, "
        f"{len(lowered.state_image):,} state), the limit is {limit:,}.",
        *([_LEAST] if tried else []),
        *([f"No micro-batches: {refusal}."] if refusal else []),
        f"The largest buffers at the peak of {entry.name}, in bytes:\n{peak}",
        *_freezing(lowered, need - limit),
        "Update fewer layers, use a smaller batch, or an optimizer with less state.",
    ]
    raise DoesNotFitError("\n".join(lines))


def _freezing(lowered: Lowered, excess: int) -> list[str]:
    """Up to which layer to freeze so that the activations kept for it free `excess` bytes."""
    entry = lowered.entries.get("train_step")
    if entry is None or entry.arena_bytes < lowered.arena_bytes:
        return []
    live = live_bytes(entry)
    peak = live.index(max(live))
    kept = [b for b in entry.buffers if b.first < peak < b.last]
    freed = 0
    for buffer in sorted(kept, key=lambda b: b.first):
        freed += buffer.bytes
        if freed >= excess:
            where = f"{printable(buffer.label)}, {place(entry, buffer)}"
            return [f"Freezing the layers up to {where} frees about {freed:,} bytes there."]
    return []
