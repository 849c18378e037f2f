"""Which loops of kernels are divided among threads, and which must not be."""

from collections.abc import Callable, Sequence

import pytest
from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import MemRefType, f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.threads.division import divide
from niwaki.backends.kernels.threads.units import Memory
from niwaki.ir.dialects.kernel import OffsetOp, ParallelOp

Emit = Callable[[KernelBuilder], None]
SIZE = 64
SCRATCH = 4 * SIZE


def _divided(emit: Emit, sizes: Sequence[int], scratch: bool = False, same: bool = False) -> FuncOp:
    """The kernel of arguments of `sizes` elements, for two threads; `scratch`: the last one is;
    `same`: the first two may be the same memory."""
    k = KernelBuilder("kernel", [MemRefType(f32, [size]) for size in sizes])
    emit(k)
    function = k.finish()
    arguments = function.body.block.args
    classes: dict[SSAValue, SSAValue] = {a: a for a in arguments}
    if same:
        classes[arguments[1]] = arguments[0]
    memory = Memory(classes, arguments[-1] if scratch else None)
    divided = divide(function, memory, 2, 0.1)
    divided.verify()
    return divided


def _sections(function: FuncOp) -> list[ParallelOp]:
    return [op for op in function.walk() if isinstance(op, ParallelOp)]


def _copy(k: KernelBuilder, shift: int = 0, goal: int = 0) -> None:
    """y[i + goal] = x[i + shift] in vectors of four."""

    def body(i: Value) -> None:
        value = k.load(k.args[0], [k.iadd(i, shift)], 4)
        k.store(value, k.args[1], [k.iadd(i, goal)])

    k.each(0, SIZE, 4, body)


def test_elements_of_their_own() -> None:
    assert len(_sections(_divided(_copy, (SIZE, SIZE)))) == 1


def test_prefetching_is_no_access() -> None:
    def emit(k: KernelBuilder) -> None:
        def body(i: Value) -> None:
            k.prefetch(k.args[0], [k.iadd(i, SIZE)])
            k.prefetch(k.args[1], [0])
            k.store(k.load(k.args[0], [i]), k.args[1], [i])

        k.each(0, SIZE, 1, body)

    assert len(_sections(_divided(emit, (SIZE, SIZE)))) == 1


def test_the_outermost_loop_of_those_with_equal_parts() -> None:
    """Neighbouring elements are then of one part, which finds them in the cache of its core."""

    def emit(k: KernelBuilder) -> None:
        def element(place: Sequence[Index]) -> None:
            number = k.affine([(place[0], 16), (place[1], 4), (place[2], 1)])
            k.store(k.load(k.args[0], [number]), k.args[1], [number])

        k.nest([4, 4, 4], element)

    (section,) = _sections(_divided(emit, (SIZE, SIZE)))
    loops = [op for op in section.body.block.ops if isinstance(op, scf.ForOp)]
    assert [isinstance(loop.lb.owner, arith.ConstantOp) for loop in loops] == [False]


def test_in_place() -> None:
    assert len(_sections(_divided(_copy, (SIZE, SIZE), same=True))) == 1


def test_in_place_of_a_neighbour() -> None:
    shifted: Emit = lambda k: _copy(k, shift=4)  # noqa: E731
    assert len(_sections(_divided(shifted, (SIZE + 4, SIZE + 4)))) == 1
    assert not _sections(_divided(shifted, (SIZE + 4, SIZE + 4), same=True))


@pytest.mark.parametrize(("step", "divisible"), [(4, True), (3, False)])
def test_stores_that_overlap(step: int, divisible: bool) -> None:
    def emit(k: KernelBuilder) -> None:
        zero = k.constant(0.0, lanes=4)
        k.each(0, step * 16, step, lambda i: k.store(zero, k.args[0], [i]))

    assert bool(_sections(_divided(emit, (SIZE,)))) == divisible


@pytest.mark.parametrize(("step", "divisible"), [(16, True), (8, True), (12, False)])
def test_stores_at_quotients(step: int, divisible: bool) -> None:
    """As the masks of vectors are: eight bits to a byte, two iterations in one if `step` is 12."""

    def emit(k: KernelBuilder) -> None:
        zero = k.constant(0.0)
        k.each(0, SIZE * step // 16, step, lambda i: k.store(zero, k.args[0], [k.idiv(i, 8)]))

    assert bool(_sections(_divided(emit, (SIZE,)))) == divisible


def test_running_sum_in_the_result() -> None:
    def emit(k: KernelBuilder) -> None:
        def body(i: Value) -> None:
            before = k.load(k.args[1], [k.isub(i, 1)])
            k.store(k.add(before, k.load(k.args[0], [i])), k.args[1], [i])

        k.each(1, SIZE, 1, body)

    assert not _sections(_divided(emit, (SIZE, SIZE)))


def test_sum_of_all() -> None:
    def emit(k: KernelBuilder) -> None:
        (total,) = k.loop(
            0, SIZE, 1, lambda i, s: [k.add(s[0], k.load(k.args[0], [i]))], [k.constant(0.0)]
        )
        k.store(total, k.args[1], [0])

    assert not _sections(_divided(emit, (SIZE, 1)))


def _rows(k: KernelBuilder, of_row: Callable[[Value, Value], None]) -> None:
    """of_row(row, column) for eight rows of eight."""
    k.each(0, 8, 1, lambda row: k.each(0, 8, 1, lambda column: of_row(row, column)))


def test_columns_of_a_matrix() -> None:
    """A loop inside: each of its iterations writes one column of every row."""

    def emit(k: KernelBuilder) -> None:
        def element(column: Value, row: Value) -> None:
            place = k.iadd(k.imul(row, 8), column)
            k.store(k.load(k.args[0], [place]), k.args[1], [place])

        _rows(k, element)

    (section,) = _sections(_divided(emit, (SIZE, SIZE)))
    assert len(list(section.walk())) > 1


def test_positions_counted_through() -> None:
    """Row and column from one number: their place is that number again."""

    def emit(k: KernelBuilder) -> None:
        def body(i: Value) -> None:
            row, column = k.idiv(i, 8), k.imod(i, 8)
            place = k.iadd(k.imul(row, 8), column)
            k.store(k.load(k.args[0], [i]), k.args[1], [place])

        k.each(0, SIZE, 1, body)

    assert _sections(_divided(emit, (SIZE, SIZE)))


def test_remainders_of_multiples() -> None:
    """Tiles of four at column 0 or 4 of a row of eight stay in the row's copy."""

    def emit(k: KernelBuilder) -> None:
        def row(i: Value) -> None:
            copy = k.load(k.args[0], [k.imul(i, 8)], 8)
            k.store(copy, k.args[2], [0])

            def tile(t: Value) -> None:
                column = k.imul(t, 4)
                value = k.load(k.args[2], [k.imod(column, 8)], 4)
                k.store(value, k.args[1], [k.iadd(k.imul(i, 16), column)])

            k.each(0, 4, 1, tile)

        k.each(0, 4, 1, row)
        k.store(k.constant(0.0), k.args[2], [8])

    (section,) = _sections(_divided(emit, (SIZE, SIZE, SCRATCH), True))
    assert any(isinstance(op, OffsetOp) for op in section.walk())


def test_places_that_repeat() -> None:
    def emit(k: KernelBuilder) -> None:
        k.each(0, SIZE, 1, lambda i: k.store(k.constant(1.0), k.args[0], [k.imod(i, 8)]))

    assert not _sections(_divided(emit, (SIZE,)))


def _through_scratch(k: KernelBuilder, first: bool) -> None:
    """Each row passes through the same eight elements of scratch; `first`: stored before read."""

    def row(i: Value) -> None:
        start = k.imul(i, 8)

        def into(j: Value) -> None:
            k.store(k.load(k.args[0], [k.iadd(start, j)]), k.args[2], [j])

        def out(j: Value) -> None:
            k.store(k.load(k.args[2], [j]), k.args[1], [k.iadd(start, j)])

        for part in (into, out) if first else (out, into):
            k.each(0, 8, 1, part)

    k.each(0, 8, 1, row)


def test_scratch_of_an_iteration_is_private() -> None:
    divided = _divided(lambda k: _through_scratch(k, first=True), (SIZE, SIZE, SCRATCH), True)
    (section,) = _sections(divided)
    assert any(isinstance(op, OffsetOp) for op in section.walk())


def test_scratch_that_outlives_an_iteration() -> None:
    divided = _divided(lambda k: _through_scratch(k, first=False), (SIZE, SIZE, SCRATCH), True)
    whole_rows = [s for s in _sections(divided) if any(isinstance(o, OffsetOp) for o in s.walk())]
    assert not whole_rows


def test_scratch_of_a_short_loop_is_for_the_sections_behind_it() -> None:
    """Rows through scratch of their own, two elements to other scratch, those to the result."""

    def emit(k: KernelBuilder) -> None:
        _through_scratch(k, first=True)

        def into(i: Value) -> None:
            k.store(k.load(k.args[0], [i]), k.args[2], [k.iadd(i, 8)])

        k.each(0, 2, 1, into)

        def out(i: Value) -> None:
            value = k.load(k.args[2], [k.iadd(k.imod(i, 2), 8)])
            k.store(value, k.args[1], [k.iadd(i, SIZE)])

        k.each(0, SIZE, 1, out)

    assert len(_sections(_divided(emit, (SIZE, 2 * SIZE, SCRATCH), True))) == 2


def test_areas_of_scratch_are_apart_each_for_itself() -> None:
    """Rows of four elements in one place become rows at a distance of eight in another."""

    def emit(k: KernelBuilder) -> None:
        def into(i: Value) -> None:
            k.store(k.load(k.args[0], [i]), k.args[2], [i])

        def row(i: Value) -> None:
            def element(j: Value) -> None:
                value = k.load(k.args[2], [k.iadd(k.imul(i, 4), j)])
                k.store(value, k.args[2], [k.iadd(k.iadd(k.imul(i, 8), j), SIZE)])

            k.each(0, 4, 1, element)

        def out(i: Value) -> None:
            k.store(k.load(k.args[2], [k.iadd(i, SIZE)]), k.args[1], [i])

        k.each(0, SIZE // 2, 1, into)
        k.each(0, SIZE // 8, 1, row)
        k.each(0, SIZE, 1, out)

    assert len(_sections(_divided(emit, (SIZE, SIZE, SCRATCH), True))) == 3


def test_a_section_waits_for_what_it_reads() -> None:
    """Everything to scratch, then in reverse order to the result: two sections."""

    def emit(k: KernelBuilder) -> None:
        def into(i: Value) -> None:
            k.store(k.load(k.args[0], [i]), k.args[2], [i])

        def out(i: Value) -> None:
            k.store(k.load(k.args[2], [k.isub(SIZE - 1, i)]), k.args[1], [i])

        k.each(0, SIZE, 1, into)
        k.each(0, SIZE, 1, out)

    assert len(_sections(_divided(emit, (SIZE, SIZE, SCRATCH), True))) == 2


def test_remainders_run_beside_the_loop() -> None:
    def emit(k: KernelBuilder) -> None:
        _copy(k)
        k.store(k.load(k.args[0], [SIZE], 2), k.args[1], [SIZE])

    assert len(_sections(_divided(emit, (SIZE + 2, SIZE + 2)))) == 1
