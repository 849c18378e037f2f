"""Where the inputs of a library fit into its arena: an example need not lie in memory twice."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from niwaki.backends.c.arguments import arguments_of
from niwaki.backends.c.blocks import allocated, arena_blocks
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.lowered import EntryPoint, Lowered


@dataclass(frozen=True)
class InputPlace:
    """A place in the arena."""

    block: int
    """Index in `arena_blocks`."""
    offset: int
    """Bytes from the start of the block."""


@dataclass(frozen=True)
class InputPlaces:
    """One place for each input, the same in every function."""

    places: Mapping[str, InputPlace]
    """By the argument's name in C."""
    sizes: tuple[int, ...]
    """Bytes of each block of the arena with the inputs in it."""


def place_inputs(lowered: Lowered) -> InputPlaces:
    """Puts the inputs, the largest first, where no buffer lies until they were read last.

    Where the plan leaves no such gap the last block of the arena grows.
    """
    blocks = arena_blocks(lowered)
    sizes = [block.bytes for block in blocks]
    places: dict[str, InputPlace] = {}
    inputs: list[_Range] = []
    for name, size in sorted(_input_bytes(lowered).items(), key=lambda item: -item[1]):
        taken = [*inputs, *_buffers_before_last_use(lowered, name)]
        gaps = [
            _first_gap([(r.start, r.end) for r in taken if r.region == block.region], size)
            for block in blocks
        ]
        fitting = (n for n, gap in enumerate(gaps) if gap + size <= blocks[n].bytes)
        number = next(fitting, len(blocks) - 1)
        end = gaps[number] + size
        sizes[number] = max(sizes[number], allocated(end))
        places[name] = InputPlace(number, gaps[number])
        inputs.append(_Range(blocks[number].region, gaps[number], end))
    return InputPlaces(places, tuple(sizes))


@dataclass(frozen=True)
class _Range:
    """Bytes of a block."""

    region: str
    start: int
    end: int


def _input_bytes(lowered: Lowered) -> dict[str, int]:
    return {
        a.name: a.port.elements * np.dtype(a.port.dtype).itemsize
        for entry in lowered.entries.values()
        for a in arguments_of(entry)
        if a.read
    }


def _buffers_before_last_use(lowered: Lowered, name: str) -> Iterable[_Range]:
    """What any function has in the arena before it has read the input `name` for the last time."""
    programs = {program.sym_name.data: program for program in lowered.programs}
    for entry in lowered.entries.values():
        names = [a.name for a in arguments_of(entry) if a.read]
        if name not in names:
            continue
        last = _last_use(programs[entry.name], names.index(name))
        yield from (r for first, r in _buffers(entry) if first <= last)


def _last_use(program: plan.ProgramOp, number: int) -> int:
    """The last call that reads input `number`; -1 if none does."""
    calls = [op for op in program.body.block.ops if isinstance(op, plan.CallOp)]
    return max((n for n, call in enumerate(calls) if _reads(call, number)), default=-1)


def _reads(call: plan.CallOp, number: int) -> bool:
    views = (a.owner for a in call.arguments)
    return any(
        isinstance(view, plan.ViewOp)
        and view.space.data == "input"
        and get_int(view.properties, "index") == number
        for view in views
    )


def _buffers(entry: EntryPoint) -> Iterable[tuple[int, _Range]]:
    """The call that writes each buffer first, and its bytes."""
    starts = {part.region: part.start for part in entry.regions}
    for buffer in entry.buffers:
        start = buffer.offset - starts.get(buffer.region, 0)
        yield buffer.first, _Range(buffer.region, start, start + buffer.bytes)


def _first_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    """The first aligned place of `size` bytes that overlaps nothing."""
    place = 0
    for start, end in sorted(taken):
        if place + size <= start:
            break
        place = max(place, allocated(end))
    return place
