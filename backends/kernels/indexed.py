"""Kernels that read or add rows of a table at indices known at run time.

An index outside the table is safe: its row reads as zeros, and takes no part in a sum.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from xdsl.dialects.builtin import IndexType, MemRefType

from niwaki.backends.kernels.alone import spec_alone
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.pointwise import ref_shape
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of


def gather(
    op: nn.GatherOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.gather`."""
    rows, columns = shape_of(op.table)

    def emit(k: KernelBuilder) -> None:
        table, indices, y = k.args

        def row(place: list[Index]) -> None:
            def copy(number: Value) -> None:
                each_block(
                    k,
                    columns,
                    target.lanes,
                    lambda i, lanes: k.store(k.load(table, [number, i], lanes), y, [*place, i]),
                )

            _at(k, indices, place, rows, copy, lambda: _clear(k, y, place, columns, target))

        k.nest(shape_of(op.indices), row)

    return spec_alone(operands, results, emit)


def scatter_add(
    op: nn.ScatterAddOp,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> KernelSpec:
    """The kernel of `nn.scatter_add`: clears the result, then adds row after row."""
    rows, columns = shape_of(op.y)

    def emit(k: KernelBuilder) -> None:
        x, indices, y = k.args
        k.each(0, rows, 1, lambda number: _clear(k, y, [number], columns, target))
        k.nest(shape_of(op.indices), _row_adder(k, x, indices, y, target))

    return spec_alone(operands, results, emit)


def add_rows(
    op: nn.AddRowsOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.add_rows` for a result in the place of the table."""

    def emit(k: KernelBuilder) -> None:
        _, x, indices, y = k.args
        k.nest(shape_of(op.indices), _row_adder(k, x, indices, y, target))

    return replace(spec_alone(operands, results, emit), in_place=((0, 0),))


def _row_adder(
    k: KernelBuilder, x: Value, indices: Value, y: Value, target: Target
) -> Callable[[list[Index]], None]:
    """Adds the row of x at a place to the row of y that its index names."""
    rows, columns = ref_shape(y)

    def add_row(place: list[Index]) -> None:
        def add(number: Value) -> None:
            def block(i: Index, lanes: int) -> None:
                total = k.load(y, [number, i], lanes)
                k.store(k.add(total, k.load(x, [*place, i], lanes)), y, [number, i])

            each_block(k, columns, target.lanes, block)

        _at(k, indices, place, rows, add, lambda: None)

    return add_row


def _clear(
    k: KernelBuilder, y: Value, place: Sequence[Index], columns: int, target: Target
) -> None:
    each_block(
        k,
        columns,
        target.lanes,
        lambda i, lanes: k.store(k.constant(0.0, lanes=lanes), y, [*place, i]),
    )


def _at(
    k: KernelBuilder,
    indices: Value,
    place: Sequence[Index],
    rows: int,
    inside: Callable[[Value], None],
    outside: Callable[[], None],
) -> None:
    """inside(index) where the index at `place` is in [0, rows), else outside()."""
    number = k.cast(k.load(indices, place), IndexType())

    def below() -> None:
        k.choose(k.icompare(number, rows, "slt"), lambda: inside(number), outside)

    k.choose(k.icompare(number, 0, "sge"), below, outside)
