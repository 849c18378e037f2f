"""Kernel choice: which algorithm and which register tile, from shape and target alone.

The model counts cycles of a machine that starts one vector multiply-add and one load per cycle.
"""

from collections.abc import Callable
from dataclasses import dataclass

from niwaki.backends.targets import Target

_MOST_BLOCKS = 4
"""Vectors of a panel: more leave too few registers for rows."""
_MOST_ROWS = 14
_MOST_POINTERS = 8
"""Rows of a tile that each need a register for their address."""
_LATENCY = 4
"""Cycles until the result of a multiply-add can be used."""
_FIRST_CACHE_BYTES = 32 << 10
COPY_CYCLES = 2
"""To load and store a vector."""
_FAR_CYCLES = (0.5, 1.5)
"""More for a vector that comes from the largest cache of a core, or from behind it, in order."""
SUM_CYCLES = 12
"""To add a vector of a tile to sums that wait in scratch."""
RUN_CYCLES = 3
"""To begin a run of elements to copy."""
_TRANSPOSE_CYCLES = 6
"""Of a vector, while it is packed."""
_ACROSS_CYCLES = 8
"""To add up the lanes of a vector."""

_STRIP_POSITIONS = 192
"""Of a strip of a convolution: they share one pass over its packed filter."""


@dataclass(frozen=True)
class RegisterTile:
    """`rows` of A times `blocks` vectors of B."""

    rows: int
    blocks: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.blocks}"


def spends_scratch(target: Target) -> bool:
    """Whether scratch may buy time: scalar machines gain nothing, boards have none to spare."""
    return target.lanes > 1 and not target.has_flash


def register_tiles(
    rows: int, columns: int, target: Target, regular: Callable[[int], bool]
) -> list[RegisterTile]:
    """The best tile of each number of vectors, the one that takes the fewest cycles first.

    `regular`: whether all tiles of that many rows lie alike in memory, so that one address
    register serves all rows of a tile.
    """
    vectors = -(-columns // target.lanes)
    found: list[tuple[float, RegisterTile]] = []
    for blocks in range(1, min(_MOST_BLOCKS, vectors) + 1):
        best, least = RegisterTile(1, blocks), float("inf")
        for height in range(1, min(_MOST_ROWS, rows) + 1):
            if height * blocks + blocks + 1 > target.vector_registers:
                continue
            alike = regular(height)
            if not alike and height > _MOST_POINTERS:
                continue
            cycles = _cycles(rows, vectors, height, blocks) * (1.0 if alike else 1.1)
            if cycles < least:
                best, least = RegisterTile(height, blocks), cycles
        if least < float("inf"):
            found.append((least, best))
    return [tile for _, tile in sorted(found, key=lambda item: item[0])]


def product_cycles(
    rows: int, columns: int, length: int, tile: RegisterTile, target: Target
) -> float:
    """Of a product whose operands are in the smallest cache."""
    return length * _cycles(rows, -(-columns // target.lanes), tile.rows, tile.blocks)


def _cycles(rows: int, vectors: int, height: int, blocks: int) -> int:
    """Of one term of every sum."""

    def tile(height: int, blocks: int) -> int:
        return max(height * blocks, height + blocks, _LATENCY) + 1

    def strip(blocks: int) -> int:
        whole, rest = divmod(rows, height)
        return whole * tile(height, blocks) + (tile(rest, blocks) if rest else 0)

    # As `panels` cuts them: as even as possible.
    count = -(-vectors // blocks)
    wide = vectors - (count - 1) * -(-vectors // count)
    return (count - 1) * strip(-(-vectors // count)) + strip(max(wide, 1))


def unpacked_cycles(
    rows: int, columns: int, length: int, tile: RegisterTile, target: Target
) -> float:
    """Of a product that reads B where it is: all of it for every row of tiles.

    That takes longer if B does not stay in the smallest cache.
    """
    far = _far_cycles(4 * length * columns, target)
    vectors = -(-rows // tile.rows) * length * -(-columns // target.lanes)
    return product_cycles(rows, columns, length, tile, target) + far * vectors


def dots_cycles(rows: int, columns: int, length: int, target: Target) -> float:
    """Of a product by dot products, in tiles of 4 x 4.

    All of B is read for every row of tiles.
    """
    tiles = -(-rows // 4) * -(-columns // 4)
    height, width = min(rows, 4), min(columns, 4)
    step = max(height * width, height + width, _LATENCY) + 1
    step += 2 * width * _far_cycles(4 * length * columns, target)
    return tiles * (-(-length // target.lanes) * step + height * width * _ACROSS_CYCLES)


def _far_cycles(size: int, target: Target) -> float:
    """More for each vector of `size` bytes that are read again and again."""
    if size <= _FIRST_CACHE_BYTES:
        return 0
    return _FAR_CYCLES[size > target.cache_bytes]


def pack_cycles(elements: int, transposed: bool, target: Target) -> float:
    """To rewrite so many elements in panels; `transposed`: where columns lie as rows."""
    return elements / target.lanes * (_TRANSPOSE_CYCLES if transposed else COPY_CYCLES)


def divisor(count: int, least: int) -> int:
    """The smallest divisor of `count` that is at least `least`, or all."""
    return next((n for n in range(max(1, least), count) if count % n == 0), count)


def strip_rows(rows: int, positions: int, row_bytes: int, target: Target) -> int:
    """How many of `rows` (of so many positions each) are worked on at a time.

    Enough positions to share what streams past, few enough that what they read stays in cache.
    """
    count = divisor(rows, -(-_STRIP_POSITIONS // positions))
    most = max(1, target.cache_bytes // 2 // max(row_bytes, 1))
    if count <= most:
        return count
    for count in range(most, max(0, most // 2), -1):
        if rows % count == 0:
            return count
    return -(-rows // -(-rows // most))


def tiled_rows(rows: int, height: int, row_bytes: int, target: Target) -> int:
    """Like `strip_rows`, in tiles of `height` rows."""
    most = target.cache_bytes // 2 // max(row_bytes, 1)
    return rows if most >= rows else max(height, most - most % height)
