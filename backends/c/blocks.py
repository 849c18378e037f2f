"""The memory that a library takes from its caller: arena and state, on some boards in parts."""

from dataclasses import dataclass

from niwaki.ir.lowered import EntryPoint, Lowered

ALIGNMENT = 8
"""Of arena and state: the widest scalar there is."""


def allocated(size: int) -> int:
    """Bytes to allocate for `size`: a multiple of the alignment, and never nothing."""
    return max(ALIGNMENT, -(-size // ALIGNMENT) * ALIGNMENT)


@dataclass(frozen=True)
class Block:
    """The arena or the state, or the part of it in one region of a board."""

    space: str
    """arena or state."""
    region: str
    """Empty where there is one memory."""
    size: int
    start: int = 0
    """Bytes of the space in the regions before."""

    @property
    def name(self) -> str:
        """In C."""
        return block_name(self.space, self.region)

    @property
    def bytes(self) -> int:
        """To allocate."""
        return allocated(self.size)


def block_name(space: str, region: str) -> str:
    """The C name of a part of a space."""
    return f"{space}_{region}" if region else space


def arena_blocks(lowered: Lowered) -> list[Block]:
    """The arena that serves every entry point."""
    parts = [Block("arena", use.name, use.arena_bytes) for use in lowered.arena_regions]
    return parts or [Block("arena", "", lowered.arena_bytes)]


def entry_blocks(entry: EntryPoint) -> list[Block]:
    """The arena of one entry point."""
    parts = [Block("arena", part.region, part.size, part.start) for part in entry.regions]
    return parts or [Block("arena", "", entry.arena_bytes)]


def state_blocks(lowered: Lowered) -> list[Block]:
    """The state."""
    parts = [Block("state", part.region, part.size, part.start) for part in lowered.state_regions]
    return parts or [Block("state", "", len(lowered.state_image))]
