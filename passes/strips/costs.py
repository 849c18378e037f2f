"""What it costs to compute a region in strips."""

from dataclasses import dataclass

from xdsl.ir import SSAValue

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import tensor_bytes, type_of
from niwaki.passes.strips.regions import Region, Strip


@dataclass(frozen=True)
class Cost:
    """What a region costs when it is computed in strips."""

    peak: int
    """Most bytes live at once, of strips, whole results and sums; but not what is read."""
    flops: int


class StripCosts:
    """The costs of one region, by the number of strips."""

    def __init__(self, region: Region) -> None:
        self.region = region
        numbers = region.numbers
        self.bytes_of_row = [0] * len(numbers)
        """Of each value that the region computes, but for sums."""
        last_use = [0] * len(numbers)
        for position, row in enumerate(region.ops):
            for value in row.op.operands:
                if value in numbers:
                    last_use[numbers[value]] = position
            for value, size in zip(row.op.results, row.bytes, strict=True):
                if not row.sums:
                    self.bytes_of_row[numbers[value]] = size // (row.rows * region.samples)
                last_use[numbers[value]] = position
        self.dying: list[list[int]] = [[] for _ in region.ops]
        """The computed values that nothing needs after each operation."""
        for number, size in enumerate(self.bytes_of_row):
            if size:
                self.dying[last_use[number]].append(number)
        self.made = [[numbers[r] for r in row.op.results] for row in region.ops]
        self.flops = [row.flops for row in region.ops]
        self.in_place = [isinstance(row.op, nn.Elementwise | nn.ReshapeOp) for row in region.ops]
        self.outputs = {numbers[v]: self._rows(v) for v in region.outputs}
        self.whole = sum(sum(row.bytes) for row in region.ops if row.sums)
        self.whole += sum(tensor_bytes(type_of(v)) for v in region.outputs)

    def _rows(self, value: SSAValue) -> int:
        return type_of(value).get_shape()[self.region.axis]

    def of(self, count: int) -> Cost:
        """The cost of `count` strips; the last one counts like the first, the others alike."""
        strips = self.region.strips(count)
        kinds = {strips[0]: min(len(strips), 2)}
        if len(strips) > 2:
            kinds[strips[len(strips) // 2]] = len(strips) - 2
        joined = len(strips) * self.region.samples > 1
        costs = [(self._strip_cost(strip, joined), times) for strip, times in kinds.items()]
        whole = self.whole if joined else 0
        return Cost(max(c.peak for c, _ in costs) + whole, sum(c.flops * n for c, n in costs))

    def _strip_cost(self, strip: Strip, joined: bool) -> Cost:
        """`joined`: results are written to where the whole result is."""
        ops, values = self.region.needed(strip)
        sizes = [
            size * (end - first)
            for size, (first, end) in zip(self.bytes_of_row, values, strict=True)
        ]
        for number, rows in self.outputs.items():
            if joined and values[number] == self.region.part(strip, rows):
                sizes[number] = 0
        live = peak = flops = 0
        for position, (first, end) in enumerate(ops):
            flops += self.flops[position] * (end - first)
            made = sum([sizes[n] for n in self.made[position]])
            freed = sum([sizes[n] for n in self.dying[position] if joined or n not in self.outputs])
            in_place = self.in_place[position] and freed >= made
            peak = max(peak, live if in_place else live + made)
            live += made - freed
        return Cost(peak, flops)
