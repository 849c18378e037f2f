"""B of a product rewritten so that tiles read it in order: panel after panel, each [i][column]."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from niwaki.backends.kernels.blocks import split
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.tiles import Panel


@dataclass(frozen=True)
class RowLoop:
    """One loop over rows of B, with its stride there in elements."""

    count: int
    step: int


Pack = Callable[[Index, Panel, Index], None]
"""(first column, panel, where to): packs one panel."""


def pack_rows(
    k: KernelBuilder, source: Operand, start: Index, rows: Sequence[RowLoop], scratch: Operand
) -> Pack:
    """For B whose rows are contiguous; they follow each other as the loops `rows` do."""

    def pack(column: Index, panel: Panel, goal: Index) -> None:
        def row(place: Index, number: Index) -> None:
            target = k.iadd(k.imul(number, panel.width), goal)
            for block in panel.blocks:
                parts = panel.parts(block)
                for part in parts:
                    offset = block.start + part.start
                    value = source.load(k, k.iadd(place, offset), part.lanes)
                    k.store(value, scratch.ref, [k.iadd(target, offset)])
                used = parts[-1].start + parts[-1].lanes
                for part in split(block.lanes, block.lanes, used):
                    zero = k.constant(0, scratch.element, part.lanes)
                    k.store(zero, scratch.ref, [k.iadd(target, block.start + part.start)])

        def level(loops: Sequence[RowLoop], place: Index, number: Index) -> None:
            if not loops:
                row(place, number)
                return
            loop, *inner = loops

            def run(i: Index) -> None:
                level(
                    inner,
                    k.iadd(k.imul(i, loop.step), place),
                    k.iadd(k.imul(number, loop.count), i),
                )

            if loop.count == 1:
                run(0)
            else:
                k.each(0, loop.count, 1, run)

        level(rows, k.iadd(column, start), 0)

    return pack


def pack_transposed(
    k: KernelBuilder, source: Operand, start: Index, stride: int, length: int, scratch: Operand
) -> Pack:
    """For B whose columns are contiguous, `stride` elements from one to the next."""

    def pack(column: Index, panel: Panel, goal: Index) -> None:
        for block in panel.blocks:
            used = sum(part.lanes for part in panel.parts(block))
            first = k.iadd(k.imul(k.iadd(column, block.start), stride), start)
            place = k.iadd(goal, block.start)
            pack_square_by_square(
                k, source, first, stride, length, (used, block.lanes), scratch, place, panel.width
            )

    return pack


def pack_square_by_square(
    k: KernelBuilder,
    source: Operand,
    first: Index,
    stride: int,
    length: int,
    columns: tuple[int, int],
    scratch: Operand,
    goal: Index,
    width: int,
) -> None:
    """scratch[goal + i * width + c] = source[first + c * stride + i], i < `length`.

    `columns`: how many there are, and to how many (a power of two) zeros fill them up.
    """
    used, lanes = columns

    def square(i: Index, c: int, side: int) -> None:
        rows = [
            source.load(k, k.iadd(k.iadd(first, i), (c + r) * stride), side)
            if c + r < used
            else k.constant(0, scratch.element, side)
            for r in range(side)
        ]
        for r, row in enumerate(transposed(k, rows)):
            k.store(row, scratch.ref, [k.iadd(k.imul(k.iadd(i, r), width), k.iadd(goal, c))])

    whole = length - length % lanes
    if whole == lanes:
        square(0, 0, lanes)
    elif whole:
        k.each(0, whole, lanes, lambda i: square(i, 0, lanes))
    for part in split(length, lanes, whole):
        for c in range(0, lanes, part.lanes):
            square(part.start, c, part.lanes)


def transposed(k: KernelBuilder, rows: Sequence[Value]) -> list[Value]:
    """A square of n vectors of n lanes (a power of two), transposed in log2(n) rounds."""
    count, result = len(rows), list(rows)
    half = count // 2
    while half:
        low = [i if i & half == 0 else count + i - half for i in range(count)]
        high = [i + half if i & half == 0 else count + i for i in range(count)]
        for i in range(count):
            if i & half == 0:
                a, b = result[i], result[i + half]
                result[i], result[i + half] = k.shuffle(a, b, low), k.shuffle(a, b, high)
        half //= 2
    return result
