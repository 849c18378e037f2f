"""Which kernels compute a contraction, and matrix products."""

from collections.abc import Sequence
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
from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.builder import Index, Value
from niwaki.backends.kernels.choice import (
    keeps_columns,
    packs_columns,
    packs_instead_of_dots,
    sums_by_strips,
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
    beside_matrix,
    multiply_dots,
    multiply_outer,
    transpose,
    use_dots,
)
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.weight_panels import PackedWeight
from niwaki.backends.kernels.winograd import convolution as winograd_convolution
from niwaki.backends.kernels.winograd import gradient as winograd_gradient
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of


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
    """Of a convolution, one of its cotangents, or a matrix product, with epilogue; best first.

    Their names follow from the operation and the target alone, whatever the layouts.
    """
    anchor = Group.of(op).anchor
    contraction = Contraction(op, tuple(operands), tuple(results), target)
    if isinstance(anchor, nn.MatmulOp):
        return _matmul_alternatives(anchor, contraction)
    spec = _select_vectors(anchor, contraction) if target.vector_dots else None
    if spec is None and target.packed_halves:
        spec = _select_packed(anchor, contraction)
    if spec is not None:
        return [Alternative("codes", lambda: spec)]
    if isinstance(anchor, FilterCotangent):
        x = shape_of(anchor.x)
        if anchor.window.groups == x[3] == shape_of(anchor.dy)[3]:
            spec = partial(depthwise.select_filter_gradient, anchor, contraction)
            return [Alternative("depthwise", spec)]
        return _filter_cotangent(anchor, contraction)
    assert isinstance(anchor, Gathering)
    if _is_depthwise(anchor):
        return [Alternative("depthwise", partial(depthwise.select_gather, anchor, contraction))]
    gathered = convolution.alternatives(anchor, contraction)
    if target.lanes == 1:
        return gathered
    in_place = windows.alternatives(anchor, contraction)
    if not packs_columns(convolution.shape_of_gathering(anchor).positions, target):
        return [*gathered, *in_place]
    if isinstance(anchor, nn.IntegerConv2dOp | nn.IntegerConv2dDxOp):
        return [*in_place, *gathered]
    return winograd_convolution.alternatives(anchor, contraction, [*in_place, *gathered])


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
    shape, target = filter_gradient.shape_of_filter_gradient(anchor), contraction.target
    tiles = filter_gradient.alternatives(shape, contraction)
    if target.lanes == 1:
        return tiles
    strips = gradient_strips.alternatives(shape, contraction)
    read = sum(4 * prod(shape_of(operand)) for operand in anchor.operands)
    tile = filter_gradient.tile_of(shape, target)
    by_strips = sums_by_strips(
        shape.positions,
        read,
        tile.rows * tile.blocks,
        gradient_strips.prefetches(shape, contraction),
        target,
    )
    others = [*strips, *tiles] if by_strips else [*tiles, *strips]
    if isinstance(anchor, nn.IntegerConv2dDwOp):
        return others
    return winograd_gradient.alternatives(shape, contraction, others)


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

    @property
    def contiguous(self) -> bool:
        """Whether both matrices are so along the sum."""
        return self.transpose_b and not self.transpose_a

    def streams(self, target: Target) -> bool:
        """Whether the stack of A is beyond the cache, so that each matrix comes from memory."""
        matrix = 4 * self.rows * self.length
        return matrix < target.cache_bytes < prod(self.stack) * matrix


def _matmul_alternatives(anchor: nn.MatmulOp, contraction: Contraction) -> list[Alternative]:
    sizes, target = _Sizes.of(anchor), contraction.target

    def offer(name: str, form: _Form) -> Alternative:
        return Alternative(name, partial(_select_matmul, anchor, sizes, form, contraction))

    offers = {"outer": [offer("outer-products", "outer")]}
    if sizes.contiguous:
        offers["dots"] = [offer("dot-products", "dots")]
    if target.lanes > 1:
        packed = PackedProduct(
            sizes.rows,
            sizes.columns,
            sizes.length,
            sizes.transpose_a,
            sizes.transpose_b,
            target,
            staged=Group.of(contraction.op).is_transcendental,
        )
        offers["packed"] = [
            offer("packed-product", packed),
            *(
                offer(f"packed-product {tile}", replace(packed, other_tile=tile))
                for tile in packed.tiles[1:]
            ),
        ]
    best = offers.pop(_best_form(sizes, target))
    return [*best, *(a for rest in offers.values() for a in rest)]


def _best_form(sizes: _Sizes, target: Target) -> Literal["dots", "outer", "packed"]:
    column_bytes = 4 * sizes.length * sizes.columns
    if (
        sizes.contiguous
        and use_dots(sizes.rows, sizes.length, target)
        and not packs_instead_of_dots(sizes.rows, column_bytes, target)
    ):
        return "dots"
    cached = not sizes.transpose_b and keeps_columns(sizes.rows, column_bytes, target)
    return "packed" if not cached and packs_columns(sizes.rows, target) else "outer"


def _select_matmul(
    anchor: nn.MatmulOp, sizes: _Sizes, form: _Form, contraction: Contraction
) -> KernelSpec:
    spec = _matmul(sizes, form, contraction)
    if not isinstance(form, PackedProduct) or sizes.stack:
        return spec
    packing = PackedWeight(shape_of(anchor.b), (form.weight_panels,))
    prepacked = replace(form, prepacked=True)
    return contraction.with_prepacked(spec, packing, partial(_matmul, sizes, prepacked))


def _matmul(sizes: _Sizes, form: _Form, contraction: Contraction) -> KernelSpec:
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

            def prefetch(row: Index, column: Index) -> None:
                refs.pointwise.prefetch(k, [*place, row, column])

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
                form.emit(k, a, b, refs.scratch, put, prefetch)
                return
            if transpose_b:
                assert refs.scratch is not None
                b = transpose(k, b, columns, length, refs.scratch, 0)
            sums = [Sum(length, rows if transpose_a else 1, columns)]
            beside = beside_matrix(k, a, rows, length) if sizes.streams(target) else None
            multiply_outer(k, target, a, b, rows, columns, sums, put, prefetch, beside)

        k.nest(sizes.stack, product)
        return k.finish()

    return contraction.spec(workspace, 2 * prod(sizes.stack) * rows * columns * length, build)
