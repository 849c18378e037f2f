"""Depthwise convolutions of codes on cores with packed halves: four channels at a time."""

from dataclasses import dataclass

from xdsl.dialects.builtin import i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels import depthwise
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.gather import Gather, forward_gather
from niwaki.backends.kernels.operands import Contraction, References
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, accumulate, each_tile
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of

_TILE = 2
"""Neighbouring outputs of a row that share the filter's loads."""


def select(anchor: nn.IntegerConv2dOp, contraction: Contraction) -> KernelSpec:
    """The kernel of a depthwise convolution of codes."""
    window, w = anchor.window, shape_of(anchor.w)
    source, goal = shape_of(anchor.x), shape_of(anchor.y)
    if source[3] % 4:
        return depthwise.select_gather(anchor, contraction)
    rows, columns = (
        forward_gather(
            goal[a + 1], source[a + 1], w[a + 1], window.strides[a], window.padding[a],
            window.dilation[a],
        )
        for a in (0, 1)
    )  # fmt: skip
    workspace = 8 * w[1] * w[2]
    flops = 2 * goal[0] * goal[1] * goal[2] * w[0] * w[1] * w[2]

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace)
        _Kernel(k, refs, rows, columns, source, (w[1], w[2])).run()
        return k.finish()

    return contraction.spec(workspace, flops, build)


@dataclass(frozen=True)
class _Kernel:
    """The construction of one kernel."""

    k: KernelBuilder
    refs: References
    rows: Gather
    columns: Gather
    source: tuple[int, ...]
    size: tuple[int, int]

    def run(self) -> None:
        k = self.k
        batch, channels = self.source[0], self.source[3]

        def four(channel: Value) -> None:
            self._pack_filter(channel)
            k.each(
                0,
                batch,
                1,
                lambda n: k.each(0, self.rows.positions, 1, lambda y: self._line(n, y, channel)),
            )

        k.each(0, channels, 4, four)

    def _scratch(self) -> Value:
        assert self.refs.scratch is not None
        return self.refs.scratch.ref

    def _pack_filter(self, channel: Index) -> None:
        """The codes of four channels, tap by tap, as the words (0, 2) and (1, 3)."""
        k, taps = self.k, self.size[0] * self.size[1]

        def pack(tap: Value) -> None:
            codes = [
                self.refs.anchor[1].load(k, k.iadd(k.imul(k.iadd(channel, c), taps), tap))
                for c in range(4)
            ]
            low, sixteen = k.constant(0xFFFF, i32), k.constant(16, i32)
            for odd in (0, 1):
                word = k.bit_or(k.bit_and(codes[odd], low), k.shift_left(codes[odd + 2], sixteen))
                k.store(word, self._scratch(), [k.iadd(k.imul(tap, 2), odd)])

        k.each(0, taps, 1, pack)

    def _line(self, image: Index, row: Index, channel: Index) -> None:
        k = self.k
        taps = self.rows.first_tap(k, row), self.rows.end_tap(k, row)
        for first, end, j, j_end in self.columns.segments():
            each_tile(
                k,
                end - first,
                min(_TILE, end - first),
                lambda c, n, f=first, js=range(j, j_end): self._tile(
                    image, row, k.iadd(c, f), n, taps, js, channel
                ),
            )

    def _tile(
        self,
        image: Index,
        row: Index,
        column: Index,
        count: int,
        rows: tuple[Index, Index],
        taps: range,
        channel: Index,
    ) -> None:
        """`count` neighbouring outputs of four channels."""
        k = self.k
        zero = k.constant(0, i32)
        start: Accumulators = [[zero] * 4 for _ in range(count)]
        sums = accumulate(
            k, *rows, start, lambda i, tile: self._row(image, row, column, channel, i, taps, tile)
        )
        for t, values in enumerate(sums):
            for c, value in enumerate(values):
                place = [image, row, k.iadd(column, t), k.iadd(channel, c)]
                self.refs.pointwise.emit(k, place, 1, value)

    def _row(
        self,
        image: Index,
        row: Index,
        column: Index,
        channel: Index,
        i: Index,
        taps: range,
        tile: Accumulators,
    ) -> Accumulators:
        """Adds the taps of filter row i."""
        k, columns = self.k, self.columns
        _, height, width, channels = self.source
        y = k.affine([(row, self.rows.in_step), (i, self.rows.offset_step)], self.rows.offset)
        pixel = k.affine(
            [(image, height * width), (y, width), (column, columns.in_step)], columns.offset
        )
        source = k.iadd(k.imul(pixel, channels), channel)
        filter_row = k.imul(i, 2 * self.size[1])
        loaded: dict[int, tuple[Value, Value]] = {}

        def pairs(offset: int) -> tuple[Value, Value]:
            if offset not in loaded:
                word = k.load_word(self.refs.anchor[0].ref, k.iadd(source, offset * channels))
                difference = self._zero_pair()
                loaded[offset] = (
                    k.extend_pair(word, difference, False),
                    k.extend_pair(word, difference, True),
                )
            return loaded[offset]

        for j in taps:
            even, odd = (
                k.load(self._scratch(), [k.iadd(filter_row, 2 * j + word)]) for word in (0, 1)
            )
            tile = [
                self._multiply(
                    pairs(t * columns.in_step + j * columns.offset_step), even, odd, sums
                )
                for t, sums in enumerate(tile)
            ]
        return tile

    def _multiply(
        self, x: tuple[Value, Value], even: Value, odd: Value, sums: list[Value]
    ) -> list[Value]:
        k = self.k
        return [
            k.half_multiply(x[0], even, sums[0], high=False),
            k.half_multiply(x[1], odd, sums[1], high=False),
            k.half_multiply(x[0], even, sums[2], high=True),
            k.half_multiply(x[1], odd, sums[3], high=True),
        ]

    def _zero_pair(self) -> Value:
        """The negated zero point in both halves of a word."""
        zero_point = self.refs.anchor[0].zero_point
        assert zero_point is not None
        return packed_constant(self.k, -zero_point)


def packed_constant(k: KernelBuilder, value: int) -> Value:
    """`value` in both halves of a word."""
    half = value & 0xFFFF
    word = half << 16 | half
    return k.constant(word - (word >> 31 << 32), i32)
