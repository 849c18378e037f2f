"""Whether pieces of a kernel may run at the same time: what they write must not meet.

Everything is decided on ranges of bytes. Two iterations of a loop are apart if the bytes they
touch are ranges of which each lies behind the one before; where outer dimensions scatter them, so
are the remainders modulo the stride of an outer dimension, which all else must then stay below.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from xdsl.dialects import scf
from xdsl.ir import Operation

from niwaki.backends.kernels.threads.accesses import Access, AccessesOf
from niwaki.backends.kernels.threads.index_forms import Linear, Range
from niwaki.backends.kernels.threads.units import Memory


@dataclass(frozen=True)
class Piece:
    """Operations of which parts run at once: the iterations of `loop`, or the whole in one part."""

    ops: tuple[Operation, ...]
    loop: scf.ForOp | None
    """The loop that is divided among the parts; None: one part runs all of it."""


_Touched: TypeAlias = tuple[Piece, list[Access]]
"""A piece, and what it loads and stores of one argument."""


@dataclass(frozen=True)
class PrivateScratch:
    """The part of the workspace of which every part needs its own."""

    bytes: Range
    ops: frozenset[Operation]
    """The loads and stores that use it."""

    def joined(self, other: "PrivateScratch") -> "PrivateScratch":
        """Both, and what lies between them."""
        if not self.ops:
            return other
        low, high = min(self.bytes[0], other.bytes[0]), max(self.bytes[1], other.bytes[1])
        return PrivateScratch((low, high), self.ops | other.ops)


NO_SCRATCH = PrivateScratch((0, -1), frozenset())


class Independence:
    """Decides for the pieces of one kernel."""

    def __init__(self, accesses: AccessesOf, memory: Memory) -> None:
        self._accesses = accesses
        self._forms = accesses.forms
        self._memory = memory

    def check(
        self, pieces: Sequence[Piece], around: Iterable[scf.ForOp] = ()
    ) -> PrivateScratch | None:
        """What of the workspace must be private so that `pieces` may run at once; None: no way.

        `around`: loops of which all pieces run one iteration.
        """
        private = NO_SCRATCH
        of_pieces = [(p, self._accesses.inside(p.ops)) for p in pieces]
        stored = {
            self._memory.same[a.argument]: None for _, found in of_pieces for a in found if a.stores
        }
        for argument in stored:
            touched = [
                (p, [a for a in found if self._memory.same[a.argument] is argument])
                for p, found in of_pieces
            ]
            for area in self._areas(touched):
                if self._apart(self._without(around, area)):
                    continue
                found = self._private(area) if argument is self._memory.scratch else None
                if found is None:
                    return None
                private = private.joined(found)
        return private

    def bytes_of(self, access: Access) -> Range:
        """All that an access may touch."""
        low, high = self._forms.range(access.start)
        return low, high + access.size - 1

    def touches(self, access: Access, private: PrivateScratch) -> bool:
        """Whether an access may meet the scratch of single parts."""
        return _meet(self.bytes_of(access), private.bytes)

    def _areas(self, touched: Sequence[_Touched]) -> list[list[_Touched]]:
        """The accesses by areas of memory that never meet, without those that are only read."""
        ranges = sorted(self.bytes_of(a) for _, found in touched for a in found)
        ends: list[int] = []
        for low, high in ranges:
            if ends and low <= ends[-1]:
                ends[-1] = max(ends[-1], high)
            else:
                ends.append(high)
        areas: list[list[_Touched]] = [[] for _ in ends]
        for piece, found in touched:
            numbers = [bisect_left(ends, self.bytes_of(a)[1]) for a in found]
            for number in sorted(set(numbers)):
                own = [a for a, n in zip(found, numbers, strict=True) if n == number]
                areas[number].append((piece, own))
        return [area for area in areas if any(a.stores for _, found in area for a in found)]

    # --- memory that all parts share

    def _without(self, loops: Iterable[scf.ForOp], pieces: list[_Touched]) -> list[_Touched]:
        """Without the variables of `loops`, where they move everything alike."""
        for loop in loops:
            variable = self._forms.variable(loop)
            factors = {a.start.factor(variable) for _, found in pieces for a in found}
            if len(factors) > 1:
                continue
            common = Linear(0, tuple((variable, f) for f in factors if f))
            pieces = [
                (p, [replace(a, start=a.start.plus(common, -1)) for a in found])
                for p, found in pieces
            ]
        return pieces

    def _apart(self, pieces: Sequence[_Touched]) -> bool:
        """Whether no two parts touch the same byte."""
        if all(piece.loop is None for piece, _ in pieces):
            return True
        accesses = [a for _, found in pieces for a in found]
        steps = {f for a in accesses for _, f in a.start.terms}
        steps.update(s for a in accesses for s in a.strides)
        moduli = sorted((s for s in steps if s > 1), reverse=True)
        return any(self._apart_modulo(pieces, modulus) for modulus in (None, *moduli))

    def _apart_modulo(self, pieces: Sequence[_Touched], modulus: int | None) -> bool:
        windows: list[tuple[Range, bool]] = []
        for piece, found in pieces:
            starts = [(_remainder(a.start, modulus), a.size) for a in found]
            window = self._hull(starts) if piece.loop is None else self._divided(piece.loop, starts)
            if window is None:
                return False
            windows.append((window, piece.loop is not None))
        span = max(w[1] for w, _ in windows) - min(w[0] for w, _ in windows)
        if modulus is not None and span >= modulus:
            return False
        return not any(
            (divided or other_divided) and _meet(window, other)
            for n, (window, divided) in enumerate(windows)
            for other, other_divided in windows[:n]
        )

    def _divided(self, loop: scf.ForOp, starts: Sequence[tuple[Linear, int]]) -> Range | None:
        """The bytes of all iterations of `loop`, if each one's lie behind those before."""
        variable = self._forms.variable(loop)
        growth = self._forms.growth(loop)
        factors = {start.factor(variable) for start, _ in starts}
        (factor, *others) = factors
        if others or factor <= 0:
            return None
        own = Linear(0, ((variable, factor),))
        low, high = self._hull([(start.plus(own, -1), size) for start, size in starts])
        if high - low >= factor * growth:
            return None
        first, last = self._forms.range(own)
        return low + first, high + last

    def _hull(self, starts: Sequence[tuple[Linear, int]]) -> Range:
        ranges = [(*self._forms.range(start), size) for start, size in starts]
        return min(low for low, _, _ in ranges), max(high + size - 1 for _, high, size in ranges)

    # --- scratch of which every part has its own

    def _private(self, pieces: Sequence[_Touched]) -> PrivateScratch | None:
        """The range that is stored, if each iteration stores before it loads from there."""
        stored = [self.bytes_of(a) for _, found in pieces for a in found if a.stores]
        whole = min(low for low, _ in stored), max(high for _, high in stored)
        ops: set[Operation] = set()
        for piece, found in pieces:
            own = [a for a in found if _meet(self.bytes_of(a), whole)]
            if own and not self._stores_first(piece, own):
                return None
            # What one part alone keeps is often for sections that follow.
            if piece.loop is None and len(pieces) > 1 and any(a.stores for a in own):
                return None
            ops.update(a.op for a in own)
        if not all(op.operands[int(_stores(op))] is self._memory.scratch for op in ops):
            return None
        return PrivateScratch(whole, frozenset(ops))

    def _stores_first(self, piece: Piece, found: Sequence[Access]) -> bool:
        """Whether what an iteration loads is what it has stored."""
        stores = [a for a in found if a.stores]
        if not found[0].stores:
            return False
        if piece.loop is not None:
            variable = self._forms.variable(piece.loop)
            if any(a.start.factor(variable) for a in stores):
                return False
        low = min(self.bytes_of(a)[0] for a in stores)
        high = max(self.bytes_of(a)[1] for a in stores)
        ranges = [self.bytes_of(a) for a in found]
        return all(low <= first and last <= high for first, last in ranges)


def _stores(op: Operation) -> bool:
    return not op.results


def _remainder(form: Linear, modulus: int | None) -> Linear:
    """`form` modulo `modulus`, up to multiples of it in the constant and in whole factors."""
    if modulus is None:
        return form
    terms = tuple((v, f) for v, f in form.terms if f % modulus)
    return Linear(form.constant % modulus, terms)


def _meet(a: Range, b: Range) -> bool:
    return a[0] <= b[1] and b[0] <= a[1]
