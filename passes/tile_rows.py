"""Computes chains of convolutions a strip of rows at a time, so that wide tensors never exist.

Depth-first execution: a strip of rows passes through the whole region before the next one begins;
rows at the seams are computed twice. The general form of patch execution (Lin et al. 2021,
MCUNetV2) and of fused inverted residual blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import TensorOp, get_ints, ints, shape_of, tensor_bytes, type_of
from niwaki.passes.functions import functions
from niwaki.passes.row_regions import Region, RowOp, Rows, split_units

MAX_UNITS = 16
"""Convolutions of one region at most: the search is quadratic in it."""
COUNTS = (2, 3, 4, 6, 8, 12, 16, 32, 64)
"""Numbers of strips that are tried."""


@dataclass(frozen=True)
class TileRowsPass(ModulePass):
    """Tiles regions of each function so that no more than `limit` bytes are live at once there.

    Of all choices that keep the limit the one with the least extra arithmetic; where none does,
    the smallest limit that can be kept. Only tensors of batch 1 are tiled, and only regions none
    of whose inner values the backward pass reads.
    """

    name = "tile-rows"

    limit: int = 0

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            tile_rows(function, self.limit)


def tile_rows(function: FuncOp, limit: int) -> None:
    """Tiles `function`; see TileRowsPass."""
    # The last one first: tiling a region replaces what the regions behind it read.
    for choice in reversed(_Search(function).best(limit)):
        _tile(choice.region, choice.count)


@dataclass(frozen=True)
class _Option:
    """Units [first, end) in `count` strips."""

    first: int
    end: int
    count: int
    peak: int
    """Bytes live while they run, with everything that is kept meanwhile."""
    extra: int
    """Floating-point operations beyond those of the region as a whole."""
    region: Region


class _Search:
    """The cheapest way to keep a limit, over all partitions of the block into regions."""

    def __init__(self, function: FuncOp) -> None:
        resident = (train.Storage, nn.ConstantOp, nn.ReshapeOp)
        self.ops = [op for op in function.body.block.ops if not isinstance(op, resident)]
        number = {op: i for i, op in enumerate(self.ops)}
        self.last_use = [_last_use(op, number, len(self.ops)) for op in self.ops]
        self.sizes = [sum(tensor_bytes(type_of(r)) for r in op.results) for op in self.ops]
        self.rows = [RowOp.of(op) for op in self.ops]
        self.units = split_units(self.rows)
        self.live = self._live()
        self.alone = [max(map(self._while_running, range(first, end))) for first, end in self.units]

    def _live(self) -> list[int]:
        """Bytes that earlier operations left for operation i or later ones, for each i."""
        change = [0] * (len(self.ops) + 2)
        for i, (size, last) in enumerate(zip(self.sizes, self.last_use, strict=True)):
            change[i + 1] += size
            change[last + 1] -= size
        live, total = list[int](), 0
        for delta in change[:-1]:
            total += delta
            live.append(total)
        return live

    def _while_running(self, i: int) -> int:
        """Bytes live while operation i runs untiled."""
        row = self.rows[i]
        elementwise = row is not None and row.window is None
        in_place = elementwise and self.live[i + 1] <= self.live[i]
        return self.live[i] + (0 if in_place else self.sizes[i])

    def best(self, limit: int) -> list[_Option]:
        """The regions to tile; without any choice that keeps `limit`, for the next one that can."""
        if max(self.alone, default=0) <= limit:
            return []
        options = self._options(limit)
        peaks = {option.peak for option in options} | {p for p in self.alone if p > limit}
        limits = [limit, *sorted(p for p in peaks if p > limit)]
        low, high = 0, len(limits) - 1
        while low < high:
            middle = (low + high) // 2
            if self._cheapest(options, limits[middle]) is None:
                low = middle + 1
            else:
                high = middle
        return self._cheapest(options, limits[low]) or []

    def _options(self, limit: int) -> list[_Option]:
        """Every region with a unit that exceeds `limit`, in every number of strips."""
        options: list[_Option] = []
        for end in range(1, len(self.units) + 1):
            exceeds = False
            for first in range(end - 1, max(end - MAX_UNITS, 0) - 1, -1):
                region = self._region(first, end)
                if region is None:
                    break
                exceeds = exceeds or self.alone[first] > limit
                if exceeds and self._closed(first, end):
                    options += self._tilings(first, end, region)
        return options

    def _region(self, first: int, end: int) -> Region | None:
        rows = self.rows[self.units[first][0] : self.units[end - 1][1]]
        found = tuple(row for row in rows if row is not None)
        return Region(found) if len(found) == len(rows) else None

    def _closed(self, first: int, end: int) -> bool:
        """Whether only the last operation's result is used outside."""
        start, stop = self.units[first][0], self.units[end - 1][1]
        inner = range(start, stop - 1)
        single = all(not r.uses for r in self.ops[stop - 1].results[1:])
        return single and max((self.last_use[i] for i in inner), default=start) < stop

    def _tilings(self, first: int, end: int, region: Region) -> list[_Option]:
        start, stop = self.units[first][0], self.units[end - 1][1]
        whole = region.cost(1).flops
        kept = self.live[start] + self.sizes[stop - 1]
        options: list[_Option] = []
        for count in COUNTS:
            if count > region.rows or len(region.strips(count)) < 2:
                break
            cost = region.cost(count)
            options.append(_Option(first, end, count, kept + cost.peak, cost.flops - whole, region))
        return options

    def _cheapest(self, options: list[_Option], limit: int) -> list[_Option] | None:
        """The choice with the least extra arithmetic, then strips; None if none keeps `limit`."""
        ending: dict[int, list[_Option]] = {}
        for option in options:
            if option.peak <= limit:
                ending.setdefault(option.end, []).append(option)
        best: list[tuple[int, int, tuple[_Option, ...]] | None] = [(0, 0, ())]
        for end in range(1, len(self.units) + 1):
            candidates: list[tuple[int, int, tuple[_Option, ...]]] = []
            before = best[end - 1]
            if before is not None and self.alone[end - 1] <= limit:
                candidates.append(before)
            for option in ending.get(end, ()):
                before = best[option.first]
                if before is not None:
                    extra, count, chosen = before
                    candidates.append(
                        (extra + option.extra, count + option.count, (*chosen, option))
                    )
            best.append(min(candidates, key=lambda c: c[:2], default=None))
        return None if best[-1] is None else list(best[-1][2])


def _last_use(op: Operation, number: Mapping[Operation, int], end: int) -> int:
    """The number of the last operation that uses a result of `op`, through reshapes too."""
    last, pending = number.get(op, 0), list(op.results)
    while pending:
        for use in pending.pop().uses:
            user = use.operation
            if isinstance(user, nn.ReshapeOp):
                pending.append(user.y)
            else:
                last = max(last, number.get(user, end))
    return last


def _tile(region: Region, count: int) -> None:
    """Replaces `region` by its strips, one after another, and their concatenation."""
    last = region.ops[-1]
    builder = Builder.before(last.op)
    parts = [_strip(builder, region, strip) for strip in region.strips(count)]
    builder.location = last.op.location
    whole = builder.concat(parts, axis=1)
    whole.name_hint = last.result.name_hint
    last.result.replace_all_uses_with(whole)
    for row in reversed(region.ops):
        Rewriter.erase_op(row.op)


def _strip(builder: Builder, region: Region, strip: Rows) -> SSAValue:
    """`strip` of the region's result."""
    needed = region.needed(strip)
    computed: dict[SSAValue, SSAValue] = {}
    for row in region.ops:
        builder.location = row.op.location
        rows = needed[row.result]
        wanted = row.needed(rows)
        operands: list[SSAValue] = []
        for value in row.op.operands:
            if value not in row.sources:
                operands.append(value)
                continue
            first = needed[value][0] if value in computed else 0
            operands.append(_rows(builder, computed.get(value, value), first, wanted))
        properties = dict(row.op.properties)
        if row.window is not None:
            top, bottom = row.window.padding(rows)
            _, left, _, right = get_ints(properties, "padding")
            properties["padding"] = ints([top, left, bottom, right])
        assert isinstance(row.op, TensorOp)
        clone = builder.insert(type(row.op).make(*operands, **properties))
        computed[row.result] = clone.results[0]
    return computed[region.ops[-1].result]


def _rows(builder: Builder, value: SSAValue, first: int, wanted: Rows) -> SSAValue:
    """Rows `wanted` of a value that begins with row `first`."""
    _, _, width, channels = shape_of(value)
    starts = [0, wanted[0] - first, 0, 0]
    return builder.slice(value, starts, [1, wanted[1] - wanted[0], width, channels])
