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
_LEAST_ROWS_TO_PACK = 12
"""Rows of A for which rewriting B pays."""
_LEAST_ROWS_BESIDE_DOTS = 48
"""Rows of A for which it pays even beside dot products of what is in cache."""
_MOST_ROWS_UNPACKED = 64
"""Rows of A up to which it does not pay for a B that fills the cache."""

_STRIP_POSITIONS = 192
"""Of a strip of a convolution: they share one pass over its packed filter."""
_LEAST_POSITIONS_FOR_STRIPS = 64
"""Fewer would not outweigh loading and storing the sums."""
_CACHES_FOR_STRIPS = 6
"""Below, the next larger cache keeps up."""
_CACHES_FOR_PREFETCHED_STRIPS = 1

_BANDS = 8
_LEAST_OF_BAND = 128
"""Terms of each sum."""


@dataclass(frozen=True)
class RegisterTile:
    """`rows` of A times `blocks` vectors of B."""

    rows: int
    blocks: int

    def __str__(self) -> str:
        return f"{self.rows}x{self.blocks}"


def packs_columns(rows: int, target: Target) -> bool:
    """Whether B is packed in panels: for vectors only, and enough rows to share the work."""
    return target.lanes > 1 and rows >= _LEAST_ROWS_TO_PACK


def packs_instead_of_dots(rows: int, column_bytes: int, target: Target) -> bool:
    """Whether B, contiguous along the sum, is packed where dot products could read it in place.

    Dot products wait for memory, and their epilogue takes one element at a time; packing has to be
    shared by more rows, fewer where B is larger than the cache.
    """
    least = _LEAST_ROWS_BESIDE_DOTS
    if column_bytes > target.cache_bytes:
        least //= 2
    return target.lanes > 1 and rows >= least


def keeps_columns(rows: int, column_bytes: int, target: Target) -> bool:
    """Whether B, contiguous along its rows, is read where it is, again for each tile of rows.

    It then stays in cache, and rows are too few to share the work of packing; of a smaller B more
    rows are, since more of it stays in the first cache.
    """
    read_again = rows * column_bytes
    return (
        column_bytes <= target.cache_bytes
        and read_again <= _MOST_ROWS_UNPACKED * target.cache_bytes
    )


def sums_by_strips(
    positions: int, read_bytes: int, tile: int, prefetched: bool, target: Target
) -> bool:
    """Whether a filter's cotangent is summed up strip by strip of positions.

    For vectors only, and if tiles of one tap would read much more than stays in cache, one after
    another, or if the `tile` vectors of their sums are so few that each waits for itself.
    `prefetched`: whether each strip brings the next one into the cache.
    """
    caches = _CACHES_FOR_PREFETCHED_STRIPS if prefetched else _CACHES_FOR_STRIPS
    far, waits = read_bytes > caches * target.cache_bytes, tile < 2 * _LATENCY
    return target.lanes > 1 and positions >= _LEAST_POSITIONS_FOR_STRIPS and (far or waits)


def band_count(terms: int, sums: int, target: Target) -> int:
    """In how many bands `sums` sums of so many terms are kept apart until all are added up.

    Threads can share the bands. There are as many for one thread, so that results are the same.
    """
    fit = 4 * sums * _BANDS <= target.cache_bytes // 4
    shared = target.lanes > 1 and not target.has_flash and terms >= _BANDS * _LEAST_OF_BAND
    return _BANDS if shared and fit else 1


def register_tile(
    rows: int, columns: int, target: Target, regular: Callable[[int], bool]
) -> RegisterTile:
    """The first of `register_tiles`."""
    return register_tiles(rows, columns, target, regular)[0]


def register_tiles(
    rows: int, columns: int, target: Target, regular: Callable[[int], bool]
) -> list[RegisterTile]:
    """The best tile of each number of vectors, the one that takes the fewest cycles first.

    There are at least one row and one column.
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
            cycles = product_cycles(rows, vectors, RegisterTile(height, blocks))
            cycles *= 1.0 if alike else 1.1
            if cycles < least:
                best, least = RegisterTile(height, blocks), cycles
        if least < float("inf"):
            found.append((least, best))
    return [tile for _, tile in sorted(found, key=lambda item: item[0])]


def product_cycles(rows: int, vectors: int, register_tile: RegisterTile) -> float:
    """Of one term of every sum of rows x vectors."""
    height, blocks = register_tile.rows, register_tile.blocks

    def tile(height: int, blocks: int) -> int:
        return max(height * blocks, height + blocks, _LATENCY) + 1

    def strip(blocks: int) -> int:
        whole, rest = divmod(rows, height)
        return whole * tile(height, blocks) + (tile(rest, blocks) if rest else 0)

    # As `panels` cuts them: as even as possible.
    count = -(-vectors // blocks)
    wide = vectors - (count - 1) * -(-vectors // count)
    return (count - 1) * strip(-(-vectors // count)) + strip(max(wide, 1))


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
