"""How a convolution by Winograd's filtering is cut up, and whether it is worth its transforms.

Blocks of output channels pass one after another, and within them strips of tiles. The model counts
cycles like `choice`, with constants measured on Zen 4.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from math import prod
from typing import Protocol, TypeVar

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.blocks import split
from niwaki.backends.kernels.choice import divisor
from niwaki.backends.kernels.convolution import Phase
from niwaki.backends.kernels.gather import Gather, GatherShape
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.strips import Strip
from niwaki.backends.kernels.winograd.tiles import TileGrid
from niwaki.backends.kernels.winograd.transforms import Filtering
from niwaki.backends.targets import Target

_TAPS = 3
_STORED = 11
"""Cycles of a vector in a plane, stored or loaded by a transform: most are spent waiting."""
_STORED_FAR = 40
"""If the planes of a strip do not stay in cache."""
_LOADED_FAR = 3
"""Cycles of a vector in such a plane, each time that it enters a product."""
_BLOCK_FAR = 8
"""More cycles of a vector in the planes of a block that do not stay in cache."""
_BLOCKS = (1.25, 2.5)
"""Caches that the planes of a block may fill; the second is more than stays there."""
_LEAST_TILES = 16
"""Of a strip: they share loading the filter."""
_PACKED = 10
"""Cycles of a vector of the filter that other kernels pack."""
_OTHER_TERM = 1.08
"""Cycles of a vector of products of other kernels."""
_MOST_SCRATCH = 8 << 20
"""Bytes, however large the operands are."""
_GAIN = 0.9
"""Of the time of other kernels: what this one must come below."""


@dataclass(frozen=True)
class Cut:
    """Sizes of blocks and strips."""

    shape: GatherShape
    phase: Phase
    """Of all positions."""
    target: Target
    filtering: Filtering
    side: int
    """Positions of a tile, in each dimension."""
    least: int
    """Tiles of a strip."""
    block_bytes: int
    """At most, of the planes of input times output channels of a block."""

    @cached_property
    def grid(self) -> TileGrid:
        """A strip: rows of an image, or several images. Edge tiles may reach beyond them."""
        side, rows, columns = self.side, self.phase.rows, self.phase.columns
        lines, across = -(-rows.positions // side), -(-columns.positions // side)
        phase = Phase(
            replace(rows, positions=lines * side), replace(columns, positions=across * side)
        )
        count, images = divisor(lines, -(-self.least // across)), 1
        if count == lines:
            images = divisor(self.shape.batch, -(-self.least // (lines * across)))
        return TileGrid(Strip(phase, images, count * side, self.shape), side)

    @property
    def strips(self) -> int:
        """How many there are."""
        strip = self.grid.strip
        return self.shape.batch // strip.images * (strip.phase.rows.positions // strip.rows)

    @property
    def single(self) -> bool:
        """Whether there is one strip: its inputs are transformed once for all blocks."""
        return self.strips == 1

    @cached_property
    def block(self) -> int:
        """Output channels of a block: all, or an even part of the vectors."""
        lanes, width = self.target.lanes, self.shape.width
        most = self.block_bytes // (4 * self.filtering.planes * self.shape.depth)
        if most >= width:
            return width
        vectors = -(-width // lanes)
        return lanes * max((n for n in range(1, most // lanes + 1) if vectors % n == 0), default=1)

    @property
    def blocks(self) -> int:
        """How many there are."""
        return -(-self.shape.width // self.block)

    @property
    def tiles(self) -> int:
        """Of all strips."""
        return self.strips * self.grid.count

    @property
    def transform_cycles(self) -> int:
        """Of all transforms, and of inputs that products load from afar."""
        shape, lanes, planes = self.shape, self.target.lanes, self.filtering.planes
        over_depth, over_width = len(split(shape.depth, lanes)), len(split(shape.width, lanes))
        inputs = planes * self.tiles * over_depth
        outputs = planes * self.tiles * over_width
        between = planes * shape.depth * over_width
        cycles = _STORED * (outputs + between)
        cache = self.target.cache_bytes
        if 4 * planes * shape.depth * self.block > _BLOCKS[0] * cache:
            cycles += _BLOCK_FAR * between
        passes = 1 if self.single else self.blocks
        if 4 * planes * self.grid.count * (shape.depth + self.block) <= cache:
            return cycles + _STORED * inputs * passes
        return cycles + inputs * (_STORED_FAR * passes + _LOADED_FAR * self.blocks)


def is_dense(rows: Gather, columns: Gather, shape: GatherShape, target: Target) -> bool:
    """Whether it is a dense 3x3 convolution of stride 1, with vectors and memory to spare."""
    return (
        target.lanes > 1
        and target.spends_scratch
        and not target.regions
        and shape.groups == 1
        and all(
            (g.count, g.in_step, g.out_step, g.offset_step) == (_TAPS, 1, 1, 1)
            for g in (rows, columns)
        )
    )


def cuts(
    shape: GatherShape,
    phase: Phase,
    target: Target,
    of_tile: Callable[[int], tuple[Filtering, int]],
) -> Iterator[Cut]:
    """Those to choose from; `of_tile`: the filtering and positions of a tile of 2 or 4."""
    for size in (2, 4):
        filtering, side = of_tile(size)
        for caches in _BLOCKS:
            most = int(caches * target.cache_bytes)
            for least in (_LEAST_TILES, shape.positions):
                yield Cut(shape, phase, target, filtering, side, least, most)


class Layout(Protocol):
    """A cut with its products, and where scratch lies."""

    @property
    def cut(self) -> Cut:
        """Its sizes."""
        ...

    @property
    def cycles(self) -> float:
        """Estimated, of one call."""
        ...

    @property
    def scratch(self) -> int:
        """Elements."""
        ...


AnyLayout = TypeVar("AnyLayout", bound=Layout)


def among(
    others: list[Alternative],
    layouts: Iterable[AnyLayout],
    shape: GatherShape,
    other_cycles: float,
    spec: Callable[[AnyLayout], KernelSpec],
) -> list[Alternative]:
    """`others`, which take `other_cycles`, and these layouts: first if they take clearly less."""
    cheapest = cheapest_layouts(layouts, shape)
    found = [
        Alternative(f"winograd F({x.cut.side}x{x.cut.side})", partial(spec, x)) for x in cheapest
    ]
    if cheapest and cheapest[0].cycles < _GAIN * other_cycles:
        return [*found, *others]
    return [*others, *found]


def cheapest_layouts(layouts: Iterable[AnyLayout], shape: GatherShape) -> list[AnyLayout]:
    """The one of the fewest cycles for each size of tiles, the best of them first.

    Scratch is at most twice the operands and the result, so that plans for little memory grow
    little.
    """
    read = shape.batch * prod(shape.in_size) * shape.in_channels
    touched = read + shape.positions * shape.out_channels + _TAPS**2 * shape.depth * shape.width
    most = min(2 * touched, _MOST_SCRATCH // 4)
    fitting = [layout for layout in layouts if layout.scratch <= most]
    found: dict[int, AnyLayout] = {}
    for layout in sorted(fitting, key=lambda layout: (layout.cycles, layout.scratch)):
        found.setdefault(layout.cut.side, layout)
    return list(found.values())


def other_cycles(shape: GatherShape, target: Target, packed: bool) -> float:
    """Of the kernels that multiply tap by tap; `packed`: they pack the filter first."""
    terms = _TAPS**2 * shape.depth * len(split(shape.width, target.lanes))
    return terms * (_OTHER_TERM * shape.positions + (_PACKED if packed else 0))
