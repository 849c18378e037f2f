"""Register tiles: the inner loops of every contraction.

A tile is `rows` x `blocks` accumulators in registers. Two forms, by what is contiguous in memory:
the outer product (a row of B is contiguous: B's vectors times A's scalars) and the dot product
(rows of A and of B are contiguous along the sum).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from xdsl.dialects.builtin import f32
from xdsl.ir import Attribute

from niwaki.backends.kernels.blocks import Block, split
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.targets import Target


@dataclass(frozen=True)
class Panel:
    """`repeat` neighbouring column ranges of one width, `blocks` relative to each one's start."""

    start: int
    width: int
    repeat: int
    blocks: tuple[Block, ...]
    columns: int
    """That exist; those behind them, up to `width`, are padding."""

    def parts(self, block: Block) -> list[Block]:
        """The columns of a block that exist, relative to its start."""
        return split(min(block.lanes, self.columns - block.start), block.lanes)


def padded_panels(size: int, target: Target, most: int) -> list[Panel]:
    """Like `panels`, of whole vectors: what is packed can be padded."""
    lanes = target.lanes
    while size <= lanes // 2:
        lanes //= 2
    *others, last = panels(-(-size // lanes) * lanes, target, most)
    if last.repeat > 1 and size % lanes:
        stop = last.start + last.width * (last.repeat - 1)
        others.append(replace(last, repeat=last.repeat - 1))
        last = replace(last, start=stop, repeat=1)
    columns = last.width if last.repeat > 1 else size - last.start
    return [*others, replace(last, columns=columns)]


def panels(size: int, target: Target, most: int = 4) -> list[Panel]:
    """Column ranges of at most `most` vectors: equal ones first (a loop), then the rest."""
    most = most if target.vector_registers >= 16 else min(most, 2)
    full = size // target.lanes
    result: list[Panel] = []
    start = 0
    if full >= most:
        # Even panels beat a full one and a thin one: 5 vectors are 3 + 2, not 4 + 1.
        each = -(-full // (-(-full // most)))
        width = each * target.lanes
        repeat = full // each
        result.append(Panel(0, width, repeat, tuple(split(width, target.lanes)), width))
        start = width * repeat
    rest = size - start
    while rest > 0:
        width = min(rest, most * target.lanes)
        result.append(Panel(start, width, 1, tuple(split(width, target.lanes)), width))
        start, rest = start + width, rest - width
    return result


def tile_rows(count: int, blocks: int, target: Target, most: int = 16) -> int:
    """Rows of a tile beside `blocks` vectors of B, for `count` rows in all: few, even tiles."""
    budget = target.vector_registers - blocks - 2
    rows = max(1, min(budget // blocks, most, count))
    tiles = -(-count // rows)
    return -(-count // tiles)


def each_tile(k: KernelBuilder, count: int, rows: int, body: Callable[[Index, int], None]) -> None:
    """body(first row, number of rows) for tiles of `rows` rows, then for the remainder."""
    whole = count - count % rows
    if whole == rows:
        body(0, rows)
    elif whole:
        k.each(0, whole, rows, lambda row: body(row, rows))
    if count > whole:
        body(whole, count - whole)


def each_panel(
    k: KernelBuilder, columns: Sequence[Panel], body: Callable[[Index, Panel], None]
) -> None:
    """body(first column, panel) for every panel."""
    for panel in columns:
        if panel.repeat == 1:
            body(panel.start, panel)
            continue
        stop = panel.start + panel.width * panel.repeat

        def run(column: Value, panel: Panel = panel) -> None:
            body(column, panel)

        k.each(panel.start, stop, panel.width, run)


Accumulators = list[list[Value]]
"""[row][block]."""


def zeros(
    k: KernelBuilder, rows: int, blocks: Sequence[Block], element: Attribute = f32
) -> Accumulators:
    """Accumulators of a new tile."""
    return [[k.constant(0, element, b.lanes) for b in blocks] for _ in range(rows)]


def _flat(tile: Accumulators) -> list[Value]:
    return [v for row in tile for v in row]


def _shaped(values: Sequence[Value], blocks: int) -> Accumulators:
    return [list(values[i : i + blocks]) for i in range(0, len(values), blocks)]


Step = Callable[[Index, Accumulators], Accumulators]
"""(i, tile) -> tile with the i-th term added."""


def accumulate(
    k: KernelBuilder, start: Index, stop: Index, tile: Accumulators, step: Step, unroll: int = 1
) -> Accumulators:
    """tile = step(i, tile) for i in [start, stop), `unroll` of them per iteration."""
    if isinstance(start, int) and isinstance(stop, int):
        main = stop - (stop - start) % unroll
        if main > start + unroll:
            tile = _loop(k, start, main, tile, step, unroll)
            start = main
        for i in range(start, stop):
            tile = step(i, tile)
        return tile
    return _loop(k, start, stop, tile, step, 1)


def _loop(
    k: KernelBuilder, start: Index, stop: Index, tile: Accumulators, step: Step, unroll: int
) -> Accumulators:
    blocks = len(tile[0])

    def run(i: Value, values: Sequence[Value]) -> Sequence[Value]:
        inner = _shaped(values, blocks)
        for u in range(unroll):
            inner = step(k.iadd(i, u), inner)
        return _flat(inner)

    return _shaped(k.loop(start, stop, unroll, run, _flat(tile)), blocks)


def unroll_of(rows: int, blocks: int) -> int:
    """Steps of the sum per iteration, so that small tiles are not all loop overhead."""
    return max(1, min(4, 16 // (rows * blocks)))


def outer_step(
    k: KernelBuilder,
    a: Callable[[int, Index], Value],
    b: Callable[[Block, Index], Value],
    blocks: Sequence[Block],
) -> Step:
    """tile[row][block] += a(row, i) * b(block, i): a scalar times a vector."""

    def step(i: Index, tile: Accumulators) -> Accumulators:
        vectors = [b(block, i) for block in blocks]
        result: Accumulators = []
        for row, sums in enumerate(tile):
            scalar = a(row, i)
            result.append(
                [
                    k.fma(k.broadcast(scalar, block.lanes), vector, total)
                    for block, vector, total in zip(blocks, vectors, sums, strict=True)
                ]
            )
        return result

    return step


def dot_tile(
    k: KernelBuilder,
    length: int,
    lanes: int,
    a: Callable[[int, Index, int], Value],
    b: Callable[[int, Index, int], Value],
    rows: int,
    columns: int,
    element: Attribute = f32,
) -> Accumulators:
    """[row][column] scalars: sum over i < length of a(row, i) * b(column, i).

    a and b are given (row or column, i, lanes). Partial sums per lane, added in pairs at the end.
    """
    parts = split(length, lanes)
    width = parts[0].lanes
    whole = sum(1 for p in parts if p.lanes == width)

    def step_of(lanes: int) -> Step:
        def step(i: Index, tile: Accumulators) -> Accumulators:
            left = [a(row, i, lanes) for row in range(rows)]
            right = [b(column, i, lanes) for column in range(columns)]
            return [
                [k.fma(x, y, total) for y, total in zip(right, sums, strict=True)]
                for x, sums in zip(left, tile, strict=True)
            ]

        return step

    start = zeros(k, rows, [Block(0, width)] * columns, element)
    step = step_of(width)
    tile = accumulate(
        k,
        0,
        whole,
        start,
        lambda i, t: step(k.imul(i, width), t),
        unroll_of(rows, columns),
    )
    sums = [[k.sum_lanes(v) for v in row] for row in tile]
    for part in parts[whole:]:
        none = zeros(k, rows, [Block(0, part.lanes)] * columns, element)
        rest = step_of(part.lanes)(part.start, none)
        sums = [
            [k.add(s, k.sum_lanes(r)) for s, r in zip(row, extra, strict=True)]
            for row, extra in zip(sums, rest, strict=True)
        ]
    return sums
