"""What `lower` returns: kernels, entry points, and what their memory holds at first."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from xdsl.dialects.builtin import ModuleOp

from niwaki.backends.targets import Target
from niwaki.passes.storage_layout import StorageEntry, StorageSpace, Weights


@dataclass(frozen=True)
class Port:
    """An input or output array of an entry point."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]


@dataclass(frozen=True)
class Lifetime:
    """A buffer of the arena, for pictures and tables."""

    label: str
    offset: int
    size: int
    """Bytes, with padding."""
    first_call: int
    last_call: int


@dataclass(frozen=True)
class CallInfo:
    """One kernel call, for tables and profiles."""

    kernel: str
    place: str
    """Where it comes from in the user's model."""
    flops: int
    """Floating-point operations, a multiply-add counted as two."""


@dataclass(frozen=True)
class EntryPoint:
    """One plan.program: its block of pointers is [arena, state, constants, inputs, outputs]."""

    name: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    arena_bytes: int
    bound_bytes: int
    """The most bytes that are live at one call: no arena of this order can be smaller."""
    lifetimes: tuple[Lifetime, ...]
    calls: tuple[CallInfo, ...]


@dataclass(frozen=True)
class Lowered:
    """A program at the plan level."""

    module: ModuleOp
    """Kernels (func.func), then entry points (plan.program)."""
    target: Target
    entries: Mapping[str, EntryPoint]
    state_space: StorageSpace
    """What some entry point may write: updated parameters, optimizer state, counters."""
    constants_space: StorageSpace
    """Frozen parameters and constants."""
    weights: Weights
    """The initial arrays."""

    @property
    def state(self) -> tuple[StorageEntry, ...]:
        """The tensors of the state, in address order."""
        return self.state_space.entries

    @property
    def constants(self) -> tuple[StorageEntry, ...]:
        """The frozen tensors, in address order."""
        return self.constants_space.entries

    @property
    def arena_bytes(self) -> int:
        """Scratch that serves every entry point."""
        return max((entry.arena_bytes for entry in self.entries.values()), default=0)

    @cached_property
    def state_image(self) -> bytes:
        """The initial state. Raises UsageError if a parameter has no array."""
        return self.state_space.image(self.weights)

    @cached_property
    def constants_image(self) -> bytes:
        """The constants. Raises UsageError if a parameter has no array."""
        return self.constants_space.image(self.weights)
