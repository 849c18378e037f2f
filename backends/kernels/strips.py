"""Strips of output positions, and copies of the input that they read with zeros around it."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod

from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.backends.kernels.convolution import Phase
from niwaki.backends.kernels.gather import Gather, GatherShape
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.tiles import each_tile
from niwaki.backends.targets import Target


@dataclass(frozen=True)
class Strip:
    """Some rows of output positions of one phase, and the part of the input that they read."""

    phase: Phase
    images: int
    rows: int
    """Of output positions, in each image."""
    shape: GatherShape

    @property
    def positions(self) -> int:
        """Of all images."""
        return self.images * self.rows * self.phase.columns.positions

    @property
    def copied(self) -> bool:
        """Whether taps leave the input."""
        return not (self.phase.rows.inside and self.phase.columns.inside)

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the image that is read: the copy, or all of the input."""
        if not self.copied:
            return self.shape.in_size
        rows, columns = self.phase.rows, self.phase.columns
        return reach(rows, self.rows), reach(columns, columns.positions)

    @property
    def elements(self) -> int:
        """Of the copy."""
        return self.images * prod(self.size) * self.shape.in_channels if self.copied else 0

    def offset(self, position: int) -> int:
        """Where a position starts to read, in elements behind the first one."""
        image, place = divmod(position, self.rows * self.phase.columns.positions)
        row, column = divmod(place, self.phase.columns.positions)
        height, width = self.size
        line = (image * height + row * self.phase.rows.in_step) * width
        return (line + column * self.phase.columns.in_step) * self.shape.in_channels

    def regular(self, count: int) -> bool:
        """Whether tiles of `count` positions all lie alike."""
        line = self.phase.columns.positions
        if line % count == 0:
            return True
        image = self.rows * line
        return count % line == 0 and (self.images == 1 or image % count == 0)


def reach(gather: Gather, positions: int) -> int:
    """How many inputs the taps of neighbouring positions span."""
    return (positions - 1) * gather.in_step + (gather.count - 1) * gather.offset_step + 1


def each_strip(
    k: KernelBuilder, strip: Strip, batch: int, body: Callable[[Strip, Index, Index], None]
) -> None:
    """body(strip, first image, first row) for all rows of all images; the last may be lower."""

    def rows_of(image: Index) -> None:
        def rows(row: Index, height: int) -> None:
            body(replace(strip, rows=height), image, row)

        each_tile(k, strip.phase.rows.positions, strip.rows, rows)

    if strip.images == batch:
        rows_of(0)
    else:
        k.each(0, batch, strip.images, rows_of)


def copy_strip(
    k: KernelBuilder,
    strip: Strip,
    source: Operand,
    scratch: Operand,
    start: Index,
    place: tuple[Index, Index],
    target: Target,
) -> None:
    """The rows of the input that the strip reads, to `start`; zeros where there are none.

    `place`: the first image and row of positions.
    """
    rows, columns, shape = strip.phase.rows, strip.phase.columns, strip.shape
    image, row = place
    channels, (height, width), lanes = shape.in_channels, strip.size, target.lanes
    left = min(max(0, -columns.offset), width)
    first = columns.offset + left
    inner = max(0, min(shape.in_size[1] - first, width - left))
    top = k.iadd(k.imul(row, rows.in_step), rows.offset)

    def line(number: Index, y: Index) -> None:
        source_y = k.iadd(top, y)
        goal = k.iadd(k.imul(k.affine([(number, height), (y, 1)]), width * channels), start)
        origin = k.iadd(k.imul(k.iadd(image, number), shape.in_size[0]), source_y)
        origin = k.affine([(origin, shape.in_size[1] * channels)], first * channels)

        def copy() -> None:
            start, end = k.iadd(goal, left * channels), k.iadd(goal, (left + inner) * channels)
            scratch.clear(k, goal, left * channels, lanes)
            scratch.copy(k, start, source, origin, inner * channels, lanes)
            scratch.clear(k, end, (width - left - inner) * channels, lanes)

        if rows.inside:
            copy()
            return
        low, high = k.icompare(source_y, 0, "sge"), k.icompare(source_y, shape.in_size[0], "slt")
        k.choose(
            k.bit_and(low, high), copy, lambda: scratch.clear(k, goal, width * channels, lanes)
        )

    k.nest([strip.images, height], lambda at: line(*at))


def read_strip(
    k: KernelBuilder,
    strip: Strip,
    source: Operand,
    scratch: Operand | None,
    start: Index,
    place: tuple[Index, Index],
    target: Target,
) -> tuple[Operand, Index]:
    """The memory that holds what the strip reads, and where it starts: a copy, or the input.

    `start`: of the copy in scratch; `place`: the first image and row of positions.
    """
    if strip.copied:
        assert scratch is not None
        copy_strip(k, strip, source, scratch, start, place, target)
        return scratch, start
    rows, columns, shape = strip.phase.rows, strip.phase.columns, strip.shape
    image, row = place
    y = k.affine([(row, rows.in_step)], rows.offset)
    line = k.affine([(image, shape.in_size[0]), (y, 1)])
    pixel = k.affine([(line, shape.in_size[1])], columns.offset)
    return source, k.imul(pixel, shape.in_channels)
