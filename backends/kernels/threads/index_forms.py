"""Indices of kernels as linear forms of loop variables, with the ranges of their values."""

from collections.abc import Callable
from dataclasses import dataclass
from math import gcd
from typing import TypeAlias

from xdsl.dialects import arith, scf
from xdsl.dialects.builtin import IndexType, IntegerAttr
from xdsl.ir import Operation, SSAValue

Range: TypeAlias = tuple[int, int]
"""The smallest and the largest value, inclusive."""
ANYTHING: Range = (-(1 << 62), 1 << 62)


@dataclass(frozen=True)
class Linear:
    """`constant` + the sum of factor * variable."""

    constant: int
    terms: tuple[tuple[int, int], ...] = ()
    """(number of the variable, factor other than 0), by number."""

    def plus(self, other: "Linear", times: int = 1) -> "Linear":
        """self + times * other."""
        factors = dict(self.terms)
        for variable, factor in other.terms:
            factors[variable] = factors.get(variable, 0) + times * factor
        terms = tuple(sorted((v, f) for v, f in factors.items() if f))
        return Linear(self.constant + times * other.constant, terms)

    def factor(self, variable: int) -> int:
        """Of `variable`; 0 where it does not occur."""
        return dict(self.terms).get(variable, 0)


_Division: TypeAlias = tuple[type[Operation], Linear, int]
"""(DivUIOp or RemUIOp, dividend, divisor)."""


class IndexForms:
    """Linear forms of the indices of one kernel; operations are entered in program order.

    Variables are loop variables, quotients, remainders, and whatever else an index may be.
    """

    def __init__(self) -> None:
        self._forms: dict[SSAValue, Linear] = {}
        self._ranges: list[Range] = []
        self._divisions: dict[_Division, int] = {}
        self._divided: dict[int, _Division] = {}
        self._variables: dict[scf.ForOp, int] = {}
        self._growth: dict[scf.ForOp, int] = {}

    def of(self, value: SSAValue) -> Linear:
        """The form of an index."""
        if value not in self._forms:
            self._forms[value] = self._variable(ANYTHING)
        return self._forms[value]

    def variable(self, loop: scf.ForOp) -> int:
        """The number of a loop's variable."""
        return self._variables[loop]

    def growth(self, loop: scf.ForOp) -> int:
        """By how much that variable grows from one iteration to the next."""
        return self._growth[loop]

    def enter(self, loop: scf.ForOp) -> None:
        """Defines the variable of a loop: the number of the iteration, if that is known."""
        first, step, size = self.of(loop.lb), self.of(loop.step).constant, trips(loop, self)
        if size is None:
            (low, _), (_, stop) = self.range(first), self.range(self.of(loop.ub))
            form = own = self._variable((low, max(low, stop - 1)))
        else:
            own = self._variable((0, max(0, size - 1)))
            form = first.plus(own, step)
        self._forms[loop.body.block.args[0]] = form
        self._variables[loop] = own.terms[0][0]
        self._growth[loop] = step if size is None else 1

    def compute(self, op: Operation) -> None:
        """Enters an operation; what is no arithmetic on indices stays unknown."""
        if len(op.results) != 1 or not isinstance(op.results[0].type, IndexType):
            return
        if isinstance(op, arith.ConstantOp):
            assert isinstance(op.value, IntegerAttr)
            self._forms[op.result] = Linear(op.value.value.data)
            return
        form = self._arithmetic(op)
        if form is not None:
            self._forms[op.results[0]] = form

    def _arithmetic(self, op: Operation) -> Linear | None:
        if len(op.operands) != 2:
            return None
        a, b = (self.of(o) for o in op.operands)
        match op:
            case arith.AddiOp():
                return a.plus(b)
            case arith.SubiOp():
                return a.plus(b, -1)
            case arith.MuliOp():
                return self._product(a, b)
            case arith.DivUIOp():
                return self._quotient(a, b)
            case arith.RemUIOp():
                return self._remainder(a, b)
            case arith.MinSIOp():
                return self._extreme(min, a, b)
            case arith.MaxSIOp():
                return self._extreme(max, a, b)
            case _:
                return None

    def range(self, form: Linear) -> Range:
        """What values a form may have."""
        low = high = form.constant
        for variable, factor in form.terms:
            ends = [factor * end for end in self._ranges[variable]]
            low, high = low + min(ends), high + max(ends)
        return low, high

    def joined(self, form: Linear) -> Linear:
        """`form` with n * (p / n) + p % n written as p, wherever it occurs."""
        while True:
            found = next(filter(None, (self._pair(form, v, f) for v, f in form.terms)), None)
            if found is None:
                return form
            form = found

    def _pair(self, form: Linear, variable: int, factor: int) -> Linear | None:
        """`form` without the remainder `variable` and its quotient, if both occur."""
        division = self._divided.get(variable)
        if division is None or division[0] is not arith.RemUIOp:
            return None
        _, dividend, divisor = division
        quotient = self._divisions.get((arith.DivUIOp, dividend, divisor))
        if quotient is None or form.factor(quotient) != factor * divisor:
            return None
        rest = form.plus(Linear(0, ((variable, factor),)), -1)
        return rest.plus(Linear(0, ((quotient, factor * divisor),)), -1).plus(dividend, factor)

    def _variable(self, values: Range) -> Linear:
        self._ranges.append(values)
        return Linear(0, ((len(self._ranges) - 1, 1),))

    def _product(self, a: Linear, b: Linear) -> Linear:
        if not a.terms:
            a, b = b, a
        if not b.terms:
            return Linear(0).plus(a, b.constant)
        corners = [x * y for x in self.range(a) for y in self.range(b)]
        return self._variable((min(corners), max(corners)))

    def _extreme(self, choose: Callable[[int, int], int], a: Linear, b: Linear) -> Linear:
        """The minimum or the maximum of both."""
        (low_a, high_a), (low_b, high_b) = self.range(a), self.range(b)
        return self._variable((choose(low_a, low_b), choose(high_a, high_b)))

    def _quotient(self, a: Linear, b: Linear) -> Linear:
        if b.terms or self.range(a)[0] < 0:
            return self._variable(ANYTHING)
        divisor = b.constant
        exact, rest = self._multiples(a, divisor)
        quotient = Linear(0, tuple((v, f // divisor) for v, f in exact.terms))
        low, high = (end // divisor for end in self.range(rest))
        return quotient.plus(self._division(arith.DivUIOp, rest, divisor, (low, high)))

    def _remainder(self, a: Linear, b: Linear) -> Linear:
        if b.terms or self.range(a)[0] < 0:
            return self._variable(ANYTHING)
        _, rest = self._multiples(a, b.constant)
        if self.range(rest)[1] < b.constant:
            return rest
        # All values are alike modulo what divides the divisor and every factor.
        common = gcd(b.constant, *(factor for _, factor in rest.terms))
        least = rest.constant % common
        most = b.constant - common + least
        return self._division(arith.RemUIOp, rest, b.constant, (least, most))

    def _multiples(self, a: Linear, divisor: int) -> tuple[Linear, Linear]:
        """`a` as terms that are multiples of `divisor` and a rest, which is not negative."""
        exact = Linear(0, tuple((v, f) for v, f in a.terms if f % divisor == 0))
        rest = a.plus(exact, -1)
        return (exact, rest) if self.range(rest)[0] >= 0 else (Linear(0), a)

    def _division(self, kind: type[Operation], a: Linear, divisor: int, values: Range) -> Linear:
        if values[0] == values[1]:
            return Linear(values[0])
        key = (kind, a, divisor)
        if key not in self._divisions:
            (variable, _) = self._variable(values).terms[0]
            self._divisions[key] = variable
            self._divided[variable] = key
        return Linear(0, ((self._divisions[key], 1),))


def trips(loop: scf.ForOp, forms: IndexForms) -> int | None:
    """Iterations of a loop; None where its bounds are not constants."""
    bounds = [forms.of(v) for v in (loop.lb, loop.ub, loop.step)]
    if any(form.terms for form in bounds):
        return None
    start, stop, step = (form.constant for form in bounds)
    return max(0, -(-(stop - start) // step))
