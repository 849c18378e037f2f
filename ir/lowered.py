"""What lowering delivers and the backends consume: kernels, plans and the images of memory."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from niwaki.ir.dialects.plan import ProgramOp, RegionRange
from niwaki.ir.image import Image
from niwaki.ir.packing import Packing
from niwaki.ir.weights import Array


@dataclass(frozen=True)
class Port:
    """An array of the caller: an input or output of an entry point."""

    name: str
    """The name in the user's model; data, not an identifier."""
    shape: tuple[int, ...]
    dtype: str
    """NumPy's name: float32, int32, ..."""

    @property
    def elements(self) -> int:
        """Elements of the array."""
        count = 1
        for size in self.shape:
            count *= size
        return count


@dataclass(frozen=True)
class Part:
    """What a box is of a parameter of the user's model."""

    whole: str
    """The parameter's name."""
    starts: tuple[int, ...]
    """Where the box begins."""


@dataclass(frozen=True)
class StorageEntry:
    """A named tensor in the state or the constants."""

    name: str
    """The name in the user's model; data, not an identifier."""
    offset: int
    """Bytes from the start of its space."""
    shape: tuple[int, ...]
    dtype: str
    updated: tuple[int, ...] | None
    """Sizes of the leading box that a step writes; None for constants."""
    kind: Literal["parameter", "optimizer", "counter", "constant"]
    part: "Part | None" = None
    """Of a parameter that is stored in parts."""
    packing: Packing | None = None
    """How the tensor lies in the stored elements; None: as it is."""

    @property
    def bytes(self) -> int:
        """Of the stored elements."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    def view(self, space: NDArray[np.uint8]) -> Array:
        """The stored elements inside their space; writing to them writes to the space."""
        stored = space[self.offset : self.offset + self.bytes]
        return stored.view(self.dtype).reshape(self.shape)

    def plain(self, space: NDArray[np.uint8]) -> Array:
        """The tensor that is stored in `space`."""
        stored = self.view(space)
        return stored if self.packing is None else self.packing.plain(stored)


@dataclass(frozen=True)
class Buffer:
    """A buffer of the arena: its place and its life, in numbers of calls, both ends included."""

    label: str
    offset: int
    bytes: int
    first: int
    last: int
    mask_bits: int = 0
    """Elements of the mask in it, a bit each; 0 if it holds anything else."""
    region: str = ""
    """The memory of the board that holds it; empty where there is one memory."""


@dataclass(frozen=True)
class CallInfo:
    """One kernel call of an entry point, in execution order."""

    kernel: str
    location: str
    """Where it comes from in the user's model; data, not an identifier."""
    flops: int
    cost: int = 0
    """Estimated time: floating-point operations and bytes moved, each as one."""
    bytes: int = 0
    """Of operands and results, each once."""

    @property
    def op(self) -> str:
        """The main operation of the kernel, as in "conv2d"."""
        return self.kernel.rpartition("_")[0]


@dataclass(frozen=True)
class EntryPoint:
    """One `plan.program`: its arrays, its memory and its calls."""

    name: str
    """train_step, infer or evaluate."""
    inputs: tuple[Port, ...]
    """In the order of the plan's input numbers; train_step's last one is the learning rate."""
    outputs: tuple[Port, ...]
    arena_bytes: int
    bound_bytes: int
    """Live-byte lower bound of this order: no arena can be smaller."""
    buffers: tuple[Buffer, ...]
    calls: tuple[CallInfo, ...]
    order_bound_bytes: int = 0
    """Proven lower bound of all orders, as far as one was looked for."""
    regions: tuple[RegionRange, ...] = ()
    """The parts of the arena in each memory of the board; empty where there is one memory."""

    @property
    def live_bytes(self) -> list[int]:
        """Bytes alive in the arena during each call."""
        change = [0] * (len(self.calls) + 1)
        for buffer in self.buffers:
            change[buffer.first] += buffer.bytes
            change[buffer.last + 1] -= buffer.bytes
        return list(accumulate(change[:-1]))

    @property
    def order_proven(self) -> bool:
        """Whether no other order keeps fewer bytes live."""
        return self.order_bound_bytes == self.bound_bytes


@dataclass(frozen=True)
class RegionUse:
    """What a program needs of one memory of a board."""

    name: str
    capacity: int
    """Bytes that the board leaves to the model."""
    arena_bytes: int
    """Scratch that serves every entry point."""
    state_bytes: int
    constant_bytes: int


@dataclass(frozen=True)
class LoweredKernel:
    """A kernel, whose function is built when it is needed."""

    name: str
    """Its symbol in this program."""
    identity: str
    """What it computes, at which layouts: the same for the same function of every program."""
    build: Callable[[], FuncOp]


@dataclass(frozen=True)
class Lowered:
    """A compiled program: input of the LLVM and the C backend.

    State and constants have one layout that all entry points share.
    """

    kernels: tuple[LoweredKernel, ...]
    programs: tuple[ProgramOp, ...]
    """The entry points, named as in `entries`."""
    state: tuple[StorageEntry, ...]
    """What a step changes: updated parameters, optimizer state, counters; by offset."""
    constants: tuple[StorageEntry, ...]
    """Frozen weights, by offset."""
    state_image: Image
    """The state before the first step."""
    constants_image: Image
    entries: Mapping[str, EntryPoint]
    target_name: str
    regions: tuple[RegionUse, ...] = ()
    """What each memory of the board holds; empty where there is one memory."""
    state_regions: tuple[RegionRange, ...] = ()
    """The parts of the state in each memory; empty where there is one memory."""

    @cached_property
    def module(self) -> ModuleOp:
        """The kernels (func.func), all built now, and the entry points (plan.program)."""
        return ModuleOp([*(kernel.build() for kernel in self.kernels), *self.programs])

    @property
    def arena_regions(self) -> tuple[RegionUse, ...]:
        """The regions that hold a part of the arena, the fastest first."""
        parts = next((e.regions for e in self.entries.values()), ())
        uses = {use.name: use for use in self.regions}
        return tuple(uses[part.region] for part in parts)

    @property
    def arena_bytes(self) -> int:
        """The arena that serves every entry point, in all memories together."""
        return arena_bytes(self.entries, self.regions)

    @property
    def state_bytes(self) -> int:
        """What a step changes."""
        return len(self.state_image)


def arena_bytes(entries: Mapping[str, EntryPoint], regions: Sequence[RegionUse]) -> int:
    """The arena that serves every entry point, in all memories together."""
    if regions:
        return sum(region.arena_bytes for region in regions)
    return max((e.arena_bytes for e in entries.values()), default=0)
