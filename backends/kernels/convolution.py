"""Convolution forward and the cotangent of its input, as matrix products over gathered rows.

A row of A holds the inputs of one output position, tap after tap; B holds the filter. A 1x1
convolution of stride 1 reads the input in place; otherwise a tile's rows are gathered into
scratch first, zeros where a tap leaves the input (im2col, one tile at a time).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from xdsl.dialects.builtin import MemRefType
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.gather import (
    FORWARD,
    Gather,
    Gathering,
    GatherShape,
    backward_gathers,
    forward_gather,
)
from niwaki.backends.kernels.operands import Contraction, Operand, References, collapsed
from niwaki.backends.kernels.product import (
    Matrix,
    Put,
    Sum,
    dots,
    multiply_dots,
    multiply_outer,
    outer_tile,
    transpose,
    use_dots,
)
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Panel, each_panel, each_tile, panels, tile_rows
from niwaki.backends.targets import Target
from niwaki.ir.dialects.tensor_op import shape_of


@dataclass(frozen=True)
class Phase:
    """One grid of output positions with its taps: forward has one, dX one per stride phase."""

    rows: Gather
    columns: Gather

    @property
    def count(self) -> int:
        """Number of taps."""
        return self.rows.count * self.columns.count


@dataclass(frozen=True)
class ConvolutionShape(GatherShape):
    """A gathering convolution: what is read, what is written, and how."""

    kernel: tuple[int, int]
    forward: bool
    phases: tuple[Phase, ...]

    @property
    def length(self) -> int:
        """Gathered elements of one output position and group, all taps."""
        return self.depth * prod(self.kernel)

    @property
    def in_place(self) -> bool:
        """Whether rows of A are simply the pixels of the input."""
        (phase, *others) = self.phases
        return (
            not others
            and self.kernel == (1, 1)
            and self.groups == 1
            and phase.rows.inside
            and phase.columns.inside
            and phase.rows.in_step == phase.columns.in_step == 1
            and self.in_size == self.out_size
        )


def shape_of_gathering(anchor: Gathering) -> ConvolutionShape:
    window, w = anchor.window, shape_of(anchor.w)
    forward = isinstance(anchor, FORWARD)
    source = shape_of(anchor.operands[0])
    goal = shape_of(anchor.results[0])
    axes = [
        (goal[a + 1], source[a + 1], w[a + 1], window.strides[a], window.padding[a],
         window.dilation[a])
        for a in (0, 1)
    ]  # fmt: skip
    if forward:
        phases = (Phase(forward_gather(*axes[0]), forward_gather(*axes[1])),)
    else:
        phases = tuple(
            Phase(rows, columns)
            for rows in backward_gathers(*axes[0])
            for columns in backward_gathers(*axes[1])
        )
    return ConvolutionShape(
        source[0], (source[1], source[2]), source[3], (goal[1], goal[2]), goal[3],
        window.groups, (w[1], w[2]), forward, phases,
    )  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How the product is done, and where its scratch lies (elements)."""

    dots: bool
    height: int
    """Rows of a tile."""
    transposed: int
    """Elements of the transposed filter, 0 where it is read in place."""
    gathered: int
    """Elements of one tile's gathered rows."""
    biased: bool = False
    """Whether sums start from the bias."""

    @property
    def workspace(self) -> int:
        """Bytes of the scratch."""
        return 4 * (self.transposed + self.gathered)


def _plan(shape: ConvolutionShape, target: Target) -> Plan:
    length = shape.length
    positions = shape.positions
    dots = shape.forward and use_dots(positions, length, target)
    transposed = length * shape.out_channels if shape.forward and not dots else 0
    if dots:
        height = min(positions, 4)
    else:
        height = tile_rows(
            positions, max(len(p.blocks) for p in panels(shape.width, target)), target
        )
    gathered = 0 if shape.in_place else height * length
    return Plan(dots, height, transposed, gathered)


def alternatives(anchor: Gathering, contraction: Contraction) -> list[Alternative]:
    """Of an ordinary or grouped convolution, or of its input's cotangent."""
    shape = shape_of_gathering(anchor)
    plan = _plan(shape, contraction.target)
    return [Alternative("gathered", partial(spec_of, contraction, shape, plan, Kernel))]


def spec_of(
    contraction: Contraction,
    shape: ConvolutionShape,
    plan: Plan,
    kernel: "Callable[..., Construction]",
) -> KernelSpec:
    """The choice of `kernel`."""
    positions = shape.positions
    taps = shape.kernel[0] * shape.kernel[1]
    forward_positions = positions if shape.forward else shape.batch * prod(shape.in_size)
    forward_outputs = shape.width if shape.forward else shape.depth
    forward_inputs = shape.depth if shape.forward else shape.width
    flops = 2 * forward_positions * forward_outputs * shape.groups * forward_inputs * taps
    epilogue = [
        kind for i, kind in enumerate(contraction.operands) if i not in contraction.anchor_operands
    ]
    views = collapsed([*epilogue, *contraction.results], positions)

    def view(kind: MemRefType) -> MemRefType:
        return kind if views is None else views[kind]

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, plan.workspace, view, plan.biased)
        results = Results(k, refs, shape, views is not None)
        kernel(k, refs, shape, plan, contraction.target, results).run()
        return k.finish()

    return contraction.spec(plan.workspace, flops, build)


@dataclass(frozen=True)
class Results:
    """Where finished elements go, by flat positions."""

    k: KernelBuilder
    refs: References
    shape: ConvolutionShape
    flat: bool
    """Whether every view is collapsed, so that flat positions address them."""

    def indices(self, position: Index) -> list[Index]:
        """The indices of a position, but for the channel."""
        if self.flat:
            return [0, 0, position]
        return unflatten(self.k, position, self.shape.out_size)

    def put(self, position: Index, channel: Index, lanes: int, value: Value) -> None:
        """Stores what follows from `value`."""
        self.refs.pointwise.emit(self.k, [*self.indices(position), channel], lanes, value)


def unflatten(k: KernelBuilder, position: Index, size: tuple[int, int]) -> list[Index]:
    """(image, row, column) of a position in images of `size`."""
    image = k.idiv(position, size[0] * size[1])
    within = k.imod(position, size[0] * size[1])
    return [image, k.idiv(within, size[1]), k.imod(within, size[1])]


@dataclass(frozen=True)
class Construction(ABC):
    """The construction of one kernel."""

    k: KernelBuilder
    refs: References
    shape: ConvolutionShape
    plan: Plan
    target: Target
    results: Results

    @property
    def scratch(self) -> Operand:
        """Of those that have some."""
        assert self.refs.scratch is not None
        return self.refs.scratch

    @abstractmethod
    def run(self) -> None:
        """Emits it."""


class Kernel(Construction):
    """As a product of gathered rows."""

    def run(self) -> None:
        k, shape = self.k, self.shape
        x, w = self.refs.anchor
        if self.plan.transposed:
            whole = Matrix(w, 0, shape.length)
            transpose(k, whole, shape.out_channels, shape.length, self.scratch, 0)
        if not shape.in_place:
            for phase in shape.phases:
                self.groups(phase)
            return
        positions = shape.positions
        a, b = Matrix(x, 0, shape.in_channels), self._filter(0)
        if self.plan.dots:
            multiply_dots(
                k, self.target, a, b, positions, shape.out_channels, shape.length, self.results.put
            )
            return
        sums = [Sum(shape.length, 1, shape.out_channels)]
        multiply_outer(k, self.target, a, b, positions, shape.out_channels, sums, self.results.put)

    def _filter(self, group: Index) -> Matrix:
        """B: [output channel, gathered element], as far as one stride describes it."""
        shape, w = self.shape, self.refs.anchor[1]
        first = self.k.imul(group, shape.width)
        if self.plan.transposed:
            return Matrix(self.scratch, first, 1)
        if shape.forward:
            return Matrix(w, self.k.imul(first, shape.length), shape.length)
        taps = prod(shape.kernel)
        return Matrix(w, self.k.imul(group, shape.depth * taps * shape.width), 1)

    def _sums(self, phase: Phase) -> tuple[int, list[Sum]]:
        """Where B starts, and the loops of the sum: the gathered rows are [taps, channels]."""
        shape = self.shape
        if shape.forward:
            return 0, [Sum(shape.length, 1, shape.out_channels)]
        # w[o, i, j, c] is read at (i, j, o) for a vector of c.
        rows, columns, depth, width = phase.rows, phase.columns, shape.depth, shape.width
        line = shape.kernel[1] * width
        loops = [
            Sum(rows.count, columns.count * depth, rows.tap_step * line),
            Sum(columns.count, depth, columns.tap_step * width),
            Sum(depth, 1, shape.kernel[0] * line),
        ]
        start = rows.tap_start * line + columns.tap_start * width
        return start, [s for s in loops[:2] if s.count != 1] + loops[2:]

    def groups(self, phase: Phase) -> None:
        if self.shape.groups == 1:
            self.phase(phase, 0)
        else:
            self.k.each(0, self.shape.groups, 1, lambda group: self.phase(phase, group))

    def phase(self, phase: Phase, group: Index) -> None:
        """All positions of one phase: gather a tile's rows, multiply, put."""
        k, shape = self.k, self.shape
        count = shape.batch * phase.rows.positions * phase.columns.positions
        gathered = phase.count * shape.depth
        ranges = panels(shape.width, self.target)
        start, sums = self._sums(phase)
        channel = k.imul(group, shape.width)
        b = self._filter(group)
        b = Matrix(b.operand, k.iadd(b.start, start), b.stride)
        a = Matrix(self.scratch, self.plan.transposed, gathered)

        def tile(row: Index, rows: int) -> None:
            positions = [self.position(phase, k.iadd(row, r)) for r in range(rows)]
            places = [self.place(phase, position) for position in positions]

            def put(offset: Index, column: Index, lanes: int, value: Value) -> None:
                assert isinstance(offset, int)
                self.results.put(places[offset], k.iadd(column, channel), lanes, value)

            if phase.count == 0:
                self._put_zeros(ranges, rows, put)
                return
            for r, position in enumerate(positions):
                self.gather(phase, group, position, self.plan.transposed + r * gathered)
            if self.plan.dots:
                wide = tile_rows(shape.width, 4, self.target, most=4)
                each_tile(
                    k,
                    shape.width,
                    wide,
                    lambda column, width: dots(
                        k, self.target, a, b, 0, rows, column, width, shape.length, put
                    ),
                )
                return
            each_panel(
                k,
                ranges,
                lambda column, panel: outer_tile(k, a, b, 0, rows, column, panel, sums, put),
            )

        each_tile(k, count, min(count, self.plan.height), tile)

    def _put_zeros(self, ranges: Sequence[Panel], rows: int, put: Put) -> None:
        """A phase without taps: the cotangent is 0 there."""

        def zero(column: Index, panel: Panel) -> None:
            for row in range(rows):
                for block in panel.blocks:
                    value = self.k.constant(0, self.refs.anchor[0].element, block.lanes)
                    put(row, self.k.iadd(column, block.start), block.lanes, value)

        each_panel(self.k, ranges, zero)

    def position(self, phase: Phase, number: Index) -> tuple[Index, Index, Index]:
        """(image, row, column) of a position of the phase, counted through."""
        size = (phase.rows.positions, phase.columns.positions)
        image, row, column = unflatten(self.k, number, size)
        return image, row, column

    def place(self, phase: Phase, position: tuple[Index, Index, Index]) -> Index:
        """The flat output position."""
        k, size = self.k, self.shape.out_size
        image, row, column = position
        y = k.iadd(k.imul(row, phase.rows.out_step), phase.rows.out_start)
        x = k.iadd(k.imul(column, phase.columns.out_step), phase.columns.out_start)
        return k.affine([(image, size[0] * size[1]), (y, size[1]), (x, 1)])

    def gather(
        self, phase: Phase, group: Index, position: tuple[Index, Index, Index], goal: Index
    ) -> None:
        """Copies the inputs of one position to `goal`, zeros for what lies outside."""
        k, shape = self.k, self.shape
        image, row, column = position
        height, width = shape.in_size
        channels, depth = shape.in_channels, shape.depth
        y = k.iadd(k.imul(row, phase.rows.in_step), phase.rows.offset)
        x = k.iadd(k.imul(column, phase.columns.in_step), phase.columns.offset)
        first = k.imul(group, depth)

        def tap(i: Index, j: Index) -> None:
            source_y = k.iadd(y, k.imul(i, phase.rows.offset_step))
            source_x = k.iadd(x, k.imul(j, phase.columns.offset_step))
            source = k.iadd(
                k.affine(
                    [
                        (image, height * width * channels),
                        (source_y, width * channels),
                        (source_x, channels),
                    ]
                ),
                first,
            )
            target = k.iadd(k.affine([(i, phase.columns.count * depth), (j, depth)]), goal)
            inside = _inside(k, (source_y, source_x), shape.in_size, phase)
            if inside is None:
                self.copy(source, target)
            else:
                k.choose(inside, lambda: self.copy(source, target), lambda: self.clear(target))

        def taps(i: Index) -> None:
            k.each(0, phase.columns.count, 1, lambda j: tap(i, j))

        k.each(0, phase.rows.count, 1, taps)

    def copy(self, source: Index, target: Index) -> None:
        """The inputs of one tap, to `target`."""
        x, depth, lanes = self.refs.anchor[0], self.shape.depth, self.target.lanes
        self.scratch.copy(self.k, target, x, source, depth, lanes)

    def clear(self, target: Index) -> None:
        """Zeros for one tap, to `target`."""
        self.scratch.clear(self.k, target, self.shape.depth, self.target.lanes)


def _inside(
    k: KernelBuilder, place: tuple[Index, Index], size: tuple[int, int], phase: Phase
) -> Value | None:
    """Whether `place` lies in the input; None where it always does."""
    condition: Value | None = None
    for coordinate, limit, gather in zip(place, size, (phase.rows, phase.columns), strict=True):
        if gather.inside:
            continue
        low = k.icompare(coordinate, 0, "sge")
        both = k.bit_and(low, k.icompare(coordinate, limit, "slt"))
        condition = both if condition is None else k.bit_and(condition, both)
    return condition
