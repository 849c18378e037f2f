"""Which kernels compute a contraction, and matrix products."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Literal, TypeAlias

from xdsl.dialects.builtin import MemRefType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from niwaki.backends.kernels import (
    convolution,
    depthwise,
    filter_gradient,
    gradient_strips,
    windows,
)
from niwaki.backends.kernels.alternatives import Alternative, by_cycles, only
from niwaki.backends.kernels.builder import Index, Value
from niwaki.backends.kernels.choice import (
    COPY_CYCLES,
    RegisterTile,
    dots_cycles,
    spends_scratch,
    unpacked_cycles,
)
from niwaki.backends.kernels.gather import FilterCotangent, Gathering
from niwaki.backends.kernels.integer import (
    packed,
    packed_depthwise,
    packed_gradient,
    row_dots,
    row_dots_depthwise,
    row_dots_gradient,
)
from niwaki.backends.kernels.operands import Contraction
from niwaki.backends.kernels.packed_product import PackedProduct
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.product import (
    Matrix,
    Sum,
    multiply_dots,
    multiply_outer,
    transpose,
)
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import panels, tile_rows
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of

Offer: TypeAlias = Callable[[Gathering, Contraction], list[Alternative]]
"""The alternatives of one algorithm for a convolution or its input's cotangent; none: unfit."""

_ON_VECTORS: tuple[Offer, ...] = (windows.alternatives, convolution.alternatives)
_ON_SCALARS: tuple[Offer, ...] = (convolution.alternatives,)


def select_contraction(
    op: Operation,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> KernelSpec:
    """The first of `contraction_alternatives`."""
    return contraction_alternatives(op, operands, results, target)[0].spec()


def contraction_alternatives(
    op: Operation,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> list[Alternative]:
    """Of a convolution, one of its cotangents, or a matrix product, with epilogue; best first."""
    anchor = Group.of(op).anchor
    contraction = Contraction(op, tuple(operands), tuple(results), target)
    if isinstance(anchor, nn.MatmulOp):
        return by_cycles(_matmul_alternatives(_Sizes.of(anchor), contraction))
    spec = _select_vectors(anchor, contraction) if target.vector_dots else None
    if spec is None and target.packed_halves:
        spec = _select_packed(anchor, contraction)
    if spec is not None:
        return [only("codes", spec)]
    if isinstance(anchor, FilterCotangent):
        x = shape_of(anchor.x)
        if anchor.window.groups == x[3] == shape_of(anchor.dy)[3]:
            return [only("depthwise", depthwise.select_filter_gradient(anchor, contraction))]
        return by_cycles(_filter_cotangent(anchor, contraction))
    assert isinstance(anchor, Gathering)
    if _is_depthwise(anchor):
        return [only("depthwise", depthwise.select_gather(anchor, contraction))]
    offers = _ON_SCALARS if target.lanes == 1 else _ON_VECTORS
    return by_cycles(a for offer in offers for a in offer(anchor, contraction))


def _select_vectors(anchor: Operation | None, contraction: Contraction) -> KernelSpec | None:
    """The kernel of dot products of vectors of codes; None where none fits."""
    match anchor:
        case nn.IntegerConv2dOp() if not _is_depthwise(anchor):
            return row_dots.select(anchor, contraction)
        case nn.IntegerConv2dOp() if _is_depthwise(anchor):
            return row_dots_depthwise.select(anchor, contraction)
        case nn.IntegerConv2dDxOp() if _is_depthwise(anchor):
            return depthwise.select_gather(anchor, contraction)
        case nn.IntegerConv2dDxOp():
            return row_dots_gradient.select_input_cotangent(anchor, contraction)
        case nn.IntegerConv2dDwOp():
            return row_dots_gradient.select_filter_cotangent(anchor, contraction)
        case _:
            return None


def _select_packed(anchor: Operation | None, contraction: Contraction) -> KernelSpec | None:
    """The kernel of products of codes two at a time; None where none fits."""
    match anchor:
        case nn.IntegerConv2dDwOp():
            return packed_gradient.select_filter_cotangent(anchor, contraction)
        case nn.IntegerConv2dOp() | nn.IntegerConv2dDxOp() if _is_depthwise(anchor):
            return packed_depthwise.select(anchor, contraction)
        case nn.IntegerConv2dDxOp():
            return packed_gradient.select_input_cotangent(anchor, contraction)
        case nn.IntegerConv2dOp():
            return packed.select(anchor, contraction)
        case _:
            return None


def _filter_cotangent(anchor: FilterCotangent, contraction: Contraction) -> list[Alternative]:
    shape = filter_gradient.shape_of_filter_gradient(anchor)
    found = filter_gradient.alternatives(shape, contraction)
    if spends_scratch(contraction.target):
        found += gradient_strips.alternatives(shape, contraction)
    return found


def _is_depthwise(anchor: Gathering) -> bool:
    w = shape_of(anchor.w)
    return anchor.window.groups == w[0] and w[3] == 1


_Form: TypeAlias = Literal["dots", "outer"] | PackedProduct
"""How a product is computed."""


@dataclass(frozen=True)
class _Sizes:
    """Of a stack of products."""

    stack: tuple[int, ...]
    rows: int
    columns: int
    length: int
    transpose_a: bool
    transpose_b: bool

    @staticmethod
    def of(anchor: nn.MatmulOp) -> "_Sizes":
        """From the types."""
        transpose_a = bool(anchor.transpose_a.value.data)
        transpose_b = bool(anchor.transpose_b.value.data)
        *stack, rows, columns = shape_of(anchor.y)
        length = shape_of(anchor.a)[-2 if transpose_a else -1]
        return _Sizes(tuple(stack), rows, columns, length, transpose_a, transpose_b)


def _matmul_alternatives(sizes: _Sizes, contraction: Contraction) -> Iterator[Alternative]:
    rows, columns, length, target = sizes.rows, sizes.columns, sizes.length, contraction.target

    def offer(name: str, cycles: float, form: _Form) -> Alternative:
        spec = partial(_matmul, sizes, contraction, form)
        return Alternative(name, prod(sizes.stack) * cycles, spec)

    if sizes.transpose_b and not sizes.transpose_a:
        yield offer("dot-products", dots_cycles(rows, columns, length, target), "dots")
        if not spends_scratch(target):
            return
    blocks = max(len(p.blocks) for p in panels(columns, target))
    tile = RegisterTile(tile_rows(rows, blocks, target), blocks)
    cycles = unpacked_cycles(rows, columns, length, tile, target)
    transposed = COPY_CYCLES * length * columns if sizes.transpose_b else 0
    yield offer("outer-products", cycles + transposed, "outer")
    if not spends_scratch(target):
        return
    packed = PackedProduct(rows, columns, length, sizes.transpose_a, sizes.transpose_b, target)
    yield offer("packed-product", packed.cycles, packed)
    for tile in packed.tiles[1:]:
        other = replace(packed, other_tile=tile)
        yield offer(f"packed-product {tile}", other.cycles, other)


def _matmul(sizes: _Sizes, contraction: Contraction, form: _Form) -> KernelSpec:
    """One product after another, for each pair of matrices of the stacks."""
    rows, columns, length, target = sizes.rows, sizes.columns, sizes.length, contraction.target
    transpose_a, transpose_b = sizes.transpose_a, sizes.transpose_b
    workspace = 0
    if isinstance(form, PackedProduct):
        workspace = 4 * form.scratch
    elif form == "outer" and transpose_b:
        workspace = 4 * columns * length

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace)

        def product(place: list[Index]) -> None:
            def put(row: Index, column: Index, lanes: int, value: Value) -> None:
                refs.pointwise.emit(k, [*place, row, column], lanes, value)

            number: Index = 0
            for index, size in zip(place, sizes.stack, strict=True):
                number = k.iadd(k.imul(number, size), index)
            a_start, b_start = k.imul(number, rows * length), k.imul(number, columns * length)
            a = Matrix(refs.anchor[0], a_start, 1 if transpose_a else length)
            b = Matrix(refs.anchor[1], b_start, length if transpose_b else 1)
            if form == "dots":
                multiply_dots(k, target, a, b, rows, columns, length, put)
                return
            if isinstance(form, PackedProduct):
                assert refs.scratch is not None
                form.emit(k, a, b, refs.scratch, put)
                return
            if transpose_b:
                assert refs.scratch is not None
                b = transpose(k, b, columns, length, refs.scratch, 0)
            sums = [Sum(length, rows if transpose_a else 1, columns)]
            multiply_outer(k, target, a, b, rows, columns, sums, put)

        k.nest(sizes.stack, product)
        return k.finish()

    return contraction.spec(workspace, 2 * prod(sizes.stack) * rows * columns * length, build)
