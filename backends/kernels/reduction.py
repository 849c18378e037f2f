"""Kernels of reductions, with elementwise operations before and after.

Sums keep several partial sums and add runs of at most 2 * `_RUN` terms into each, then add those:
the error grows with the run length plus the number of runs instead of with the number of terms.
The order depends on shape and target alone. Long columns that are alone are summed in bands, whose
sums wait in scratch, so that threads can share them.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial, reduce
from math import prod

from xdsl.dialects.builtin import MemRefType, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from niwaki.backends.kernels.blocks import Block, each_block, split
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import band_count
from niwaki.backends.kernels.collapse import Collapsed, collapse
from niwaki.backends.kernels.elementwise import block_lanes, elementwise, in_place_pairs
from niwaki.backends.kernels.pointwise import Group, Pointwise, store
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_ints, shape_of, type_of

_WAYS = 4
"""Accumulators to keep busy at least: an addition takes about four cycles."""
_AHEAD = 8
"""Rows between what is added and what is prefetched."""
_RUN = 64
"""Terms that one accumulator takes before it is added to the total."""


def reduction(
    op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of a bare reduction or an `nn.fused` around one.

    Results that do not depend on the reduction have the shape of its input and are stored on the
    way; all others have the shape of its result.
    """
    group = Group.of(op)
    anchor = group.anchor
    assert isinstance(anchor, nn.Reduction)
    shape = shape_of(anchor.x)
    if shape == shape_of(anchor.y):
        return elementwise(op, operands, results, target)
    collapsed = collapse(group, shape, operands, results)
    count = _bands(collapsed, target)
    sums = count * collapsed.shape[-1] if count > 1 else 0

    def build(name: str) -> FuncOp:
        scratch = [MemRefType(f32, [sums])] if sums else []
        k = KernelBuilder(name, [*operands, *results, *scratch])
        refs = [k.view(ref, kind) for ref, kind in zip(k.args, collapsed.refs, strict=False)]
        lanes = block_lanes(group, target)
        reducer = _Reducer(k, collapsed, refs, lanes, target.vector_registers // 4)
        if sums:
            reducer.emit_bands(k.args[-1], count)
        else:
            reducer.emit()
        return k.finish()

    return KernelSpec(
        operands=tuple(operands),
        results=tuple(results),
        workspace=4 * sums,
        in_place=in_place_pairs(group, operands, results),
        flops=group.flops + prod(shape),
        build=build,
    )


def _bands(collapsed: Collapsed, target: Target) -> int:
    """Of the rows of a matrix of floats that is reduced to one row; 1 for all else."""
    anchor, shape = collapsed.group.anchor, collapsed.shape
    assert isinstance(anchor, nn.Reduction)
    if get_ints(anchor.properties, "axes") != (0,) or len(shape) != 2:
        return 1
    if type_of(anchor.x).element_type != f32:
        return 1
    return band_count(shape[0], shape[1], target)


class _Reducer:
    """Emits one reduction over collapsed dimensions."""

    def __init__(
        self,
        k: KernelBuilder,
        collapsed: Collapsed,
        refs: Sequence[Value],
        lanes: int,
        columns: int,
    ) -> None:
        group, shape = collapsed.group, collapsed.shape
        anchor = group.anchor
        assert isinstance(anchor, nn.Reduction)
        self._k, self._anchor, self._shape, self._columns = k, anchor, shape, columns
        self._float = type_of(anchor.x).element_type == f32
        self._maximum = isinstance(anchor, nn.ReduceMaxOp)
        self._ways = _WAYS
        axes = get_ints(anchor.properties, "axes")
        rank = len(shape)
        self._row_reduced = rank - 1 in axes
        self._kept = [d for d in range(rank - 1) if d not in axes]
        self._reduced = [d for d in range(rank - 1) if d in axes]
        self._count = prod(shape[a] for a in axes)
        # There is no sum over the lanes of an integer vector.
        self._lanes = lanes if self._float or not self._row_reduced else 1
        count = len(group.inputs)
        outputs = list(zip(group.outputs, refs[count:], strict=True))
        self._streams = [
            ref
            for v, ref in zip(group.inputs, refs[:count], strict=True)
            if shape_of(v) == shape and type_of(v).element_type == f32
        ]
        self._passing = [(v, ref) for v, ref in outputs if shape_of(v) == shape]
        final = [(v, ref) for v, ref in outputs if shape_of(v) != shape]
        self._prologue = Pointwise(
            replace(group, outputs=tuple(v for v, _ in self._passing)),
            None,
            refs[:count],
            [ref for _, ref in self._passing],
        )
        self._epilogue = Pointwise(
            replace(group, outputs=tuple(v for v, _ in final)),
            anchor,
            refs[:count],
            [ref for _, ref in final],
        )

    def emit(self) -> None:
        """The whole kernel."""
        body = self._rows if self._row_reduced else self._column_groups
        self._k.nest([self._shape[d] for d in self._kept], body)

    def emit_bands(self, scratch: Value, count: int) -> None:
        """The whole kernel of a matrix that is reduced to one row, by `count` bands of rows."""
        k, (rows, row) = self._k, self._shape
        size = rows // count

        def into(band: Index) -> None:
            first, goal = k.imul(band, size), k.imul(band, row)

            def column_group(start: Index, group: Sequence[Block]) -> None:
                values = self._sum_of_rows(first, size, start, group)
                for block, value in zip(group, values, strict=True):
                    k.store(value, scratch, [k.iadd(k.iadd(goal, start), block.start)])

            self._each_column_group(column_group)

        def out(start: Index, lanes: int) -> None:
            sums = [k.load(scratch, [k.iadd(start, b * row)], lanes) for b in range(count)]
            if rows > count * size:
                rest = rows - count * size
                sums += self._sum_of_rows(count * size, rest, start, [Block(0, lanes)])
            self._finish([0, start], reduce(self._combine, sums), lanes)

        k.each(0, count, 1, into)
        each_block(k, row, self._lanes, out)

    # --- the last dimension is reduced: one result element at a time

    def _rows(self, kept: Sequence[Index]) -> None:
        place = self._place(kept)
        (value,) = self._accumulate(self._reduced, place, lambda p: [self._row(p)])
        self._finish(place, value, 1)

    def _row(self, place: Sequence[Index]) -> Value:
        """One row reduced to a scalar."""
        k, row = self._k, self._shape[-1]
        full = row - row % self._lanes
        parts = [self._load(place, b.start, b.lanes) for b in split(row, self._lanes, full)]
        if full:
            lanes = self._lanes

            def block(number: Index) -> list[Value]:
                return [self._load(place, k.imul(number, lanes), lanes)]

            parts = [*self._sum_over(full // lanes, block), *parts]
        return reduce(self._combine, [self._across(part) for part in parts])

    # --- the last dimension is kept: some columns at a time

    def _column_groups(self, kept: Sequence[Index]) -> None:
        k, place = self._k, self._place(kept)

        def column_group(start: Index, group: Sequence[Block]) -> None:
            self._ways = max(1, _WAYS // len(group))
            terms = partial(self._columns_at, start, group)
            values = self._accumulate(self._reduced, place, terms)
            for block, value in zip(group, values, strict=True):
                self._finish([*place[:-1], k.iadd(start, block.start)], value, block.lanes)

        self._each_column_group(column_group)

    def _each_column_group(self, body: Callable[[Index, Sequence[Block]], None]) -> None:
        row, lanes = self._shape[-1], self._lanes
        width = lanes * self._columns
        whole = row // width * width
        if whole:
            group = split(width, lanes)
            self._k.each(0, whole, width, lambda start: body(start, group))
        if whole < row:
            body(whole, split(row - whole, lanes))

    def _columns_at(
        self, start: Index, group: Sequence[Block], place: Sequence[Index]
    ) -> list[Value]:
        return [self._load(place, self._k.iadd(start, b.start), b.lanes) for b in group]

    def _sum_of_rows(
        self, first: Index, count: int, start: Index, group: Sequence[Block]
    ) -> list[Value]:
        """The columns `group` of `count` rows of a matrix, reduced.

        Rows further on are prefetched, since parts of rows are no stream to the machine.
        """
        k = self._k
        self._ways = max(1, _WAYS // len(group))
        whole = sum(b.lanes for b in group) == self._shape[-1]

        def terms(i: Index) -> list[Value]:
            row = k.iadd(first, i)
            for ref in () if whole else self._streams:
                for block in group:
                    k.prefetch(ref, [k.iadd(row, _AHEAD), k.iadd(start, block.start)])
            return self._columns_at(start, group, [row, 0])

        return self._sum_over(count, terms)

    # --- shared

    def _place(self, kept: Sequence[Index]) -> list[Index]:
        place: list[Index] = [0] * len(self._shape)
        for d, index in zip(self._kept, kept, strict=True):
            place[d] = index
        return place

    def _load(self, place: Sequence[Index], column: Index, lanes: int) -> Value:
        """The reduction's input at a place; stores what the group yields there."""
        indices = [*place[:-1], column]
        wanted = [self._anchor.x, *(v for v, _ in self._passing)]
        value, *passing = self._prologue.values(self._k, wanted, indices, lanes)
        for (_, ref), passed in zip(self._passing, passing, strict=True):
            store(self._k, passed, ref, indices)
        return value

    def _accumulate(
        self,
        dimensions: Sequence[int],
        place: list[Index],
        terms: Callable[[list[Index]], list[Value]],
    ) -> list[Value]:
        """`terms` reduced over `dimensions`."""
        if not dimensions:
            return terms(place)
        first, *rest = dimensions

        def inner(index: Index) -> list[Value]:
            here = [*place[:first], index, *place[first + 1 :]]
            return self._accumulate(rest, here, terms)

        return self._sum_over(self._shape[first], inner)

    def _sum_over(self, size: int, terms: Callable[[Index], list[Value]]) -> list[Value]:
        """`terms(i)` reduced over range(size), in runs."""
        k, run = self._k, _RUN * self._ways
        if size <= 2 * run:
            return self._run(0, size, terms)
        whole = size // run * run
        rest = self._run(whole, size - whole, terms) if whole < size else None
        first = self._run(0, run, terms)

        def body(start: Value, totals: Sequence[Value]) -> Sequence[Value]:
            return self._combine_all(totals, self._run(start, run, terms))

        totals = list(k.loop(run, whole, run, body, first))
        return totals if rest is None else self._combine_all(totals, rest)

    def _run(self, start: Index, count: int, terms: Callable[[Index], list[Value]]) -> list[Value]:
        """`terms(i)` for i from start on, in `_ways` interleaved accumulators."""
        k, ways = self._k, min(self._ways, count)
        sets = [terms(k.iadd(start, way)) for way in range(ways)]
        whole = count // ways * ways
        size = len(sets[0])
        if whole > ways:

            def body(i: Value, carried: Sequence[Value]) -> Sequence[Value]:
                following = [terms(k.iadd(k.iadd(start, i), way)) for way in range(ways)]
                return self._combine_all(carried, [v for values in following for v in values])

            flat = k.loop(ways, whole, ways, body, [v for values in sets for v in values])
            sets = [list(flat[way * size : (way + 1) * size]) for way in range(ways)]
        for way in range(count - whole):
            sets[way] = self._combine_all(sets[way], terms(k.iadd(start, whole + way)))
        while len(sets) > 1:
            pairs = [self._combine_all(a, b) for a, b in zip(sets[::2], sets[1::2], strict=False)]
            sets = [*pairs, *sets[2 * len(pairs) :]]
        return sets[0]

    def _combine_all(self, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
        return [self._combine(x, y) for x, y in zip(a, b, strict=True)]

    def _combine(self, a: Value, b: Value) -> Value:
        return self._k.max(a, b) if self._maximum else self._k.add(a, b)

    def _across(self, x: Value) -> Value:
        return self._k.max_lanes(x) if self._maximum else self._k.sum_lanes(x)

    def _finish(self, place: Sequence[Index], value: Value, lanes: int) -> None:
        k = self._k
        if isinstance(self._anchor, nn.ReduceMeanOp):
            value = k.div(value, k.constant(self._count, f32, lanes))
        self._epilogue.emit(k, place, lanes, value)
