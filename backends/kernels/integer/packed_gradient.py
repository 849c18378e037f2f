"""Cotangents of 1x1 convolutions of codes on cores with packed halves: two products at a time.

Both are sums over i of left[row, i] * right[i, column], of halves. Four columns are packed into
scratch for all rows, neighbouring i in the halves of a word; one instruction then multiplies two
pairs and adds both products to a sum.
"""

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType, i8, i16, i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.convolution import Kernel, Plan, shape_of_gathering, spec_of
from niwaki.backends.kernels.filter_gradient import shape_of_filter_gradient
from niwaki.backends.kernels.integer.packed import packed_constant
from niwaki.backends.kernels.operands import Contraction, Operand, References
from niwaki.backends.kernels.product import Put
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.ir.dialects import nn

_MOST_WORDS = 4096
"""Of scratch."""

Load = Callable[[Index], tuple[Value, Value]]
"""i -> four columns of the right matrix at i, in the halves of two words."""
Store = Callable[[Index, int, Value], None]
"""(pair, column, word): takes the elements 2 * pair and 2 * pair + 1 of one of four columns."""
_CODES = ((0, 2), (1, 3))
"""The columns in the halves of what `Load` gives: bytes as they widen,"""
_HALVES = ((0, 1), (2, 3))
"""and halves as they lie in memory."""


def select_input_cotangent(
    anchor: nn.IntegerConv2dDxOp, contraction: Contraction
) -> KernelSpec | None:
    """The kernel of the input's cotangent; None where this form does not fit the shape.

    Rows are positions of the output's cotangent, columns those of the filter.
    """
    shape = shape_of_gathering(anchor)
    words = 4 * _pairs(shape.in_channels)
    if not shape.in_place or shape.out_channels % 4 or words > _MOST_WORDS:
        return None
    return spec_of(contraction, shape, Plan(False, 1, 0, words), _InputCotangent)


def select_filter_cotangent(
    anchor: nn.IntegerConv2dDwOp, contraction: Contraction
) -> KernelSpec | None:
    """The kernel of the filter's cotangent; None where this form does not fit the shape.

    Rows are channels of the input, columns those of the output's cotangent; sums over positions.
    """
    shape = shape_of_filter_gradient(anchor)
    inputs, outputs, positions = shape.in_channels, shape.out_channels, shape.positions
    words = (4 + inputs) * _pairs(positions)
    if not shape.flat or shape.groups != 1 or inputs % 4 or outputs % 4 or words > _MOST_WORDS:
        return None

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, 4 * words)
        _filter_cotangent(k, refs, inputs, outputs, positions)
        return k.finish()

    return contraction.spec(4 * words, 2 * positions * outputs * inputs, build)


def _pairs(length: int) -> int:
    return -(-length // 2)


class _InputCotangent(Kernel):
    """The construction of the kernel of an input's cotangent."""

    def run(self) -> None:
        k, shape = self.k, self.shape
        cotangent, filters = self.refs.anchor
        scratch, length, columns = self.scratch.ref, shape.in_channels, shape.out_channels
        product = _Product(k, cotangent, scratch, length)

        def panel(column: Value) -> None:
            load = _load_codes(k, filters, columns, column)
            _pack(k, length, load, _CODES, product.store)
            product.run(shape.positions, length, 0, column, self.results.put)

        k.each(0, columns, 4, panel)


def _filter_cotangent(
    k: KernelBuilder, refs: References, inputs: int, outputs: int, positions: int
) -> None:
    """The channels of the input become rows of halves in scratch, behind the packed columns."""
    codes, cotangent = refs.anchor
    assert refs.scratch is not None
    scratch, pairs = refs.scratch.ref, _pairs(positions)

    def widen(channel: Value) -> None:
        def store(pair: Index, column: int, word: Value) -> None:
            row = k.imul(k.iadd(channel, column), pairs)
            k.store(word, scratch, [k.iadd(k.iadd(row, pair), 4 * pairs)])

        _pack(k, positions, _load_codes(k, codes, inputs, channel), _CODES, store)

    k.each(0, inputs, 4, widen)
    halves = k.view(scratch, MemRefType(i16, [2 * (4 + inputs) * pairs]))
    product = _Product(k, Operand(halves, 0), scratch, 2 * pairs)

    def put(row: Index, column: Index, lanes: int, value: Value) -> None:
        refs.pointwise.emit(k, [column, 0, 0, row], lanes, value)

    def panel(column: Value) -> None:
        load = _load_halves(k, cotangent, outputs, column)
        _pack(k, positions, load, _HALVES, product.store)
        product.run(inputs, 2 * pairs, 8 * pairs, column, put)

    k.each(0, outputs, 4, panel)


@dataclass(frozen=True)
class _Product:
    """Sums over i < `length` of rows of halves times the packed columns."""

    k: KernelBuilder
    left: Operand
    packed: Value
    length: int

    def store(self, pair: Index, column: int, word: Value) -> None:
        """Takes a packed pair of one of four columns."""
        self.k.store(word, self.packed, [self.k.iadd(self.k.imul(pair, 4), column)])

    def run(self, rows: int, stride: int, first: int, column: Index, put: Put) -> None:
        """put(row, column, 1, sum) for all rows, which start at `first` + row * `stride`."""
        k, pairs = self.k, self.length // 2

        def row(number: Value) -> None:
            start = k.iadd(k.imul(number, stride), first)
            sums = k.dots(self.packed, self.left.ref, start, pairs, [k.constant(0, i32)] * 4)
            for c, total in enumerate(sums):
                if self.length % 2:
                    half = self.left.load(k, k.iadd(start, self.length - 1))
                    total = k.dual_multiply(half, k.load(self.packed, [4 * pairs + c]), total)
                put(number, k.iadd(column, c), 1, total)

        k.each(0, rows, 1, row)


# --- packing


def _pack(
    k: KernelBuilder, length: int, load: Load, order: tuple[tuple[int, int], ...], store: Store
) -> None:
    """Four columns; the last i may be alone: then 0 is beside it."""

    def join(pair: Index, first: tuple[Value, Value], second: tuple[Value, Value]) -> None:
        sixteen = k.constant(16, i32)
        for columns, a, b in zip(order, first, second, strict=True):
            store(pair, columns[0], k.pack_halves(a, b))
            upper = k.pack_halves(k.shift_right(a, sixteen), k.shift_right(b, sixteen))
            store(pair, columns[1], upper)

    def both(pair: Value) -> None:
        i = k.imul(pair, 2)
        join(pair, load(i), load(k.iadd(i, 1)))

    k.each(0, length // 2, 1, both)
    if length % 2:
        zero = k.constant(0, i32)
        join(length // 2, load(length - 1), (zero, zero))


def _load_codes(k: KernelBuilder, codes: Operand, width: int, column: Index) -> Load:
    """From a row-major matrix of codes, as differences from their zero point."""
    assert codes.zero_point is not None
    offset = packed_constant(k, -codes.zero_point)

    def load(i: Index) -> tuple[Value, Value]:
        word = k.load_word(codes.ref, k.iadd(k.imul(i, width), column))
        return k.extend_pair(word, offset, False), k.extend_pair(word, offset, True)

    return load


def _load_halves(k: KernelBuilder, matrix: Operand, width: int, column: Index) -> Load:
    """From a row-major matrix of i16."""
    assert isinstance(matrix.ref.type, MemRefType)
    view = k.view(matrix.ref, MemRefType(i8, [2 * matrix.ref.type.get_shape()[0]]))

    def load(i: Index) -> tuple[Value, Value]:
        place = k.imul(k.iadd(k.imul(i, width), column), 2)
        return k.load_word(view, place), k.load_word(view, k.iadd(place, 4))

    return load
