"""`integer-backward`: the gradients of quantised networks become exact sums of whole numbers.

Sums of floats depend on their order, which differs between machines; sums of integers do not, and
cost less where there is no floating-point vector unit. Each cotangent that enters products becomes
whole numbers of 16 bits under one scale per tensor, as large as it can be while no sum overflows
31 bits: the largest element decides, or a bound of it (`gradient_bounds`) where looking for it
would keep a large tensor. The products multiply those with the 8-bit codes of filters and
activations.

Everything else that updates depend on is elementwise, which IEEE 754 defines to the last bit, but
for sums (made exact in the same way), softmax and cross-entropy (`exact_softmax`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp, f32, i8, i16, i32
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import get_int, get_ints, shape_of, type_of
from niwaki.ir.weights import WeightStore
from niwaki.passes.exact_softmax import exact_cross_entropy, exact_softmax
from niwaki.passes.functions import functions
from niwaki.passes.gradient_bounds import Bounds
from niwaki.passes.storage_layout import written_boxes

BACKWARDS = ("integer", "float")
"""How the backward pass of a quantised network computes."""

_MOST_LEVELS = 2**15 - 1
"""What an i16 holds."""
_LARGEST_SUM = 2**31 - 1
_FEWEST_LEVELS = 127
"""With fewer a cotangent would be too coarse to learn from: such sums stay floating-point."""
_SMALLEST = 2.0**-100
"""Stands for the largest element where all are (nearly) 0, so that none is divided by 0."""


@dataclass(frozen=True)
class IntegerBackwardPass(ModulePass):
    """Rewrites the products and sums of cotangents where there are integer convolutions."""

    name = "integer-backward"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store, written = weights_of(ctx), written_boxes(op)
        for function in functions(op):
            block = function.body.block
            if any(isinstance(o, nn.IntegerConv2dOp) for o in block.ops):
                _make_losses_exact(block)
                _rewrite(block, store, written)


@dataclass(frozen=True)
class _Sum:
    """A sum of elements of a cotangent, perhaps times codes."""

    op: nn.Conv2dDxOp | nn.Conv2dDwOp | nn.ReduceSumOp
    cotangent: SSAValue
    weight: int
    """How large it can become if no element of the cotangent exceeds 1."""

    @property
    def levels(self) -> int:
        """The largest whole number that cannot make it overflow."""
        return min(_MOST_LEVELS, _LARGEST_SUM // self.weight)


@dataclass
class _Cotangent:
    """An f32 cotangent and the sums that it enters."""

    value: SSAValue
    scaled: nn.MulOp | None = None
    """Times the scales of a filter, one per channel: what its product with the filter needs."""
    sums: list[_Sum] = field(default_factory=list[_Sum])

    def make_whole(self, bounds: Bounds) -> None:
        """Replaces the sums by those of whole numbers."""
        b = Builder.before(self.sums[0].op)
        source = self.value if self.scaled is None else self.scaled.y
        most = min(s.levels for s in self.sums)
        bound = bounds.of(b, source)
        largest = b.max(_largest(b, source) if bound is None else bound, b.constant(_SMALLEST))
        levels = b.constant(float(most))
        whole = b.cast(b.round(b.mul(source, b.div(levels, largest))), i16)
        if bound is None:
            bounds.levels[whole] = most
        unit = b.div(largest, levels)
        for a_sum in self.sums:
            b = Builder.before(a_sum.op)
            Rewriter.replace_op(a_sum.op, [], [self._real(b, a_sum.op, whole, unit)])

    def _real(self, b: Builder, op: Operation, whole: SSAValue, unit: SSAValue) -> SSAValue:
        """The result of `op`, from whole numbers that count in `unit`."""
        match op:
            case nn.Conv2dDxOp():
                size = get_ints(op.properties, "input_size")
                filters = _codes(op.w)
                assert filters is not None
                exact = b.integer_conv2d_dx(whole, filters.value(b), op.window, size)
            case nn.Conv2dDwOp():
                inputs = _codes(op.x)
                assert inputs is not None
                exact = b.integer_conv2d_dw(
                    inputs.value(b),
                    _leading(b, whole, shape_of(op.dy)),
                    op.window,
                    get_ints(op.properties, "kernel_size"),
                    inputs.zero_point,
                )
                shape = (*shape_of(exact)[:1], 1, 1, 1)
                unit = self._channel_units(b, unit, shape)
            case _:
                exact = b.reduce_sum(b.cast(whole, i32), get_ints(op.properties, "axes"))
                shape = (*(1 for _ in shape_of(exact)[1:]), shape_of(exact)[-1])
                unit = self._channel_units(b, unit, shape)
        return b.mul(b.cast(exact), unit)

    def _channel_units(self, b: Builder, unit: SSAValue, shape: Sequence[int]) -> SSAValue:
        """What the whole numbers count in before the scales of the filter, as `shape`."""
        if self.scaled is None:
            return unit
        scales = self.scaled.b
        if shape_of(scales):
            scales = b.reshape(_leading(b, scales, (prod(shape),)), shape)
        return b.div(unit, scales)


def _largest(b: Builder, x: SSAValue) -> SSAValue:
    """The largest magnitude, a scalar."""
    return b.reshape(b.reduce_max(b.abs(x), range(len(shape_of(x)))), ())


def _make_losses_exact(block: Block) -> None:
    for op in block.ops:
        if isinstance(op, nn.CrossEntropyOp) and type_of(op.target).element_type == i32:
            b = Builder.before(op)
            Rewriter.replace_op(op, [], [exact_cross_entropy(b, op.x, op.target)])


def _rewrite(block: Block, store: WeightStore, written: Mapping[str, tuple[int, ...]]) -> None:
    cotangents: dict[SSAValue, _Cotangent] = {}
    for op in _needed_by_updates(block):
        if isinstance(op, nn.SoftmaxOp):
            b = Builder.before(op)
            Rewriter.replace_op(op, [], [exact_softmax(b, op.x, get_int(op.properties, "axis"))])
            continue
        a_sum = _sum_of(op)
        if a_sum is not None and a_sum.levels >= _FEWEST_LEVELS:
            _collect(cotangents, a_sum)
    bounds = Bounds(store, written)
    for cotangent in cotangents.values():
        cotangent.make_whole(bounds)


def _needed_by_updates(block: Block) -> list[Operation]:
    """The operations that what is assigned depends on, in the order of the block."""
    needed: set[Operation] = set()
    for op in reversed(list(block.ops)):
        if isinstance(op, train.AssignOp) or op in needed:
            needed.update(o.op for o in op.operands if isinstance(o, OpResult))
    return [op for op in block.ops if op in needed]


def _collect(cotangents: dict[SSAValue, _Cotangent], a_sum: _Sum) -> None:
    """Those of one cotangent share its whole numbers."""
    value, scaled = a_sum.cotangent, _scaled_by_channel(a_sum)
    if scaled is not None:
        known = cotangents.get(scaled.a)
        if known is None or known.scaled in (None, scaled):
            value = scaled.a
        else:  # two filters read one cotangent, each times its own scales
            scaled = None
    elif _reduces_channels(a_sum.op):
        value = a_sum.op.results[0]
    cotangent = cotangents.setdefault(value, _Cotangent(a_sum.cotangent))
    if scaled is not None:
        cotangent.value, cotangent.scaled = scaled.a, scaled
    cotangent.sums.append(a_sum)


def _scaled_by_channel(a_sum: _Sum) -> nn.MulOp | None:
    """The product of a cotangent and a filter's scales."""
    product = a_sum.cotangent.owner
    if not isinstance(a_sum.op, nn.Conv2dDxOp) or not isinstance(product, nn.MulOp):
        return None
    return product if len(shape_of(product.b)) <= 1 else None


def _reduces_channels(op: Operation) -> bool:
    """Such a sum has no use for scales by channel."""
    return isinstance(op, nn.ReduceSumOp) and (
        len(shape_of(op.x)) - 1 in get_ints(op.properties, "axes")
    )


def _sum_of(op: Operation) -> _Sum | None:
    """`op` as a sum of elements of a cotangent, if it is one."""
    match op:
        case nn.Conv2dDxOp():
            codes, (outputs, height, width, _) = _codes(op.w), shape_of(op.w)
            terms = outputs // op.window.groups * height * width
            return None if codes is None else _Sum(op, op.dy, terms * codes.largest)
        case nn.Conv2dDwOp():
            codes, terms = _codes(op.x), prod(shape_of(op.dy)[:3])
            whole = op.dy.owner.x if isinstance(op.dy.owner, nn.SliceOp) else op.dy
            return None if codes is None else _Sum(op, whole, terms * codes.largest)
        case nn.ReduceSumOp() if type_of(op.x).element_type == f32:
            return _Sum(op, op.x, prod(shape_of(op.x)) // prod(shape_of(op.y)))
        case _:
            return None


@dataclass(frozen=True)
class _Codes:
    """i8 codes that are read as f32 differences from a zero point."""

    codes: SSAValue
    zero_point: int
    shape: tuple[int, ...]
    """Of the leading box that is read."""

    @property
    def largest(self) -> int:
        """Of the differences."""
        return max(127 - self.zero_point, 128 + self.zero_point)

    def value(self, b: Builder) -> SSAValue:
        """The codes of the box."""
        return _leading(b, self.codes, self.shape)


def _codes(x: SSAValue) -> _Codes | None:
    """What `x` is made of: the leading box of (codes as f32 - zero point), or of codes alone."""
    shape, zero_point = shape_of(x), 0
    if isinstance(x.owner, nn.SliceOp):
        x = x.owner.x
    if isinstance(x.owner, nn.SubOp) and isinstance(x.owner.b.owner, nn.ConstantOp):
        zero_point = int(x.owner.b.owner.value.value.data)
        x = x.owner.a
    if not isinstance(x.owner, nn.CastOp) or type_of(x.owner.x).element_type != i8:
        return None
    return _Codes(x.owner.x, zero_point, shape)


def _leading(b: Builder, x: SSAValue, shape: Sequence[int]) -> SSAValue:
    """The leading box of `x` of `shape`."""
    return b.slice(x, [0] * len(shape), shape)
