"""Cotangents of 1x1 convolutions of codes on cores with packed halves: two products at a time.

Both are sums over i of left[row, i] * codes[i, column]: the input's over output channels (the
codes are the filter), the filter's over positions (the codes are the input). Four columns of codes
are packed into scratch once for all rows, neighbouring i in the halves of a word; one instruction
then multiplies two pairs and adds both products.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType, i8, i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.convolution import (
    Kernel,
    Plan,
    shape_of_gathering,
    spec_of,
)
from niwaki.backends.kernels.filter_gradient import shape_of_filter_gradient
from niwaki.backends.kernels.operands import Contraction, Operand
from niwaki.backends.kernels.packed_depthwise import packed_constant
from niwaki.backends.kernels.product import Put
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, accumulate
from niwaki.ir.dialects import nn

_COLUMNS = 4
"""Columns of a tile of one row: compilers spill larger ones."""
_LONGEST = 1024
"""Terms of a sum: bounds the scratch."""


def select_input_cotangent(
    anchor: nn.IntegerConv2dDxOp, contraction: Contraction
) -> KernelSpec | None:
    """The kernel of the input's cotangent; None where this form does not fit the shape."""
    shape = shape_of_gathering(anchor)
    if not shape.in_place or not _fits(shape.out_channels, shape.in_channels):
        return None
    plan = Plan(False, 1, 0, _scratch_words(shape.in_channels))
    return spec_of(contraction, shape, plan, _InputCotangent)


def select_filter_cotangent(
    anchor: nn.IntegerConv2dDwOp, contraction: Contraction
) -> KernelSpec | None:
    """The kernel of the filter's cotangent; None where this form does not fit the shape."""
    shape = shape_of_filter_gradient(anchor)
    if not shape.flat or shape.groups != 1 or not _fits(shape.in_channels, shape.positions):
        return None
    workspace = 4 * _scratch_words(shape.positions)
    flops = 2 * shape.positions * shape.out_channels * shape.in_channels

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace)
        assert refs.scratch is not None
        codes, cotangent = refs.anchor

        def put(row: Index, column: Index, lanes: int, value: Value) -> None:
            refs.pointwise.emit(k, [row, 0, 0, column], lanes, value)

        product = _Product(k, codes, shape.in_channels, shape.positions, refs.scratch.ref)
        product.run(shape.out_channels, _Columns(k, cotangent, shape.out_channels), put)
        return k.finish()

    return contraction.spec(workspace, flops, build)


def _fits(columns: int, length: int) -> bool:
    return columns % _COLUMNS == 0 and length <= _LONGEST


def _scratch_words(length: int) -> int:
    return _COLUMNS * -(-length // 2)


class _InputCotangent(Kernel):
    """The construction of the kernel of an input's cotangent."""

    def run(self) -> None:
        k, shape = self.k, self.shape
        cotangent, filters = self.refs.anchor
        assert self.refs.scratch is not None
        length = shape.in_channels
        product = _Product(k, filters, shape.out_channels, length, self.refs.scratch.ref)
        product.run(shape.positions, _Rows(k, cotangent, length), self.put)


@dataclass(frozen=True)
class _Left(ABC):
    """The left matrix, i16."""

    k: KernelBuilder
    operand: Operand
    width: int
    """Elements of a contiguous row in memory."""

    @abstractmethod
    def pair(self, row: Index, i: Index) -> Value:
        """The elements i and i + 1 of `row` in a word."""

    @abstractmethod
    def half(self, row: Index, i: Index) -> Value:
        """The element i of `row` in the lower half of a word."""

    def _load(self, row: Index, column: Index) -> Value:
        return self.operand.load(self.k, self._place(row, column))

    def _place(self, row: Index, column: Index) -> Index:
        return self.k.iadd(self.k.imul(row, self.width), column)


class _Rows(_Left):
    """Each row is contiguous in memory."""

    def pair(self, row: Index, i: Index) -> Value:
        """At any alignment."""
        k, ref = self.k, self.operand.ref
        assert isinstance(ref.type, MemRefType)
        view = k.view(ref, MemRefType(i8, [2 * ref.type.get_shape()[0]]))
        return k.load_word(view, k.imul(self._place(row, i), 2))

    def half(self, row: Index, i: Index) -> Value:
        return self._load(row, i)


class _Columns(_Left):
    """Rows are columns in memory."""

    def pair(self, row: Index, i: Index) -> Value:
        return _join_low(self.k, self._load(i, row), self._load(self.k.iadd(i, 1), row))

    def half(self, row: Index, i: Index) -> Value:
        return self._load(i, row)


@dataclass(frozen=True)
class _Product:
    """sum over i < `length` of left[row, i] * codes[i, column], the codes row-major."""

    k: KernelBuilder
    codes: Operand
    columns: int
    length: int
    scratch: Value

    def run(self, rows: int, left: _Left, put: Put) -> None:
        """put(row, column, 1, sum) for every row and column."""
        k = self.k

        def panel(column: Value) -> None:
            self._pack(column)
            k.each(0, rows, 1, lambda row: self._row(left, row, column, put))

        k.each(0, self.columns, _COLUMNS, panel)

    def _row(self, left: _Left, row: Index, column: Index, put: Put) -> None:
        k = self.k

        def step(pair: Index, tile: Accumulators) -> Accumulators:
            return self._add(tile, left.pair(row, k.imul(pair, 2)), pair)

        tile = accumulate(k, 0, self.length // 2, [[k.constant(0, i32)] * _COLUMNS], step)
        if self.length % 2:
            tile = self._add(tile, left.half(row, self.length - 1), self.length // 2)
        for c, value in enumerate(tile[0]):
            put(row, k.iadd(column, c), 1, value)

    def _add(self, tile: Accumulators, word: Value, pair: Index) -> Accumulators:
        k, (sums,) = self.k, tile
        place = k.imul(pair, _COLUMNS)
        packed = [k.load(self.scratch, [k.iadd(place, c)]) for c in range(_COLUMNS)]
        return [[k.dual_multiply(word, b, total) for b, total in zip(packed, sums, strict=True)]]

    def _pack(self, column: Index) -> None:
        """For each i and i + 1, a word for each of four columns; the last i may be alone."""
        k = self.k

        def pack(pair: Index) -> None:
            first = self._load_codes(k.imul(pair, 2), column)
            second = self._load_codes(k.iadd(k.imul(pair, 2), 1), column)
            self._store(pair, first, second)

        k.each(0, self.length // 2, 1, pack)
        if self.length % 2:
            zero = k.constant(0, i32)
            self._store(self.length // 2, self._load_codes(self.length - 1, column), (zero, zero))

    def _load_codes(self, i: Index, column: Index) -> tuple[Value, Value]:
        """Columns 0 and 2, and 1 and 3, as differences from the zero point."""
        k = self.k
        assert self.codes.zero_point is not None
        offset = packed_constant(k, -self.codes.zero_point)
        word = k.load_word(self.codes.ref, k.iadd(k.imul(i, self.columns), column))
        return k.extend_pair(word, offset, False), k.extend_pair(word, offset, True)

    def _store(self, pair: Index, first: tuple[Value, Value], second: tuple[Value, Value]) -> None:
        k = self.k
        for odd in (0, 1):
            for half, join in enumerate((_join_low, _join_high)):
                index = k.iadd(k.imul(pair, _COLUMNS), odd + 2 * half)
                k.store(join(k, first[odd], second[odd]), self.scratch, [index])


def _join_low(k: KernelBuilder, a: Value, b: Value) -> Value:
    """The lower halves of two words (PKHBT)."""
    low, sixteen = k.constant(0xFFFF, i32), k.constant(16, i32)
    return k.bit_or(k.bit_and(a, low), k.shift_left(b, sixteen))


def _join_high(k: KernelBuilder, a: Value, b: Value) -> Value:
    """The upper halves of two words (PKHTB)."""
    high, sixteen = k.constant(-0x10000, i32), k.constant(16, i32)
    return k.bit_or(k.shift_right(a, sixteen), k.bit_and(b, high))
