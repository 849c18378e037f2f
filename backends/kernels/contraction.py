"""Which kernel computes a contraction, and matrix products."""

from collections.abc import Sequence
from math import prod

from xdsl.dialects.builtin import MemRefType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

from niwaki.backends.kernels import (
    convolution,
    depthwise,
    filter_gradient,
    gradient_strips,
    windows,
    winograd,
    winograd_gradient,
)
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
    multiply_dots,
    multiply_outer,
    transpose,
    use_dots,
)
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.weight_panels import PackedWeight
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of


def select_contraction(
    op: Operation,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> KernelSpec:
    """The kernel of a convolution, one of its cotangents, or a matrix product, with epilogue."""
    anchor = Group.of(op).anchor
    contraction = Contraction(op, tuple(operands), tuple(results), target)
    if isinstance(anchor, nn.MatmulOp):
        return _matmul(anchor, contraction)
    spec = _select_vectors(anchor, contraction) if target.vector_dots else None
    if spec is None and target.packed_halves:
        spec = _select_packed(anchor, contraction)
    if spec is not None:
        return spec
    if isinstance(anchor, FilterCotangent):
        x = shape_of(anchor.x)
        if anchor.window.groups == x[3] == shape_of(anchor.dy)[3]:
            return depthwise.select_filter_gradient(anchor, contraction)
        return _filter_cotangent(anchor, contraction)
    assert isinstance(anchor, Gathering)
    if _is_depthwise(anchor):
        return depthwise.select_gather(anchor, contraction)
    if packs_columns(convolution.shape_of_gathering(anchor).positions, target):
        return winograd.select(anchor, contraction) or windows.select(anchor, contraction)
    return convolution.select(anchor, contraction)


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


def _filter_cotangent(anchor: FilterCotangent, contraction: Contraction) -> KernelSpec:
    shape = filter_gradient.shape_of_filter_gradient(anchor)
    spec = winograd_gradient.select(shape, contraction)
    if spec is not None:
        return spec
    read = sum(4 * prod(shape_of(operand)) for operand in anchor.operands)
    if sums_by_strips(shape.positions, read, contraction.target):
        return gradient_strips.select(shape, contraction)
    return filter_gradient.select(shape, contraction)


def _is_depthwise(anchor: Gathering) -> bool:
    w = shape_of(anchor.w)
    return anchor.window.groups == w[0] and w[3] == 1


def _matmul(anchor: nn.MatmulOp, contraction: Contraction, prepacked: bool = False) -> KernelSpec:
    """One product after another, for each pair of matrices of the stacks.

    `prepacked`: the only B comes in the panels that the kernel would pack it in.
    """
    a_shape = shape_of(anchor.a)
    transpose_a = bool(anchor.transpose_a.value.data)
    transpose_b = bool(anchor.transpose_b.value.data)
    *stack, rows, columns = shape_of(anchor.y)
    length = a_shape[-2] if transpose_a else a_shape[-1]
    target = contraction.target
    column_bytes = 4 * length * columns
    by_dots = (
        transpose_b
        and not transpose_a
        and use_dots(rows, length, target)
        and not packs_instead_of_dots(rows, column_bytes, target)
    )
    cached = not transpose_b and keeps_columns(rows, column_bytes, target)
    packed = None
    if not by_dots and not cached and packs_columns(rows, target):
        packed = PackedProduct(rows, columns, length, transpose_a, transpose_b, target, prepacked)
    workspace = 4 * columns * length if transpose_b and not by_dots else 0
    if packed is not None:
        workspace = 4 * packed.scratch

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace)

        def product(place: list[Index]) -> None:
            def put(row: Index, column: Index, lanes: int, value: Value) -> None:
                refs.pointwise.emit(k, [*place, row, column], lanes, value)

            def prefetch(row: Index, column: Index) -> None:
                refs.pointwise.prefetch(k, [*place, row, column])

            number: Index = 0
            for index, size in zip(place, stack, strict=True):
                number = k.iadd(k.imul(number, size), index)
            a_start, b_start = k.imul(number, rows * length), k.imul(number, columns * length)
            a = Matrix(refs.anchor[0], a_start, 1 if transpose_a else length)
            b = Matrix(refs.anchor[1], b_start, length if transpose_b else 1)
            if by_dots:
                multiply_dots(k, target, a, b, rows, columns, length, put)
                return
            if packed is not None:
                packed.emit(k, a, b, refs.scratch, put, prefetch)
                return
            if transpose_b:
                assert refs.scratch is not None
                b = transpose(k, b, columns, length, refs.scratch, 0)
            sums = [Sum(length, a_shape[-1] if transpose_a else 1, columns)]
            multiply_outer(k, target, a, b, rows, columns, sums, put, prefetch)

        k.nest(stack, product)
        return k.finish()

    spec = contraction.spec(workspace, 2 * prod(shape_of(anchor.y)) * length, build)
    if packed is None or prepacked or stack:
        return spec
    packing = PackedWeight(shape_of(anchor.b), (packed.weight_panels,))
    return contraction.with_prepacked(
        spec, packing, lambda operands: _matmul(anchor, operands, prepacked=True)
    )
