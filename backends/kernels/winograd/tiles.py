"""Tiles of Winograd's convolutions, and the planes of scratch that hold what they become."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.backends.kernels.operands import Operand
from niwaki.backends.kernels.strips import Strip
from niwaki.backends.kernels.winograd.transforms import Grid
from niwaki.backends.targets import Target


@dataclass(frozen=True)
class Planes:
    """Matrices in scratch, one for each point of a transform."""

    operand: Operand
    start: int
    stride: int
    """From plane to plane."""

    def load(self, k: KernelBuilder, place: Index, lanes: int, side: int) -> Grid:
        """What side x side planes hold at `place`, where the first plane's elements count from."""
        first = k.iadd(place, self.start)
        return [
            [
                self.operand.load(k, k.iadd(first, (i * side + j) * self.stride), lanes)
                for j in range(side)
            ]
            for i in range(side)
        ]

    def store(self, k: KernelBuilder, place: Index, values: Grid) -> None:
        """The reverse."""
        first = k.iadd(place, self.start)
        for plane, value in enumerate(value for row in values for value in row):
            k.store(value, self.operand.ref, [k.iadd(first, plane * self.stride)])

    def of(self, k: KernelBuilder, plane: Index) -> Index:
        """Where a plane starts."""
        return k.affine([(plane, self.stride)], self.start)


def plane_stride(elements: int, target: Target) -> int:
    """From plane to plane of so many elements.

    Planes a large power of two apart would compete for the same few places in the first cache.
    """
    return (-(-elements // target.lanes) | 1) * target.lanes


@dataclass(frozen=True)
class TileGrid:
    """The tiles of a strip, of `side` x `side` positions each."""

    strip: Strip
    side: int

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Images, rows of tiles in each, tiles of a row."""
        strip = self.strip
        return strip.images, strip.rows // self.side, strip.phase.columns.positions // self.side

    @property
    def count(self) -> int:
        """Of tiles."""
        images, rows, columns = self.sizes
        return images * rows * columns

    def number(self, k: KernelBuilder, at: Sequence[Index]) -> Index:
        """Of the tile at (image, row of tiles, tile of the row)."""
        _, rows, columns = self.sizes
        return k.affine([(at[0], rows * columns), (at[1], columns), (at[2], 1)])


@dataclass(frozen=True)
class Channels:
    """Neighbouring channels, and where they lie in a plane."""

    first: Index
    lanes: int
    place: Index
    """Of the first tile's."""
    stride: int
    """From tile to tile."""


EachChannels = Callable[[Callable[[Channels], None]], None]
"""Calls its argument for all channels."""


def transform_tiles(
    k: KernelBuilder,
    grid: TileGrid,
    reach: int,
    source: tuple[Operand, Index],
    channels: EachChannels,
    transform: Callable[[Grid], Grid],
    planes: Planes,
) -> None:
    """Reads reach x reach pixels of each tile of a strip and stores them, transformed, in planes.

    `source`: the strip's memory, and where its first pixel is.
    """
    operand, first = source
    depth, (height, width) = grid.strip.shape.in_channels, grid.strip.size

    def tile(at: list[Index]) -> None:
        corner = k.affine([(at[0], height * width), (at[1], grid.side * width), (at[2], grid.side)])
        corner = k.affine([(corner, depth), (first, 1)])
        number = grid.number(k, at)

        def block(part: Channels) -> None:
            start = k.iadd(corner, part.first)
            pixels = [
                [
                    operand.load(k, k.iadd(start, (i * width + j) * depth), part.lanes)
                    for j in range(reach)
                ]
                for i in range(reach)
            ]
            place = k.affine([(number, part.stride), (part.place, 1)])
            planes.store(k, place, transform(pixels))

        channels(block)

    k.nest(grid.sizes, tile)
