"""Convolution forward and the cotangent of its input on vector machines, without gathering.

The filter comes in panels, or is packed in them once per call. Positions then read their taps in
place, or, where taps leave the input, from a strip of its rows that is copied with zeros around it.
A tap's channels, and with dense kernels those of a whole kernel row, are one contiguous run.
"""

from dataclasses import dataclass
from functools import partial

from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.choice import RegisterTile, register_tiles, strip_rows
from niwaki.backends.kernels.convolution import (
    Construction,
    ConvolutionShape,
    Phase,
    Plan,
    shape_of_gathering,
    spec_of,
    unflatten,
)
from niwaki.backends.kernels.gather import Gathering
from niwaki.backends.kernels.operands import Contraction, Operand
from niwaki.backends.kernels.panel_packing import Pack, RowLoop
from niwaki.backends.kernels.product import (
    BesideTile,
    Origins,
    PackedColumns,
    Prefetch,
    PrefetchTerm,
    Put,
    Sum,
    multiply_panels,
)
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.strips import Strip, each_strip, reach, read_strip
from niwaki.backends.kernels.tiles import Panel, each_panel, padded_panels
from niwaki.backends.kernels.weight_panels import PackedWeight, WeightPanels
from niwaki.backends.targets import Target
from niwaki.ir.dialects.tensor_op import shape_of


def strip_of(shape: ConvolutionShape, phase: Phase, target: Target) -> Strip:
    """As much as stays in cache with its results: rows of an image, or several images.

    All positions where the filter is so large that packing its panels one by one saves more.
    """
    whole = Strip(phase, shape.batch, phase.rows.positions, shape)
    packed = phase.count * shape.depth * shape.out_channels
    if shape.groups == 1 and 4 * packed > target.cache_bytes and whole.elements < packed:
        return whole
    width, line = reach(phase.columns, phase.columns.positions), phase.columns.positions
    read = phase.rows.in_step * width * shape.in_channels
    row_bytes = 4 * (read + line * shape.out_channels)
    rows = strip_rows(phase.rows.positions, line, row_bytes, target)
    images = 1
    if rows == phase.rows.positions:
        images = strip_rows(shape.batch, rows * line, rows * row_bytes, target)
        images = images if shape.batch % images == 0 else 1
    return Strip(phase, images, rows, shape)


@dataclass(frozen=True)
class StripRows:
    """A of the product of one strip: its positions."""

    operand: Operand
    start: Index
    strip: Strip

    def origins(self, k: KernelBuilder, row: Index, count: int) -> Origins:
        """Offsets from one base where all tiles lie alike, else a base for each row."""
        strip = self.strip
        if isinstance(row, int):
            return Origins([self.start], [strip.offset(row + r) for r in range(count)])
        if strip.regular(count):
            return Origins([self._base(k, row)], [strip.offset(r) for r in range(count)])
        return Origins([self._base(k, k.iadd(row, r)) for r in range(count)])

    def _base(self, k: KernelBuilder, position: Index) -> Index:
        strip, channels = self.strip, self.strip.shape.in_channels
        phase = strip.phase
        image, row, column = unflatten(k, position, (strip.rows, phase.columns.positions))
        if strip.images == 1:
            image = 0
        height, width = strip.size
        place = k.affine(
            [
                (image, height * width * channels),
                (row, phase.rows.in_step * width * channels),
                (column, phase.columns.in_step * channels),
            ]
        )
        return k.iadd(place, self.start)


@dataclass(frozen=True)
class PhaseProduct:
    """The product of one phase: its strips and panels, and where its packed filter lies."""

    strip: Strip
    height: int
    """Positions of a tile."""
    panels: tuple[Panel, ...]
    start: int
    """Of the packed filter in scratch, or where all filters come packed."""
    prepacked: bool
    """Whether they do."""

    @property
    def length(self) -> int:
        """Terms of a sum."""
        return self.strip.phase.count * self.strip.shape.depth

    @property
    def width(self) -> int:
        """Columns, those of the padding included."""
        last = self.panels[-1]
        return last.start + last.width * last.repeat

    @property
    def single(self) -> bool:
        """Whether there is one strip: each panel is used once, and packed only then."""
        strip = self.strip
        whole = strip.images == strip.shape.batch and strip.rows == strip.phase.rows.positions
        return whole and strip.shape.groups == 1 and not self.prepacked

    @property
    def packed(self) -> int:
        """Elements of the packed filter."""
        if self.single:
            return max(p.width for p in self.panels) * self.length
        return self.strip.shape.groups * self.width * self.length

    def weight_panels(self, shape: ConvolutionShape) -> WeightPanels:
        """How the packed filter follows from the filter."""
        rows, columns = self.strip.phase.rows, self.strip.phase.columns
        if shape.forward:
            loops = (RowLoop(self.length, 1),)
            step = shape.width * self.length
            return WeightPanels(loops, self.length, self.panels, 0, shape.groups, step)
        # w[o, i, j, c] is read at (i, j, o) for a vector of c.
        width, (height, line) = shape.width, (shape.kernel[0], shape.kernel[1] * shape.width)
        loops = (
            RowLoop(rows.count, rows.tap_step * line),
            RowLoop(columns.count, columns.tap_step * width),
            RowLoop(shape.depth, height * line),
        )
        first = rows.tap_start * line + columns.tap_start * width
        step = shape.depth * height * line
        return WeightPanels(loops, 1, self.panels, first, shape.groups, step)


def products_of(
    shape: ConvolutionShape,
    target: Target,
    tile: RegisterTile | None = None,
    prepacked: bool = False,
) -> tuple[PhaseProduct, ...]:
    """Of every phase that has taps; `tile`: instead of the best one of each."""
    products: list[PhaseProduct] = []
    start = 0
    for phase in shape.phases:
        if phase.count == 0:
            continue
        strip = strip_of(shape, phase, target)
        chosen = tile or _tiles(strip, target)[0]
        ranges = tuple(padded_panels(shape.width, target, chosen.blocks))
        products.append(PhaseProduct(strip, chosen.rows, ranges, start, prepacked))
        start += products[-1].packed
    return tuple(products)


def _tiles(strip: Strip, target: Target) -> list[RegisterTile]:
    return register_tiles(strip.positions, strip.shape.width, target, strip.regular)


def alternatives(anchor: Gathering, contraction: Contraction) -> list[Alternative]:
    """Of an ordinary or grouped convolution, or of its input's cotangent: by register tile."""
    shape, target = shape_of_gathering(anchor), contraction.target
    strips = [product.strip for product in products_of(shape, target)]
    largest = max(strips, key=lambda strip: strip.positions, default=None)
    others = [] if largest is None else _tiles(largest, target)[1:]
    return [
        Alternative("windows", partial(_select, anchor, None, contraction)),
        *(Alternative(f"windows {t}", partial(_select, anchor, t, contraction)) for t in others),
    ]


def _select(anchor: Gathering, tile: RegisterTile | None, contraction: Contraction) -> KernelSpec:
    shape, target = shape_of_gathering(anchor), contraction.target
    products = products_of(shape, target, tile)
    packing = PackedWeight(shape_of(anchor.w), tuple(p.weight_panels(shape) for p in products))

    def prepacked(packed: Contraction) -> KernelSpec:
        return _spec(shape, products_of(shape, target, tile, prepacked=True), packed)

    return contraction.with_prepacked(_spec(shape, products, contraction), packing, prepacked)


def _spec(
    shape: ConvolutionShape, products: tuple[PhaseProduct, ...], contraction: Contraction
) -> KernelSpec:
    packed = sum(p.packed for p in products if not p.prepacked)
    copied = max((p.strip.elements for p in products), default=0)
    streams = contraction.streams and shape.in_place
    kernel = partial(WindowKernel, products=products, streams=streams)
    return spec_of(contraction, shape, Plan(False, 0, packed, copied), kernel)


@dataclass(frozen=True)
class WindowKernel(Construction):
    """As products of panels with windows that are read in place."""

    products: tuple[PhaseProduct, ...]
    streams: bool
    """Whether each tile brings into the cache what the next one takes from memory: runs of it."""

    def run(self) -> None:
        """Packs the filter, then works phase by phase."""
        for product in self.products:
            if not (product.single or product.prepacked):
                self.k.nest([self.shape.groups], lambda g, p=product: self._pack_all(p, *g))
        for product in self.products:
            self._multiply(product)
        for phase in self.shape.phases:
            if phase.count == 0:
                self._clear(phase)

    def _pack_all(self, product: PhaseProduct, group: Index) -> None:
        k = self.k
        pack, start = self._pack(product, group), self._packed(product, group)

        def panel_of(column: Index, panel: Panel) -> None:
            pack(column, panel, k.iadd(k.imul(column, product.length), start))

        each_panel(k, product.panels, panel_of)

    def _packed(self, product: PhaseProduct, group: Index) -> Index:
        """Where the packed filter of a group starts."""
        return self.k.iadd(self.k.imul(group, product.length * product.width), product.start)

    def _pack(self, product: PhaseProduct, group: Index) -> Pack:
        panels = product.weight_panels(self.shape)
        start = self.k.imul(group, panels.group_step)
        return panels.pack(self.k, self.refs.anchor[1], start, self.scratch)

    def _multiply(self, product: PhaseProduct) -> None:
        each_strip(self.k, product.strip, self.shape.batch, partial(self._strip, product))

    def _strip(self, product: PhaseProduct, strip: Strip, image: Index, row: Index) -> None:
        k, shape = self.k, self.shape
        source, first = read_strip(
            k, strip, self.refs.anchor[0], self.refs.scratch, self.plan.transposed, (image, row),
            self.target,
        )  # fmt: skip

        def group(place: list[Index]) -> None:
            (number,) = place
            a = StripRows(source, k.iadd(first, k.imul(number, shape.depth)), strip)
            pack = self._pack(product, number) if product.single else None
            start = self._packed(product, number)
            filters = self.refs.anchor[1] if product.prepacked else self.scratch
            beside = self._beside(a) if self.streams else None
            b = PackedColumns(filters, start, product.length, pack, beside=beside)
            put = self._put(strip, image, row, k.imul(number, shape.width))
            prefetch = None
            if self.streams and self.results.flat:
                prefetch = self._prefetch(strip, product.height, image, row)
            multiply_panels(
                k, a, b, product.height, 0, strip.positions, product.panels, self._sums(strip),
                put, prefetch,
            )  # fmt: skip

        k.nest([shape.groups], group)

    def _put(self, strip: Strip, image: Index, row: Index, channel: Index) -> Put:
        k, shape, phase = self.k, self.shape, strip.phase
        line = phase.columns.positions
        whole = phase.rows.out_step == phase.columns.out_step == 1

        def put(position: Index, column: Index, lanes: int, value: Value) -> None:
            if whole:
                first = k.imul(k.iadd(k.imul(image, shape.out_size[0]), row), line)
                place = k.iadd(first, position)
            else:
                number, y, x = unflatten(k, position, (strip.rows, line))
                if strip.images == 1:
                    number = 0
                y = phase.rows.output(k, k.iadd(y, row))
                line_number = k.iadd(k.imul(k.iadd(image, number), shape.out_size[0]), y)
                x = phase.columns.output(k, x)
                place = k.iadd(k.imul(line_number, shape.out_size[1]), x)
            self.results.put(place, k.iadd(column, channel), lanes, value)

        return put

    def _beside(self, a: StripRows) -> BesideTile:
        """Prefetches the positions behind a tile, evenly beside the terms of its sums."""
        k = self.k

        def beside(column: Index, panel: Panel, row: Index, count: int) -> PrefetchTerm:
            del column, panel
            base, offset = a.origins(k, k.iadd(row, count), 1).of(0)
            start = k.iadd(base, offset)
            return lambda i: k.prefetch(a.operand.ref, [k.iadd(start, k.imul(i, count))])

        return beside

    def _prefetch(self, strip: Strip, height: int, image: Index, row: Index) -> Prefetch:
        """Prefetches what the epilogue takes from memory `height` positions further on."""
        k, line = self.k, strip.phase.columns.positions
        start = k.imul(k.iadd(k.imul(image, self.shape.out_size[0]), row), line)

        def ahead(position: Index, column: Index) -> None:
            place = k.iadd(k.iadd(start, position), height)
            self.refs.pointwise.prefetch(k, [*self.results.indices(place), column])

        return ahead

    def _sums(self, strip: Strip) -> list[Sum]:
        """The loops over rows of the kernel, its columns and channels; runs are merged."""
        shape, phase = self.shape, strip.phase
        rows, columns, depth = phase.rows, phase.columns, shape.depth
        line = strip.size[1] * shape.in_channels
        over_rows = Sum(rows.count, rows.offset_step * line, columns.count * depth)
        if shape.groups == 1 and columns.offset_step == 1:
            inner = [Sum(columns.count * depth, 1, 1)]
        else:
            over_columns = Sum(columns.count, columns.offset_step * shape.in_channels, depth)
            inner = [over_columns, Sum(depth, 1, 1)]
        return [s for s in [over_rows, *inner[:-1]] if s.count != 1] + inner[-1:]

    def _clear(self, phase: Phase) -> None:
        """A phase without taps: the cotangent is 0 there."""
        k, shape = self.k, self.shape
        element = self.refs.anchor[0].element

        def position(image: Index, y: Index, x: Index) -> None:
            line = k.iadd(k.imul(image, shape.out_size[0]), phase.rows.output(k, y))
            place = k.iadd(k.imul(line, shape.out_size[1]), phase.columns.output(k, x))
            each_block(
                k,
                shape.out_channels,
                self.target.lanes,
                lambda c, lanes: self.results.put(place, c, lanes, k.constant(0, element, lanes)),
            )

        sizes = [shape.batch, phase.rows.positions, phase.columns.positions]
        k.nest(sizes, lambda place: position(*place))
