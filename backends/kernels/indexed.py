"""Kernels that read or add rows of a table at indices known at run time.

An index outside the table is safe: its row reads as zeros, and takes no part in a sum.
"""

from collections.abc import Callable, Sequence

from xdsl.dialects.builtin import IndexType, MemRefType

from niwaki.backends.kernels.alone import spec_alone
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
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

        def add_row(place: list[Index]) -> None:
            def add(number: Value) -> None:
                def block(i: Index, lanes: int) -> None:
                    total = k.load(y, [number, i], lanes)
                    k.store(k.add(total, k.load(x, [*place, i], lanes)), y, [number, i])

                each_block(k, columns, target.lanes, block)

            _at(k, indices, place, rows, add, lambda: None)

        k.each(0, rows, 1, lambda number: _clear(k, y, [number], columns, target))
        k.nest(shape_of(op.indices), add_row)

    return spec_alone(operands, results, emit)


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
