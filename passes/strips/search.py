"""Chooses what is computed in strips: the least extra arithmetic within a limit of bytes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from xdsl.ir import Block

from niwaki.passes.strips.nested_units import Unit, nested_units
from niwaki.passes.strips.options import Option, StripOptions
from niwaki.passes.strips.plain_step import PlainStep

MAX_UNITS = 12
"""Units without a backward part that are computed together at most."""
MAX_BACKWARD_UNITS = 7
"""The same with one."""
MAX_STATES = 64
"""Partial choices that are followed at each unit."""


def choose_strips(block: Block, limit: int) -> list[Option]:
    """The options to apply, in order; without a choice that keeps `limit`, for the next one."""
    step = PlainStep(block)
    options = StripOptions(step)
    chosen: list[Option] = []
    for units in nested_units(step.ops, step.facts):
        chosen += _Search(options, units, limit).best()
    return chosen


@dataclass(frozen=True)
class _State:
    """A choice for the first units."""

    saved: int
    extra: int
    strips: int
    chosen: tuple[Option, ...] = ()


class _Search:
    """One phase: dynamic programming over its units, by bytes saved and arithmetic added.

    What one part of the step saves between its forward and its backward run is saved for all
    parts that are nested in it.
    """

    def __init__(self, options: StripOptions, units: Sequence[Unit], limit: int) -> None:
        self.units, self.limit = units, limit
        self.ending: list[list[Option]] = [[] for _ in range(len(units) + 1)]
        plain = [options.plain(units, number) for number in range(len(units))]
        self.highest = max((option.peak for option in plain), default=0)
        for option in plain:
            self.ending[option.end].append(option)
        if self.highest <= limit:
            return
        for end in range(1, len(units) + 1):
            most = MAX_BACKWARD_UNITS if units[end - 1].has_backward else MAX_UNITS
            for first in range(max(end - most, 0), end):
                exceeds = any(option.peak > limit for option in plain[first:end])
                self.ending[end] += [
                    option
                    for option in options.of(units, first, end)
                    if exceeds or option.saved > 0
                ]

    def best(self) -> list[Option]:
        """The options beside the plain ones."""
        if self.highest <= self.limit:
            return []
        found = self._cheapest(self.limit, self.limit)
        if found is None:
            most = self._smallest(lambda limit: self._cheapest(limit, limit))
            # What is frozen in front of all that trains need not follow the others.
            least = self._smallest(lambda limit: self._cheapest(limit, most), most)
            found = self._cheapest(least, most)
        return [] if found is None else [o for o in found.chosen if o.strips]

    def _smallest(self, choice: Callable[[int], _State | None], known: int | None = None) -> int:
        """The smallest limit from `self.limit` on that has a choice, nearly; `known` has one."""
        high = self.highest if known is None else known
        low = self.limit
        if choice(low) is not None:
            return low
        while high - low > max(self.highest // 256, 1):
            middle = (low + high) // 2
            if choice(middle) is None:
                low = middle
            else:
                high = middle
        return high

    def _cheapest(self, frozen: int, trained: int) -> _State | None:
        """The choice with the least extra arithmetic, then strips; None if none keeps the limits.

        `frozen`: of options without a backward part; `trained`: of the others.
        """
        states: list[list[_State]] = [[_State(0, 0, 0)]]
        for end in range(1, len(self.units) + 1):
            found: list[_State] = []
            for option in self.ending[end]:
                limit = trained if self.units[option.end - 1].has_backward else frozen
                for state in states[option.first]:
                    if option.peak - state.saved <= limit:
                        found.append(
                            _State(
                                state.saved + option.saved,
                                state.extra + option.extra,
                                state.strips + option.strips,
                                (*state.chosen, option),
                            )
                        )
            states.append(_frontier(found))
        return min(states[-1], key=lambda s: (s.extra, s.strips), default=None)


def _frontier(states: Sequence[_State]) -> list[_State]:
    """Those that save more than every cheaper one, thinned out evenly."""
    best: list[_State] = []
    for state in sorted(states, key=lambda s: (s.extra, s.strips, -s.saved)):
        if not best or state.saved > best[-1].saved:
            best.append(state)
    if len(best) <= MAX_STATES:
        return best
    step = (len(best) - 1) / (MAX_STATES - 1)
    return [best[round(number * step)] for number in range(MAX_STATES)]
