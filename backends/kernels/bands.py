"""Sums over positions that several bands of positions keep apart, until all are added up.

Threads can share the bands, and the order of the terms is the same for any number of threads.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.backends.kernels.operands import Operand


@dataclass(frozen=True)
class Bands:
    """The sums of each band lie behind those of the one before."""

    scratch: Operand
    start: int
    """Where those of the first band begin."""
    sums: int
    """Of each band."""
    count: int
    lanes: int

    def clear(self, k: KernelBuilder) -> None:
        """Sets all sums to zero."""
        self.scratch.clear(k, self.start, self.count * self.sums, self.lanes)

    def share(
        self,
        k: KernelBuilder,
        images: int,
        rows: int,
        add: Callable[[Index, Index, int, Index], None],
    ) -> None:
        """add(image, first row, number of rows, start of the sums) for all rows of all images.

        Every band takes as many images, or else as many rows of every image; the first band takes
        what is left.
        """
        if images % self.count == 0:
            some = images // self.count

            def band_of_images(band: Index) -> None:
                first, sums = k.imul(band, some), self._sums_of(k, band)
                k.nest([some], lambda place: add(k.iadd(first, place[0]), 0, rows, sums))

            k.nest([self.count], lambda place: band_of_images(place[0]))
            return
        some, left = divmod(rows, self.count)

        def band_of_rows(band: Index) -> None:
            first, sums = k.imul(band, some), self._sums_of(k, band)
            k.nest([images], lambda place: add(place[0], first, some, sums))

        if some:
            k.nest([self.count], lambda place: band_of_rows(place[0]))
        if left:
            k.nest([images], lambda place: add(place[0], rows - left, left, self.start))

    def add_up(self, k: KernelBuilder) -> None:
        """Leaves the sums of all bands in the place of the first."""

        def block(place: Index, lanes: int) -> None:
            first = k.iadd(place, self.start)
            values = [
                self.scratch.load(k, k.iadd(first, band * self.sums), lanes)
                for band in range(self.count)
            ]
            k.store(reduce(k.add, values), self.scratch.ref, [first])

        if self.count > 1:
            each_block(k, self.sums, self.lanes, block)

    def _sums_of(self, k: KernelBuilder, band: Index) -> Index:
        return k.iadd(k.imul(band, self.sums), self.start)
