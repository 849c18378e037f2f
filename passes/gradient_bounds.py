"""How large the cotangents of integer layers can become, without looking at all of their elements.

The largest element of a sum of products is known only behind the last one, so that all sums would
be kept as 32-bit numbers until then. But no sum exceeds the largest factor of one side times the
sum of the magnitudes of the other side, nor the product of their Euclidean norms (Hoelder's
inequality), and the filters are known when the network is compiled: under that bound a kernel can
store 16-bit numbers at once.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from xdsl.dialects.builtin import ModuleOp, f32, i8, i32
from xdsl.interpreter import Interpreter
from xdsl.ir import SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of
from niwaki.ir.interpreter import STATELESS
from niwaki.ir.weights import WeightStore, content_hash

Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST_CODE = 128
"""What a code of a filter that is updated, or not known, may become."""
_STEPS = 2**7
"""Of magnitudes whose squares are summed up."""


class Bounds:
    """Bounds of what is made of the sums of `nn.integer_conv2d_dx`."""

    def __init__(self, store: WeightStore, written: Mapping[str, tuple[int, ...]]) -> None:
        """`written`: the leading box of each parameter that the module writes."""
        self._store = store
        self._written = written
        self._interpreter = Interpreter(ModuleOp([]))
        for functions in STATELESS:
            self._interpreter.register_implementations(functions())
        self.levels: dict[SSAValue, int] = {}
        """Whole numbers -> their largest magnitude, where it is known before they are computed."""

    def of(self, b: Builder, x: SSAValue) -> SSAValue | None:
        """A scalar f32 that no magnitude in `x` exceeds (but by rounding).

        None unless `x` is such sums, masked and times constants and one scalar, nor if they are
        fewer than what is summed up: then they are better looked at.
        """
        scales, unit = np.ones((), np.float64), None
        while not isinstance(x.owner, nn.CastOp):
            match x.owner:
                case nn.SelectOp(b=zero) if _is_zero(zero):
                    x = x.owner.a
                case nn.MulOp(b=factor) if (known := self._constant(factor)) is not None:
                    scales = scales * known
                    x = x.owner.a
                case nn.MulOp(b=factor) if unit is None and shape_of(factor) == ():
                    unit = factor
                    x = x.owner.a
                case _:
                    return None
        sums = x.owner.x.owner
        if not isinstance(sums, nn.IntegerConv2dDxOp) or unit is None:
            return None
        if prod(shape_of(sums.results[0])) < prod(shape_of(sums.dy)):
            return None
        codes = self._filters(sums) * np.abs(scales)
        levels = self.levels.get(sums.dy)
        outputs, *_, depth = shape_of(sums.w)
        if sums.window.groups == outputs and depth == 1:
            whole = self._by_channel(b, sums.dy, codes.sum(0))
        elif levels is not None and sums.window.groups == 1:
            whole = _by_norm(b, sums, codes, levels)
        else:
            largest = b.cast(b.reshape(_largest(b, sums.dy, range(4)), ()), f32)
            whole = b.mul(largest, b.constant(float(codes.sum(0).max())))
        return b.mul(whole, unit)

    def _by_channel(self, b: Builder, dy: SSAValue, factors: Array) -> SSAValue:
        """The largest product of a channel's largest whole number and its factor."""
        largest = _largest(b, dy, range(3))
        unit = factors.max() / 127
        steps = np.ceil(factors / unit).astype(np.int8)
        name = f"quantized.{content_hash(steps)}"
        parts = b.cast(b.parameter(self._store, name, steps, fixed=True, element=i8), i32)
        return b.mul(b.cast(_most(b, b.mul(largest, parts)), f32), b.constant(float(unit)))

    def _constant(self, x: SSAValue) -> Array | None:
        """What is known of `x` when the network is compiled; one number for all or per channel."""
        match x.owner:
            case train.ParameterOp() if x.owner.key not in self._written:
                return self._store.get(x.owner.key)
            case nn.ConstantOp() | nn.CastOp() | nn.MulOp() | nn.DivOp() if len(shape_of(x)) <= 1:
                operands = [self._constant(o) for o in x.owner.operands]
                known = tuple(o for o in operands if o is not None)
                if len(known) < len(operands):
                    return None
                return self._interpreter.run_op(x.owner, known)[0]
            case _:
                return None

    def _filters(self, sums: nn.IntegerConv2dDxOp) -> Array:
        """The magnitudes of the codes that enter each channel of `sums`: [terms, channels]."""
        outputs, height, width, depth = shape_of(sums.w)
        codes = np.full((outputs, height, width, depth), float(_LARGEST_CODE))
        filters = sums.w.owner
        if isinstance(filters, train.ParameterOp) and filters.key in self._store:
            codes = np.abs(self._store[filters.key].astype(np.float64))
            box = self._written.get(filters.key, (0,))
            codes[tuple(map(slice, box))] = _LARGEST_CODE
        groups = sums.window.groups
        grouped = codes.reshape(groups, -1, depth).swapaxes(0, 1)
        return grouped.reshape(-1, groups * depth)


def _most(b: Builder, x: SSAValue) -> SSAValue:
    """The largest element, a scalar."""
    return b.reshape(b.reduce_max(x, range(len(shape_of(x)))), ())


def _largest(b: Builder, dy: SSAValue, axes: Sequence[int]) -> SSAValue:
    """The largest magnitudes of whole numbers, i32."""
    return b.reduce_max(b.abs(b.cast(dy, i32)), axes)


def _by_norm(b: Builder, sums: nn.IntegerConv2dDxOp, codes: Array, levels: int) -> SSAValue:
    """The largest product of a norm over the channels of dy and one of a filter.

    Magnitudes of dy are rounded up to multiples of `levels` / 2^7, so that no sum of squares
    overflows.
    """
    step = levels / _STEPS
    steps = b.mul(b.abs(b.cast(sums.dy, f32)), b.constant(1 / step))
    above = b.cast(b.round(b.add(steps, b.constant(0.5))), i32)
    squares = b.cast(_most(b, b.reduce_sum(b.mul(above, above), [3])), f32)
    taps = prod(shape_of(sums.w)[1:3])
    length = float(np.sqrt(taps * (codes**2).sum(0).max()))
    return b.mul(b.sqrt(squares), b.constant(step * length))


def _is_zero(x: SSAValue) -> bool:
    return isinstance(x.owner, nn.ConstantOp) and not x.owner.value.value.data
