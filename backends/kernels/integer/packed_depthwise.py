"""Depthwise convolutions of codes on cores with packed halves: one channel's plane at a time.

The rows of a band are gathered into scratch, two neighbouring codes of the channel per word, so
that one instruction multiplies two neighbouring taps and adds both products to a sum. An output
that starts in the middle of a word takes pairs that begin with the second tap.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels import depthwise
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.gather import Gather, backward_gathers, forward_gather
from niwaki.backends.kernels.integer.packed import packed_constant
from niwaki.backends.kernels.operands import Contraction, References
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.tiles import Accumulators, accumulate, each_tile
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of

_MOST_WORDS = 512
"""Of scratch for the rows of a band, unless one row of outputs needs more."""
_TILE = 4
"""Neighbouring outputs that share the filter's loads: an even number."""
_REGISTERS = 6
"""Words of a filter that stay in registers."""


def select(
    anchor: nn.IntegerConv2dOp | nn.IntegerConv2dDxOp, contraction: Contraction
) -> KernelSpec:
    """The kernel of a depthwise convolution of codes, or of its input's cotangent."""
    window, w = anchor.window, shape_of(anchor.w)
    source, goal = shape_of(anchor.operands[0]), shape_of(anchor.results[0])
    forward = isinstance(anchor, nn.IntegerConv2dOp)
    axes = [
        (goal[a + 1], source[a + 1], w[a + 1], window.strides[a], window.padding[a],
         window.dilation[a])
        for a in (0, 1)
    ]  # fmt: skip
    gathers = [[forward_gather(*axis)] if forward else backward_gathers(*axis) for axis in axes]
    phases = [_Phase(rows, columns) for rows in gathers[0] for columns in gathers[1]]
    if not all(phase.is_dense for phase in phases):
        return depthwise.select_gather(anchor, contraction)
    workspace = 4 * max(phase.words for phase in phases)
    outputs = goal if forward else source
    flops = 2 * outputs[0] * outputs[1] * outputs[2] * w[0] * w[1] * w[2]

    def build(name: str) -> FuncOp:
        k, refs = contraction.begin(name, workspace, biased=forward, ascending=True)
        for phase in phases:
            band, filter_ = phase.band, phase.filter
            _Kernel(k, refs, phase.rows, phase.columns, band, filter_, source, w).run()
        return k.finish()

    return contraction.spec(workspace, flops, build)


@dataclass(frozen=True)
class _Phase:
    """One grid of outputs with its taps: a convolution has one, its cotangent one per stride."""

    rows: Gather
    columns: Gather

    @property
    def is_dense(self) -> bool:
        """Whether neighbouring taps, of which there are some, read neighbouring inputs."""
        gathers = (self.rows, self.columns)
        return all(g.count > 0 and g.offset_step == 1 and g.offset <= 0 for g in gathers)

    @property
    def band(self) -> "_Band":
        """The rows that are worked on together."""
        return _Band.of(self.rows, self.columns)

    @property
    def filter(self) -> "_Filter":
        """How its taps are packed."""
        return _Filter(self.columns.count, self.columns.in_step)

    @property
    def words(self) -> int:
        """Of scratch."""
        kept = _in_registers(self.filter, self.rows.count)
        return self.band.words + (0 if kept else self.rows.count * self.filter.words)


@dataclass(frozen=True)
class _Band:
    """Rows of outputs whose inputs lie in scratch together."""

    height: int
    """Rows of outputs; the last band may have fewer."""
    count: int
    row_words: int
    """Of one row of inputs, between the padding on both sides."""
    words: int

    @classmethod
    def of(cls, rows: Gather, columns: Gather) -> "_Band":
        """The least number of bands that fit."""
        row_words = -(-((columns.positions - 1) * columns.in_step + columns.count) // 2)
        most = max(1, (_MOST_WORDS // row_words - rows.count) // rows.in_step + 1)
        count = -(-rows.positions // most)
        height = -(-rows.positions // count)
        needed = (height - 1) * rows.in_step + rows.count
        return cls(height, count, row_words, needed * row_words)


@dataclass(frozen=True)
class _Product:
    """Of a word of inputs and a word of the filter: both halves, or one half of each."""

    x: int
    """The word, counted from the output's first one."""
    w: int
    x_half: int | None = None
    """0 for the low one; None: both."""
    w_half: int = 0


@dataclass(frozen=True)
class _Filter:
    """How one row of a filter is packed: pairs from the first tap on, then from the second."""

    taps: int
    stride: int

    @property
    def pairs(self) -> list[tuple[int, int | None]]:
        """The taps of each word."""
        even = [(j, j + 1) for j in range(0, self.taps - 1, 2)]
        odd = [(j, j + 1) for j in range(1, self.taps - 1, 2)] if self.stride % 2 else []
        alone = [(self.taps - 1, None)] if self.taps % 2 and not odd else []
        return [*even, *odd, *alone]

    @property
    def words(self) -> int:
        """Of one row."""
        return len(self.pairs)

    def products(self, start: int) -> list[_Product]:
        """For an output whose first input is the half `start`; words counted from half 0."""
        result: list[_Product] = []
        tap = 0
        while tap < self.taps:
            word, half = divmod(start + tap, 2)
            if half == 0 and tap + 1 < self.taps:
                result.append(_Product(word, self.pairs.index((tap, tap + 1))))
                tap += 2
            else:
                w, w_half = self._find(tap)
                result.append(_Product(word, w, half, w_half))
                tap += 1
        return result

    def _find(self, tap: int) -> tuple[int, int]:
        """A word and half where a tap is."""
        return next((n, pair.index(tap)) for n, pair in enumerate(self.pairs) if tap in pair)


def _in_registers(filter_: _Filter, rows: int) -> bool:
    return rows * filter_.words <= _REGISTERS


@dataclass(frozen=True)
class _Kernel:
    """The construction of one kernel."""

    k: KernelBuilder
    refs: References
    rows: Gather
    columns: Gather
    band: _Band
    filter_: _Filter
    source: tuple[int, ...]
    filters: tuple[int, ...]
    """Shape of the filter."""

    def run(self) -> None:
        batch, channels = self.source[0], self.source[3]

        def channel(c: Value) -> None:
            start, words = self._pack_filter(c)

            def band(place: list[Index]) -> None:
                image, number = place
                self._rows(image, number, c, start, words)

            self.k.nest([batch, self.band.count], band)

        self.k.each(0, channels, 1, channel)

    def _scratch(self) -> Value:
        assert self.refs.scratch is not None
        return self.refs.scratch.ref

    @property
    def _zero_point(self) -> int:
        zero_point = self.refs.anchor[0].zero_point
        assert zero_point is not None
        return zero_point

    # --- filter

    def _pack_filter(self, channel: Value) -> tuple[Value, list[Value]]:
        """What sums start from, and the words of the filter if they stay in registers.

        Inputs stay codes: the start takes the products with the zero point along.
        """
        k, filter_ = self.k, self.filter_
        height, kept = self.rows.count, _in_registers(filter_, self.rows.count)
        first = k.imul(channel, self.filters[1] * self.filters[2])

        def row(i: Index) -> tuple[Value, list[Value]]:
            line = k.affine([(i, self.rows.tap_step)], self.rows.tap_start)
            start = k.iadd(first, k.imul(line, self.filters[2]))
            taps = [
                self.columns.tap_start + tap * self.columns.tap_step for tap in range(filter_.taps)
            ]
            codes = [self.refs.anchor[1].load(k, k.iadd(start, tap)) for tap in taps]
            total = codes[0]
            for code in codes[1:]:
                total = k.add(total, code)
            return total, [
                codes[a] if b is None else k.pack_halves(codes[a], codes[b])
                for a, b in filter_.pairs
            ]

        def stored(i: Index, total: Sequence[Value]) -> Sequence[Value]:
            part, words = row(i)
            for n, word in enumerate(words):
                k.store(word, self._scratch(), [k.iadd(self._filter_row(i), n)])
            return [k.add(total[0], part)]

        words: list[Value] = []
        total = k.constant(0, i32)
        if kept:
            for i in range(height):
                part, row_words = row(i)
                total, words = k.add(total, part), [*words, *row_words]
        else:
            (total,) = k.loop(0, height, 1, stored, [total])
        zero_point = k.constant(self._zero_point, i32)
        return k.sub(self.refs.load_bias(k, channel), k.mul(total, zero_point)), words

    def _filter_row(self, i: Index) -> Index:
        return self.k.iadd(self.k.imul(i, self.filter_.words), self.band.words)

    # --- inputs

    def _gather(self, image: Index, first: Index, count: Index, channel: Index) -> None:
        """`count` rows of inputs from row `first` on, which may be padding.

        All kernels ask, so that strips of rows with and without padding are one function in C.
        """
        k = self.k
        height, width, channels = self.source[1:]

        def row(r: Value) -> None:
            y = k.add(k.index(first), r)
            goal = k.imul(r, self.band.row_words)
            source = k.iadd(
                k.affine([(image, height * width * channels), (y, width * channels)]), channel
            )
            inside = k.bit_and(k.icompare(y, 0, "sge"), k.icompare(y, height, "slt"))
            k.choose(inside, lambda: self._copy_row(source, goal), lambda: self._clear_row(goal))

        k.each(0, count, 1, row)

    def _copy_row(self, source: Index, goal: Index) -> None:
        k, columns, words = self.k, self.columns, self.band.row_words
        padding, width, channels = -columns.offset, columns.in_size, self.source[3]
        start = min(words, -(-padding // 2))
        end = max(start, min(words, (width + padding) // 2))

        def half(place: Index) -> Value:
            """Behind or before the row: the code of zero."""
            if isinstance(place, int) and not 0 <= place < width:
                return k.constant(self._zero_point, i32)
            code = k.load(self.refs.anchor[0].ref, [k.iadd(source, k.imul(place, channels))])
            return k.extend(code, i32)

        def word(place: Index) -> None:
            x = k.isub(k.imul(place, 2), padding)
            pair = k.pack_halves(half(x), half(k.iadd(x, 1)))
            k.store(pair, self._scratch(), [k.iadd(goal, place)])

        def block(first: Index, count: int) -> None:
            for i in range(count):
                word(k.iadd(k.iadd(first, start), i))

        for place in range(start):
            word(place)
        each_block(k, end - start, 4, block)
        for place in range(end, words):
            word(place)

    def _clear_row(self, goal: Index) -> None:
        k, zero = self.k, packed_constant(self.k, self._zero_point)
        k.each(
            0,
            self.band.row_words,
            1,
            lambda word: k.store(zero, self._scratch(), [k.iadd(goal, word)]),
        )

    # --- outputs

    def _rows(
        self, image: Index, band: Index, channel: Index, start: Value, words: Sequence[Value]
    ) -> None:
        """The outputs of one band in one channel."""
        k, rows, columns = self.k, self.rows, self.columns
        top = k.imul(band, self.band.height)
        height = k.imin(self.band.height, k.isub(rows.positions, top))
        if rows.positions % self.band.height == 0:
            height = self.band.height
        first = k.iadd(k.imul(top, rows.in_step), rows.offset)
        count = k.iadd(k.imul(height, rows.in_step), rows.count - rows.in_step)
        self._gather(image, first, count, channel)

        def line(y: Value) -> None:
            source = k.imul(y, rows.in_step * self.band.row_words)

            def tile(number: Index, count: int) -> None:
                word = k.iadd(source, k.imul(number, _TILE // 2 * columns.in_step))
                x = k.imul(number, _TILE)
                for t, (value,) in enumerate(self._tile(word, count, start, words)):
                    place = rows.output(k, k.iadd(top, y)), columns.output(k, k.iadd(x, t))
                    self.refs.pointwise.emit(k, [image, *place, channel], 1, value)

            whole, rest = divmod(columns.positions, _TILE)
            each_tile(k, whole, 1, lambda number, _: tile(number, _TILE))
            if rest:
                tile(whole, rest)

        k.each(0, height, 1, line)

    def _tile(
        self, source: Index, count: int, start: Value, words: Sequence[Value]
    ) -> Accumulators:
        """`count` neighbouring outputs; their inputs start with the word `source`."""
        k, size = self.k, self.filter_.words
        tile: Accumulators = [[start] for _ in range(count)]
        if words:
            for i in range(self.rows.count):
                place = k.iadd(source, i * self.band.row_words)
                tile = self._add_row(tile, place, words[i * size : (i + 1) * size])
            return tile

        def step(i: Index, tile: Accumulators) -> Accumulators:
            first = self._filter_row(i)
            filter_ = [k.load(self._scratch(), [k.iadd(first, n)]) for n in range(size)]
            return self._add_row(tile, k.iadd(source, k.imul(i, self.band.row_words)), filter_)

        return accumulate(k, 0, self.rows.count, tile, step)

    def _add_row(self, tile: Accumulators, source: Index, filter_: Sequence[Value]) -> Accumulators:
        """Adds the taps of one row of the filter."""
        k = self.k
        loaded: dict[int, Value] = {}
        result: Accumulators = []
        for t, (total,) in enumerate(tile):
            for product in self.filter_.products(t * self.columns.in_step):
                if product.x not in loaded:
                    loaded[product.x] = k.load(self._scratch(), [k.iadd(source, product.x)])
                x, w = loaded[product.x], filter_[product.w]
                if product.x_half is None:
                    total = k.dual_multiply(x, w, total)
                else:
                    total = k.half_multiply(x, w, total, bool(product.x_half), bool(product.w_half))
            result.append([total])
        return result
