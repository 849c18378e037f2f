"""Neighbouring positions of a row that are worked on together, and their taps inside the input."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from niwaki.backends.kernels.gather import Gather


@dataclass(frozen=True)
class ColumnTiles:
    """Tiles of `count` positions from `first` up to `end`, the same taps inside in each."""

    first: int
    end: int
    count: int
    taps: tuple[tuple[range, ...], ...]
    """Of each position of a tile, by gather; some gathers have fewer positions."""


def column_tiles(gathers: Sequence[Gather], most: int) -> list[ColumnTiles]:
    """Tiles of at most `most` positions, as even as possible, in all gathers alike.

    Borders share tiles with what is beside them: narrow tiles would wait for their sums.
    """
    inside = [
        [range(j, j_end) for first, end, j, j_end in gather.segments() for _ in range(first, end)]
        for gather in gathers
    ]
    positions = max(map(len, inside))
    size = -(-positions // -(-positions // most))
    result: list[ColumnTiles] = []
    for first in range(0, positions, size):
        taps = tuple(tuple(ranges[first : first + size]) for ranges in inside)
        if result and result[-1].taps == taps:
            result[-1] = replace(result[-1], end=first + size)
        else:
            count = max(map(len, taps))
            result.append(ColumnTiles(first, first + count, count, taps))
    return result
