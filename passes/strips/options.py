"""The ways to compute a part of a training step in strips, and what each of them costs."""

from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

from xdsl.ir import Operation, OpResult, SSAValue

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import i1, tensor_bytes, type_of
from niwaki.passes.strips.costs import Cost, StripCosts
from niwaki.passes.strips.find_region import BlockFacts, find_region
from niwaki.passes.strips.nested_units import Unit
from niwaki.passes.strips.plain_step import PlainStep
from niwaki.passes.strips.regions import Region
from niwaki.passes.strips.run_structures import Structures

COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Numbers of strips that are tried."""
MAX_KEPT_UNITS = 2
"""Units that are computed together at most if what the backward pass needs of them is kept."""


@dataclass(frozen=True)
class Tiling:
    """A run of operations in strips."""

    run: tuple[Operation, ...]
    recomputed: tuple[Operation, ...]
    dropped: tuple[SSAValue, ...]
    axis: int
    count: int
    """Strips, of each sample where rows are cut; for `Region.strips`."""

    def region(self, facts: BlockFacts) -> Region:
        """What is computed in strips; in the block as it was when the tiling was found."""
        region = find_region(self.run, self.recomputed, self.axis, facts, self.dropped)
        assert region is not None
        return region


@dataclass(frozen=True)
class Option:
    """A way to compute units [first, end): forward and backward."""

    first: int
    end: int
    peak: int
    """Bytes live while they run, with everything that the plain step keeps meanwhile."""
    extra: int
    """Floating-point operations beyond those of the plain step."""
    saved: int = 0
    """Bytes that are not kept between forward and backward; they count in `peak` as kept only
    before the units."""
    forward: Tiling | None = None
    backward: Tiling | None = None

    @property
    def strips(self) -> int:
        """All strips."""
        tilings = (self.forward, self.backward)
        return sum(t.count for t in tilings if t is not None)


@dataclass(frozen=True)
class _Way:
    """Forward or backward part of an option."""

    peak: int
    extra: int
    tiling: Tiling | None = None


class StripOptions:
    """The options for the units of one step."""

    def __init__(self, step: PlainStep) -> None:
        self.step = step
        self.structures = Structures(step.facts)
        self._costs: dict[Hashable, list[tuple[int, int, Cost]]] = {}

    def plain(self, units: Sequence[Unit], number: int) -> Option:
        """Unit `number` as it is."""
        unit = units[number]
        peak = max(self.step.while_running(*unit.forward), self.step.while_running(*unit.backward))
        return Option(number, number + 1, peak, 0)

    def of(self, units: Sequence[Unit], first: int, end: int) -> list[Option]:
        """The ways to compute units [first, end) in strips."""
        found = _Segment(self, units, first, end).options()
        if end == len(units) and units[first].backward[1] > units[-1].backward[0]:
            found += self._through(units, first)
        return found

    def _through(self, units: Sequence[Unit], first: int) -> list[Option]:
        """The last units forward and backward at once: nothing is kept or computed again."""
        start, end = units[first].forward[0], units[first].backward[1]
        ways = self.ways(self.step.ops[start:end], (), (), self.step.live[start])
        return [
            Option(first, len(units), way.peak, way.extra, forward=way.tiling)
            for way in ways
            if way.tiling is not None
        ]

    def ways(
        self,
        run: Sequence[Operation],
        recomputed: Sequence[Operation],
        dropped: Collection[SSAValue],
        kept: int,
    ) -> list[_Way]:
        """The ways to compute a run in strips where `kept` bytes are live before."""
        key = self.structures.of(run, recomputed, dropped)
        if key not in self._costs:
            self._costs[key] = list(self._strips(run, recomputed, dropped))
        return [
            _Way(
                kept + cost.peak,
                cost.flops,
                Tiling(tuple(run), tuple(recomputed), tuple(dropped), axis, count),
            )
            for axis, count, cost in self._costs[key]
        ]

    def _strips(
        self,
        run: Sequence[Operation],
        recomputed: Sequence[Operation],
        dropped: Collection[SSAValue],
    ) -> Iterator[tuple[int, int, Cost]]:
        """Dimension, number of strips, and the cost beyond that of the run as it is."""
        again = set(recomputed)
        for axis in self.step.axes:
            region = find_region(run, recomputed, axis, self.step.facts, dropped)
            if region is None:
                continue
            costs = StripCosts(region)
            whole = sum(r.rows * r.flops for r in region.ops if r.op not in again)
            lowest: int | None = None
            for count in COUNTS:
                if count > region.rows:
                    break
                if not recomputed and count * region.samples == 1:
                    continue
                cost = costs.of(count)
                # The halo grows with every further strip: it must be worth it.
                if lowest is None or cost.peak < lowest:
                    lowest = cost.peak
                    yield axis, count, Cost(cost.peak, cost.flops - whole)


class _Segment:
    """Units [first, end), whose forward and backward parts are computed on their own."""

    def __init__(self, options: StripOptions, units: Sequence[Unit], first: int, end: int) -> None:
        self.o, self.step, self.units = options, options.step, units[first:end]
        self.first, self.end = first, end
        self.forward = units[first].forward[0], units[end - 1].forward[1]
        self.backward = units[end - 1].backward[0], units[first].backward[1]
        self.ops = self.step.ops[slice(*self.forward)]
        self.back = self.step.ops[slice(*self.backward)]

    def options(self) -> list[Option]:
        """Keeping what the backward pass needs, computing it again, or all but its masks."""
        inner = self._inner()
        numbers = [v for v in inner if type_of(v).element_type != i1]
        choices = dict.fromkeys((tuple(numbers), tuple(inner)))
        if not self.back or len(self.units) <= MAX_KEPT_UNITS:
            choices[()] = None
        return list(chain.from_iterable(self._options(choice) for choice in choices))

    def _inner(self) -> list[SSAValue]:
        """What only the backward part reads behind the forward part."""
        position, facts = self.step.position, self.step.facts
        found: list[SSAValue] = []
        for op in self.ops:
            for value in op.results:
                readers = [position[use.operation] for use in value.uses]
                behind = [r for r in readers if r >= self.forward[1]]
                own = all(self.backward[0] <= r < self.backward[1] for r in behind)
                if behind and own and value not in facts.static:
                    found.append(value)
        return found

    def _options(self, dropped: tuple[SSAValue, ...]) -> list[Option]:
        recomputed = self._closure(dropped)
        saved = sum(self._bytes(v) for v in dropped) - self._prolonged(recomputed)
        forward = self._forward(dropped)
        backward = self._backward(dropped, recomputed, saved)
        peaks = sorted({way.peak for way in (*forward, *backward)})
        found: list[Option] = []
        for peak in peaks:
            a, b = _cheapest(forward, peak), _cheapest(backward, peak)
            if a is None or b is None or (a.tiling is None and b.tiling is None):
                continue
            extra = a.extra + b.extra
            if not found or extra < found[-1].extra:
                found.append(Option(self.first, self.end, peak, extra, saved, a.tiling, b.tiling))
        return found

    def _closure(self, values: Iterable[SSAValue]) -> list[Operation]:
        """The operations of the forward part that compute `values`."""
        needed: set[Operation] = set()
        inside = set(self.ops)
        pending = list(values)
        while pending:
            value = pending.pop()
            if (
                isinstance(value, OpResult)
                and value.op in inside
                and value.op not in needed
                and value not in self.step.facts.static
            ):
                needed.add(value.op)
                pending += value.op.operands
        return [op for op in self.ops if op in needed]

    def _prolonged(self, recomputed: Sequence[Operation]) -> int:
        """Bytes that are kept only because something is computed again from them."""
        inside = set(recomputed)
        roots = dict.fromkeys(
            _root(o) for op in recomputed for o in op.operands if o not in self.step.facts.static
        )
        return sum(
            self._bytes(v)
            for v in roots
            if isinstance(v, OpResult)
            and v.op not in inside
            and self.step.last_use[self.step.position[v.op]] < self.backward[0]
        )

    def _bytes(self, value: SSAValue) -> int:
        return 0 if isinstance(value.owner, nn.ReshapeOp) else tensor_bytes(type_of(value))

    def _forward(self, dropped: tuple[SSAValue, ...]) -> list[_Way]:
        kept = self.step.live[self.forward[0]]
        plain = _Way(max(self.step.while_running(*u.forward) for u in self.units), 0)
        return [plain, *self.o.ways(self.ops, (), dropped, kept)]

    def _backward(
        self, dropped: tuple[SSAValue, ...], recomputed: Sequence[Operation], saved: int
    ) -> list[_Way]:
        kept = self.step.live[self.backward[0]] - saved if self.back else 0
        ways = self.o.ways(self.back, recomputed, (), kept) if self.back else []
        if dropped:
            return ways
        return [_Way(max(self.step.while_running(*u.backward) for u in self.units), 0), *ways]


def _cheapest(ways: Iterable[_Way], peak: int) -> _Way | None:
    fitting = [way for way in ways if way.peak <= peak]
    return min(fitting, key=lambda w: w.extra, default=None)


def _root(value: SSAValue) -> SSAValue:
    while isinstance(value, OpResult) and isinstance(value.op, nn.ReshapeOp):
        value = value.op.x
    return value
