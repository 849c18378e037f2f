"""Which input elements a convolution's output needs, along one dimension.

Forward, and the input's cotangent split into the phases of its stride, are one thing: output
`position * out_step + out_start` takes taps j = 0..count-1, filter index tap_start + j *
tap_step, from input position * in_step + offset + j * offset_step, where that lies inside.
"""

from dataclasses import dataclass
from math import prod
from typing import TypeAlias

from niwaki.backends.kernels.builder import Index, KernelBuilder
from niwaki.ir.dialects import nn

FORWARD = (nn.Conv2dOp, nn.IntegerConv2dOp)
"""Convolutions that gather their input."""
Gathering: TypeAlias = nn.Conv2dOp | nn.IntegerConv2dOp | nn.Conv2dDxOp | nn.IntegerConv2dDxOp

FilterCotangent: TypeAlias = nn.Conv2dDwOp | nn.IntegerConv2dDwOp


@dataclass(frozen=True)
class GatherShape:
    """Sizes of a convolution: what is gathered ("in"), and what there is at each position."""

    batch: int
    in_size: tuple[int, int]
    in_channels: int
    """Of all groups."""
    out_size: tuple[int, int]
    out_channels: int
    groups: int

    @property
    def depth(self) -> int:
        """Gathered channels per group."""
        return self.in_channels // self.groups

    @property
    def width(self) -> int:
        """Other channels per group."""
        return self.out_channels // self.groups

    @property
    def positions(self) -> int:
        """Of the whole batch."""
        return self.batch * prod(self.out_size)


@dataclass(frozen=True)
class Gather:
    """One dimension of a gathering convolution; `offset_step` is positive."""

    positions: int
    out_start: int
    out_step: int
    in_size: int
    in_step: int
    count: int
    tap_start: int
    tap_step: int
    offset: int
    offset_step: int

    @property
    def inside(self) -> bool:
        """Whether no tap of any position leaves the input."""
        last = (self.positions - 1) * self.in_step + self.offset
        return self.offset >= 0 and last + (self.count - 1) * self.offset_step < self.in_size

    def output(self, k: KernelBuilder, position: Index) -> Index:
        """Where a position is among the outputs."""
        return k.affine([(position, self.out_step)], self.out_start)

    def first_tap(self, k: KernelBuilder, position: Index) -> Index:
        """The first j inside the input at `position`."""
        if self.inside:
            return 0
        reach = k.isub(-self.offset, k.imul(position, self.in_step))
        return k.imin(
            self.count,
            k.idiv(k.iadd(k.imax(reach, 0), self.offset_step - 1), self.offset_step),
        )

    def end_tap(self, k: KernelBuilder, position: Index) -> Index:
        """One past the last j inside the input at `position`."""
        if self.inside:
            return self.count
        room = k.isub(
            self.in_size - 1 - self.offset + self.offset_step, k.imul(position, self.in_step)
        )
        return k.imin(self.count, k.idiv(k.imax(room, 0), self.offset_step))

    def first_position(self, k: KernelBuilder, tap: Index) -> Index:
        """The first position whose tap j lies inside the input."""
        if self.inside:
            return 0
        reach = k.isub(-self.offset, k.imul(tap, self.offset_step))
        first = k.idiv(k.iadd(k.imax(reach, 0), self.in_step - 1), self.in_step)
        return k.imin(self.positions, first)

    def end_position(self, k: KernelBuilder, tap: Index) -> Index:
        """One past the last position whose tap j lies inside the input."""
        if self.inside:
            return self.positions
        room = k.isub(self.in_size - 1 - self.offset + self.in_step, k.imul(tap, self.offset_step))
        return k.imin(self.positions, k.idiv(k.imax(room, 0), self.in_step))

    def segments(self) -> list[tuple[int, int, int, int]]:
        """[(first position, end position, first j, end j)]: runs with the same taps inside."""
        result: list[tuple[int, int, int, int]] = []
        for position in range(self.positions):
            base = position * self.in_step + self.offset
            valid = [
                j for j in range(self.count) if 0 <= base + j * self.offset_step < self.in_size
            ]
            first, end = (valid[0], valid[-1] + 1) if valid else (0, 0)
            if result and result[-1][2:] == (first, end):
                result[-1] = (result[-1][0], position + 1, first, end)
            else:
                result.append((position, position + 1, first, end))
        return result


def forward_gather(
    out_size: int, in_size: int, kernel: int, stride: int, padding: int, dilation: int
) -> Gather:
    """The output of a convolution from its input."""
    return Gather(out_size, 0, 1, in_size, stride, kernel, 0, 1, -padding, dilation)


def backward_gathers(
    in_size: int, out_size: int, kernel: int, stride: int, padding: int, dilation: int
) -> list[Gather]:
    """The input's cotangent from the output's, one gather per phase of the stride.

    Input position h = stride * q + phase takes filter tap t from output (h + padding - t *
    dilation) / stride, where that divides.
    """
    result: list[Gather] = []
    for phase in range(min(stride, in_size)):
        taps = [t for t in range(kernel) if (phase + padding - t * dilation) % stride == 0]
        taps.reverse()  # offsets ascend
        offsets = [(phase + padding - t * dilation) // stride for t in taps]
        positions = -(-(in_size - phase) // stride)
        several = len(taps) > 1
        result.append(
            Gather(
                positions,
                phase,
                stride,
                out_size,
                1,
                len(taps),
                taps[0] if taps else 0,
                taps[1] - taps[0] if several else -1,
                offsets[0] if taps else 0,
                offsets[1] - offsets[0] if several else 1,
            )
        )
    return result
