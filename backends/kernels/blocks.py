"""A row cut into vectors: full ones, then a tail of halving widths."""

from collections.abc import Callable
from dataclasses import dataclass

from niwaki.backends.kernels.builder import Index, KernelBuilder


@dataclass(frozen=True)
class Block:
    """Columns [start, start + lanes) of a row."""

    start: int
    lanes: int


def split(size: int, lanes: int, start: int = 0) -> list[Block]:
    """Columns [start, size): 24 by 16 is 16, then 8; 10 by 8 is 8, then 2."""
    blocks: list[Block] = []
    while start < size:
        while lanes > size - start:
            lanes //= 2
        blocks.append(Block(start, lanes))
        start += lanes
    return blocks


def each_block(k: KernelBuilder, size: int, lanes: int, body: Callable[[Index, int], None]) -> None:
    """body(start, lanes) for every block of a row of `size`: a loop of full ones, then the tail."""
    full = size - size % lanes
    if full == lanes:
        body(0, lanes)
    elif full:
        k.each(0, full, lanes, lambda i: body(i, lanes))
    for block in split(size, lanes, full):
        body(block.start, block.lanes)
