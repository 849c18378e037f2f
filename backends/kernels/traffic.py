"""How many bytes a kernel loads from and stores to each of its arguments."""

from collections.abc import Callable, Mapping
from math import ceil

from xdsl.dialects import arith, memref, scf, vector
from xdsl.dialects.builtin import IntegerAttr, MemRefType, VectorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue

from niwaki.backends.kernels.spec import element_bytes

_ARITHMETIC: Mapping[type[Operation], Callable[[float, float], float]] = {
    arith.AddiOp: lambda a, b: a + b,
    arith.SubiOp: lambda a, b: a - b,
    arith.MuliOp: lambda a, b: a * b,
    arith.DivUIOp: lambda a, b: a // b if b else 0.0,
    arith.MinSIOp: min,
    arith.MaxSIOp: max,
}


def argument_traffic(function: FuncOp) -> tuple[int, ...]:
    """Bytes loaded from or stored to each argument in one call, every repeated access counted.

    Exact where the bounds of loops are constants. Other bounds are taken at the middle of the
    loops around them, and of two branches the one that is taken in the interior of an image: the
    one with more accesses.
    """
    counter = _Counter()
    traffic = counter.block(function.body.block)
    return tuple(ceil(traffic.get(argument, 0.0)) for argument in function.body.block.args)


_Traffic = dict[SSAValue, float]
"""Argument -> bytes."""


class _Counter:
    def __init__(self) -> None:
        self._numbers: dict[SSAValue, float] = {}
        """What is known of indices; the variable of a loop is its middle."""
        self._views: dict[SSAValue, SSAValue] = {}
        """View of an argument -> the argument."""

    def block(self, block: Block) -> _Traffic:
        """Of one execution of `block`."""
        traffic: _Traffic = {}
        for op in block.ops:
            match op:
                case scf.ForOp():
                    trips = self._enter(op)
                    _add(traffic, self.block(op.body.block), trips)
                case scf.IfOp():
                    branches = [self.block(r.block) for r in op.regions if r.blocks]
                    _add(traffic, max(branches, key=lambda t: sum(t.values())), 1.0)
                case memref.LoadOp() | vector.LoadOp():
                    self._access(traffic, op.operands[0], op.results[0])
                case memref.StoreOp() | vector.StoreOp():
                    self._access(traffic, op.operands[1], op.operands[0])
                case _:
                    self._compute(op)
        return traffic

    def _enter(self, op: scf.ForOp) -> float:
        first, end, step = (self._numbers.get(v, 0.0) for v in (op.lb, op.ub, op.step))
        trips = max(0.0, ceil((end - first) / step)) if step else 0.0
        self._numbers[op.body.block.args[0]] = first + step * max(trips - 1, 0) / 2
        return trips

    def _access(self, traffic: _Traffic, ref: SSAValue, value: SSAValue) -> None:
        assert isinstance(ref.type, MemRefType)
        elements = value.type.element_count() if isinstance(value.type, VectorType) else 1
        _add(traffic, {self._views.get(ref, ref): element_bytes(ref.type.element_type)}, elements)

    def _compute(self, op: Operation) -> None:
        if len(op.results) != 1:
            return
        (result,) = op.results
        if isinstance(result.type, MemRefType):
            self._views[result] = self._views.get(op.operands[0], op.operands[0])
        elif isinstance(op, arith.ConstantOp) and isinstance(op.value, IntegerAttr):
            self._numbers[result] = op.value.value.data
        elif type(op) in _ARITHMETIC:
            a, b = (self._numbers.get(v, 0.0) for v in op.operands)
            self._numbers[result] = _ARITHMETIC[type(op)](a, b)


def _add(total: _Traffic, part: Mapping[SSAValue, float], times: float) -> None:
    for argument, count in part.items():
        total[argument] = total.get(argument, 0.0) + times * count
