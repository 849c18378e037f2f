"""How a kernel is divided: sections that follow each other, some of parts that run at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from xdsl.dialects import scf

from niwaki.backends.kernels.threads.independence import Piece, PrivateScratch
from niwaki.backends.kernels.threads.units import Taken, Unit, is_divisible


@dataclass(frozen=True)
class Divided:
    """A unit, and how: the loops `depth` levels inside are divided; None: it is not."""

    unit: Unit
    depth: int | None

    def pieces(self, taken: Taken) -> list[Piece]:
        """What parts run at once."""
        loop = self.unit.loop
        if loop is None or self.depth is None:
            return [Piece(self.unit.ops, None)]
        if self.depth == 0:
            return [Piece((loop,), loop if is_divisible(loop) else None)]
        units = taken.body(loop.body.block).units
        return [p for u in units for p in Divided(u, self.depth - 1).pieces(taken)]


@dataclass(frozen=True)
class Section:
    """Neighbouring units, some of them divided, or all of them on one thread."""

    units: tuple[Divided, ...]
    private: PrivateScratch

    @property
    def parallel(self) -> bool:
        """Whether there is a loop to divide."""
        return any(d.depth is not None for d in self.units)


@dataclass(frozen=True)
class Opened:
    """A loop on one thread, with sections in it."""

    loop: scf.ForOp
    items: "tuple[Item, ...]"


Item: TypeAlias = Section | Opened


def sections_in(items: Sequence[Item]) -> Iterator[Section]:
    """All sections, those in loops as well."""
    for item in items:
        if isinstance(item, Section):
            yield item
        else:
            yield from sections_in(item.items)
