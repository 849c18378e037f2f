"""Kernels of pooling and its gradients, with elementwise operations before and after.

Every result element gathers what it needs, also in the gradients: each is written once, in a
fixed order, and windows may overlap.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod

from xdsl.dialects.builtin import MemRefType, f32, i8, i32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.elementwise import block_lanes
from niwaki.backends.kernels.pointwise import Group, Pointwise
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_ints, shape_of, type_of


def pooling(
    op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of a pooling operation or gradient, bare or in an `nn.fused`."""
    group = Group.of(op)
    anchor = group.anchor
    assert isinstance(anchor, nn.Pooling)
    kernel = get_ints(anchor.properties, "kernel_size")
    gradient = isinstance(anchor, nn.MaxPool2dGradOp | nn.AvgPool2dGradOp)
    windows = shape_of(anchor.operands[0] if gradient else anchor.results[0])
    return KernelSpec(
        operands=tuple(operands),
        results=tuple(results),
        workspace=0,
        in_place=(),
        flops=group.flops + prod(windows) * prod(kernel),
        build=partial(_build, group, anchor, tuple(operands), tuple(results), target),
    )


def _build(
    group: Group,
    anchor: nn.Pooling,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
    name: str,
) -> FuncOp:
    k = KernelBuilder(name, [*operands, *results])
    point = Pointwise(group, anchor, k.args[: len(operands)], k.args[len(operands) :])
    rule = _RULES[type(anchor)]
    lanes = block_lanes(group, target)
    *outer, channels = shape_of(anchor.results[0])

    def channel_blocks(place: list[Index]) -> None:
        def block(start: Index, width: int) -> None:
            values = rule(_Site(k, point, anchor, place, start, width))
            point.emit(k, [*place, start], width, *values)

        each_block(k, channels, lanes, block)

    k.nest(outer, channel_blocks)
    return k.finish()


@dataclass(frozen=True)
class _Site:
    """One block of result elements: `lanes` channels from `channel` on at [n, row, column]."""

    k: KernelBuilder
    point: Pointwise
    anchor: nn.Pooling
    place: Sequence[Index]
    channel: Index
    lanes: int

    @property
    def kernel(self) -> tuple[int, ...]:
        """Height and width of the window."""
        return get_ints(self.anchor.properties, "kernel_size")

    def load(self, row: Index, column: Index, operand: int = 0) -> Value:
        """An operand of the anchor at another position."""
        indices = [self.place[0], row, column, self.channel]
        (value,) = self.point.values(self.k, [self.anchor.operands[operand]], indices, self.lanes)
        return value

    def taps(self, axis: int, start: Index, size: int) -> tuple[Index, Index]:
        """[first, end) of the taps that lie in an input of `size` for the window at `start`."""
        k, length = self.k, self.kernel[axis]
        low = k.imax(0, k.isub(0, start))
        return low, k.imin(length, k.isub(size, start))

    def input_start(self, axis: int, window: Index) -> Index:
        """The first row or column of a window, negative in the padding."""
        stride, padding = self.anchor.window.strides[axis], self.anchor.window.padding[axis]
        return self.k.isub(self.k.imul(window, stride), padding)

    def windows(self, axis: int, count: int) -> tuple[Index, Index]:
        """[first, end) of the `count` windows that see this input row or column."""
        k, length = self.k, self.kernel[axis]
        stride, padding = self.anchor.window.strides[axis], self.anchor.window.padding[axis]
        padded = k.iadd(self.place[axis + 1], padding)
        low = k.idiv(k.imax(0, k.iadd(padded, stride - length)), stride)
        return low, k.imin(count, k.iadd(k.idiv(padded, stride), 1))

    def grid(
        self,
        rows: tuple[Index, Index],
        columns: tuple[Index, Index],
        body: Callable[[Index, Index, Sequence[Value]], Sequence[Value]],
        carried: Sequence[Value],
    ) -> Sequence[Value]:
        """body(row, column, carried) row by row."""

        def over_columns(row: Index, values: Sequence[Value]) -> Sequence[Value]:
            return _range(self.k, columns, lambda column, v: body(row, column, v), values)

        return _range(self.k, rows, over_columns, carried)


def _range(
    k: KernelBuilder,
    bounds: tuple[Index, Index],
    body: Callable[[Index, Sequence[Value]], Sequence[Value]],
    carried: Sequence[Value],
) -> Sequence[Value]:
    """A loop; short ones whose bounds are known are unrolled."""
    low, high = bounds
    if isinstance(low, int) and isinstance(high, int) and high - low <= 4:
        for index in range(low, high):
            carried = body(index, carried)
        return carried
    return k.loop(low, high, 1, body, carried)


def _window_taps(site: _Site) -> tuple[list[Index], list[tuple[Index, Index]]]:
    """(first input row and column of this result's window, its taps inside the input)."""
    window, size = site.anchor.window, shape_of(site.anchor.operands[0])[1:3]
    starts = [site.input_start(axis, site.place[axis + 1]) for axis in (0, 1)]
    taps: list[tuple[Index, Index]] = []
    for axis, start in enumerate(starts):
        last = (shape_of(site.anchor.results[0])[axis + 1] - 1) * window.strides[axis]
        inside = window.padding[axis] == 0 and last + site.kernel[axis] <= size[axis]
        taps.append((0, site.kernel[axis]) if inside else site.taps(axis, start, size[axis]))
    return starts, taps


def _max_pool(site: _Site) -> Sequence[Value]:
    k = site.k
    (top, left), (rows, columns) = _window_taps(site)
    of_codes = type_of(site.anchor.operands[0]).element_type == i8

    def number(i: Index, j: Index) -> Value:
        index = k.iadd(k.imul(i, site.kernel[1]), j)
        if isinstance(index, int):
            return k.constant(index, i8, site.lanes)
        return k.broadcast(k.cast(index, i8), site.lanes)

    def better(i: Index, j: Index, best: Sequence[Value]) -> Sequence[Value]:
        value = site.load(k.iadd(top, i), k.iadd(left, j))
        larger = k.compare(value, best[0], "sgt" if of_codes else "ogt")
        return [k.select(larger, value, best[0]), k.select(larger, number(i, j), best[1])]

    i, j = rows[0], columns[0]
    first = [site.load(k.iadd(top, i), k.iadd(left, j)), number(i, j)]
    return site.grid(rows, columns, better, first)


def _avg_pool(site: _Site) -> Sequence[Value]:
    k, anchor = site.k, site.anchor
    assert isinstance(anchor, nn.AvgPool2dOp)
    (top, left), (rows, columns) = _window_taps(site)

    def add(i: Index, j: Index, total: Sequence[Value]) -> Sequence[Value]:
        return [k.add(total[0], site.load(k.iadd(top, i), k.iadd(left, j)))]

    (total,) = site.grid(rows, columns, add, [k.constant(0.0, f32, site.lanes)])
    if anchor.count_include_pad.value.data:
        return [k.div(total, k.constant(prod(site.kernel), f32, site.lanes))]
    return [k.div(total, _count(site, rows, columns))]


def _count(site: _Site, rows: tuple[Index, Index], columns: tuple[Index, Index]) -> Value:
    """How many taps there are."""
    k = site.k
    count = k.imul(k.isub(rows[1], rows[0]), k.isub(columns[1], columns[0]))
    return k.broadcast(k.cast(k.cast(k.index(count), i32), f32), site.lanes)


def _max_pool_grad(site: _Site) -> Sequence[Value]:
    k = site.k
    size = shape_of(site.anchor.operands[0])[1:3]
    rows, columns = (site.windows(axis, size[axis]) for axis in (0, 1))
    zero = k.constant(0.0, f32, site.lanes)

    def add(row: Index, column: Index, total: Sequence[Value]) -> Sequence[Value]:
        i, j = (
            k.isub(site.place[axis + 1], site.input_start(axis, window))
            for axis, window in enumerate((row, column))
        )
        number = k.cast(k.index(k.iadd(k.imul(i, site.kernel[1]), j)), i8)
        chosen = k.compare(site.load(row, column, 1), k.broadcast(number, site.lanes), "eq")
        return [k.add(total[0], k.select(chosen, site.load(row, column), zero))]

    return site.grid(rows, columns, add, [zero])


def _avg_pool_grad(site: _Site) -> Sequence[Value]:
    k, anchor = site.k, site.anchor
    assert isinstance(anchor, nn.AvgPool2dGradOp)
    size, input_size = shape_of(anchor.dy)[1:3], shape_of(anchor.dx)[1:3]
    rows, columns = (site.windows(axis, size[axis]) for axis in (0, 1))
    whole = anchor.count_include_pad.value.data

    def add(row: Index, column: Index, total: Sequence[Value]) -> Sequence[Value]:
        value = site.load(row, column)
        if not whole:
            starts = [site.input_start(axis, w) for axis, w in enumerate((row, column))]
            taps = [site.taps(axis, starts[axis], input_size[axis]) for axis in (0, 1)]
            value = k.div(value, _count(site, taps[0], taps[1]))
        return [k.add(total[0], value)]

    (total,) = site.grid(rows, columns, add, [k.constant(0.0, f32, site.lanes)])
    return [k.div(total, k.constant(prod(site.kernel), f32, site.lanes))] if whole else [total]


_RULES: dict[type[Operation], Callable[[_Site], Sequence[Value]]] = {
    nn.MaxPool2dOp: _max_pool,
    nn.MaxPool2dGradOp: _max_pool_grad,
    nn.AvgPool2dOp: _avg_pool,
    nn.AvgPool2dGradOp: _avg_pool_grad,
}
