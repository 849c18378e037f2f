"""Depthwise convolutions of codes on cores that sum up products of vectors (ARM's Helium).

For a few channels at a time, a strip of the input is copied to scratch column by column, so that
the inputs of an output, all rows of the strip in a few columns, are neighbours. Its dot product
with the filter, which has zeros for the other rows of the strip, is one lane; lanes are channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType, i8, i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels import depthwise
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.gather import Gather, forward_gather
from niwaki.backends.kernels.integer.row_dots import lanes_of
from niwaki.backends.kernels.operands import Contraction, References
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of

_REGISTER = 16
"""Codes."""


def select(anchor: nn.IntegerConv2dOp, contraction: Contraction) -> KernelSpec:
    """The kernel of a depthwise convolution of codes."""
    window, w = anchor.window, shape_of(anchor.w)
    lanes = lanes_of(Group.of(contraction.op))
    source, goal = shape_of(anchor.x), shape_of(anchor.y)
    rows, columns = (
        forward_gather(
            goal[a + 1], source[a + 1], w[a + 1], window.strides[a], window.padding[a],
            window.dilation[a],
        )
        for a in (0, 1)
    )  # fmt: skip
    if source[3] % lanes or rows.offset_step != 1 or columns.offset_step != 1:
        return depthwise.select_gather(anchor, contraction)
    strip = _Strip(rows, columns)
    workspace = strip.bytes(lanes)
    flops = 2 * goal[0] * goal[1] * goal[2] * w[0] * w[1] * w[2]

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace, biased=True)
        assert refs.scratch is not None
        scratch = k.view(refs.scratch.ref, MemRefType(i8, [workspace]))
        _Kernel(k, refs, strip, scratch, source, lanes).run()
        return k.finish()

    return contraction.spec(workspace, flops, build)


@dataclass(frozen=True)
class _Strip:
    """Neighbouring rows of outputs, whose inputs lie in scratch together."""

    rows: Gather
    columns: Gather

    @property
    def length(self) -> int:
        """Codes of a dot product: whole registers."""
        return -(-self.rows.count * self.columns.count // _REGISTER) * _REGISTER

    @property
    def outputs(self) -> int:
        """Rows of outputs: as many as do not make dot products longer."""
        most = (self.length // self.columns.count - self.rows.count) // self.rows.in_step + 1
        return min(most, self.rows.positions)

    @property
    def height(self) -> int:
        """Rows of inputs."""
        return self.rows.count + (self.outputs - 1) * self.rows.in_step

    @property
    def inputs(self) -> int:
        """Columns of inputs, between the padding on both sides."""
        return (self.columns.positions - 1) * self.columns.in_step + self.columns.count

    @property
    def channel(self) -> int:
        """Codes of one channel's inputs; the last dot product reads beyond its columns."""
        first = (self.columns.positions - 1) * self.columns.in_step * self.height
        return -(-max(first + self.length, self.inputs * self.height) // 4) * 4

    def bytes(self, lanes: int) -> int:
        """Of scratch: the filters, one for each row of outputs, then the inputs."""
        return lanes * (self.outputs * self.length + self.channel)


@dataclass(frozen=True)
class _Kernel:
    """The construction of one kernel."""

    k: KernelBuilder
    refs: References
    strip: _Strip
    scratch: Value
    source: Sequence[int]
    lanes: int

    def run(self) -> None:
        k, strip = self.k, self.strip
        count = -(-strip.rows.positions // strip.outputs)

        def block(channel: Value) -> None:
            start = self._filters(channel)
            self._pad_columns()

            def one(place: list[Index]) -> None:
                image, number = place
                top = k.imul(number, strip.outputs)
                self._gather(image, top, channel)
                self._outputs(image, top, channel, start)

            k.nest([self.source[0], count], one)

        k.each(0, self.source[3], self.lanes, block)

    @property
    def _first_input(self) -> int:
        return self.lanes * self.strip.outputs * self.strip.length

    # --- filters

    def _filters(self, channel: Value) -> Value:
        """Writes the filters and returns what sums start from: inputs stay codes."""
        k, strip, lanes = self.k, self.strip, self.lanes
        taps = strip.rows.count, strip.columns.count
        first = k.imul(channel, taps[0] * taps[1])
        zeros = k.constant(0, i8, lanes)
        k.each(0, self._first_input, lanes, lambda i: k.store(zeros, self.scratch, [i]))

        def tap(i: Value, j: Value, total: Value) -> Value:
            place = k.iadd(k.affine([(i, taps[1]), (j, 1)]), first)
            codes = k.load_apart(self.refs.anchor[1].ref, place, taps[0] * taps[1], lanes)
            for t in range(strip.outputs):
                offset = t * (lanes * strip.length + strip.rows.in_step)
                goal = k.affine([(j, strip.height), (i, 1)], offset)
                k.store_apart(codes, self.scratch, goal, strip.length)
            return k.add(total, k.extend(codes, i32))

        def row(i: Value, total: Sequence[Value]) -> Sequence[Value]:
            return k.loop(0, taps[1], 1, lambda j, t: [tap(i, j, t[0])], total)

        (total,) = k.loop(0, taps[0], 1, row, [k.constant(0, i32, lanes)])
        bias = self.refs.load_bias(k, channel, lanes)
        return k.sub(bias, k.mul(total, k.constant(self._zero_point, i32, lanes)))

    @property
    def _zero_point(self) -> int:
        zero_point = self.refs.anchor[0].zero_point
        assert zero_point is not None
        return zero_point

    # --- inputs

    def _columns(self) -> tuple[int, int]:
        """The columns that lie inside the input."""
        offset, inputs = self.strip.columns.offset, self.strip.inputs
        start = min(inputs, max(0, -offset))
        return start, max(start, min(inputs, self.strip.columns.in_size - offset))

    def _store(self, value: Value, column: Index, row: Index) -> None:
        k, strip = self.k, self.strip
        place = k.iadd(k.affine([(column, strip.height)], self._first_input), row)
        k.store_apart(value, self.scratch, place, strip.channel)

    def _zeros(self) -> Value:
        return self.k.constant(self._zero_point, i8, self.lanes)

    def _pad_columns(self) -> None:
        start, end = self._columns()
        for first, last in ((0, start), (end, self.strip.inputs)):
            if first == last:
                continue

            def column(c: Value) -> None:
                self.k.each(0, self.strip.height, 1, lambda r: self._store(self._zeros(), c, r))

            self.k.each(first, last, 1, column)

    def _gather(self, image: Index, top: Index, channel: Value) -> None:
        """The inputs of the rows of outputs from `top` on."""
        k, rows = self.k, self.strip.rows
        height, width, channels = self.source[1:]
        start, end = self._columns()

        def copy(y: Index, r: Value) -> None:
            line = k.affine([(image, height * width), (y, width)], self.strip.columns.offset)

            def column(c: Value) -> None:
                pixel = k.iadd(k.imul(k.iadd(line, c), channels), channel)
                self._store(k.load(self.refs.anchor[0].ref, [pixel], self.lanes), c, r)

            k.each(start, end, 1, column)

        def row(r: Value) -> None:
            y = k.iadd(k.affine([(top, rows.in_step)], rows.offset), r)
            inside = k.bit_and(k.icompare(y, 0, "sge"), k.icompare(y, height, "slt"))
            k.choose(
                inside,
                lambda: copy(y, r),
                lambda: k.each(start, end, 1, lambda c: self._store(self._zeros(), c, r)),
            )

        k.each(0, self.strip.height, 1, row)

    # --- outputs

    def _outputs(self, image: Index, top: Index, channel: Value, start: Value) -> None:
        k, strip, lanes = self.k, self.strip, self.lanes
        count: Index = strip.outputs
        if strip.rows.positions % strip.outputs:
            count = k.imin(strip.outputs, k.isub(strip.rows.positions, top))

        def line(t: Value) -> None:
            filters = (self.scratch, k.imul(t, lanes * strip.length), strip.length)
            y = k.iadd(top, t)

            def output(x: Value) -> None:
                step = strip.columns.in_step * strip.height
                window = (self.scratch, k.affine([(x, step)], self._first_input), strip.channel)
                sums = k.add(k.row_dots(filters, window, strip.length, lanes), start)
                place = [image, y, x, channel]
                self.refs.pointwise.emit(k, place, lanes, sums)

            k.each(0, strip.columns.positions, 1, output)

        k.each(0, count, 1, line)
