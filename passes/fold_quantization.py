"""`fold-quantization`: operations on dequantised tensors become quantised operations.

Quantised models may state operations on real numbers between `nn.dequantize` and `nn.quantize`
("QDQ"). What has no quantised form stays so: right, only slower.
"""

from collections import Counter
from dataclasses import dataclass

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import FloatAttr, ModuleOp, i8
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.builder import Builder
from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import TensorOp, get_ints, shape_of
from niwaki.ir.quantization import sum_rescaling
from niwaki.passes.functions import functions
from niwaki.passes.quantized_product import (
    Parameters,
    activation_codes,
    element_of,
    only_user,
    product_of,
    quantized_product,
)

MOVES = (nn.ReshapeOp, nn.TransposeOp, nn.SliceOp, nn.MaxPool2dOp)
"""What treats codes as it treats the numbers that they stand for."""


@dataclass(frozen=True)
class FoldQuantizationPass(ModulePass):
    """Convolutions, dense products, sums and means of @forward compute on codes.

    A product that is not quantised again gives the real numbers of its exact 32-bit sums. Its
    bias becomes codes of the sums' scale, and a dense weight is stored as [outputs, 1, 1, inputs].
    Clamps that the range of the codes implies go; max-pools and moves work on codes.
    """

    name = "fold-quantization"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        reads = Counter(p.key for p in op.walk() if isinstance(p, train.ParameterOp))
        parameters = Parameters(weights_of(ctx), reads)
        for function in functions(op):
            if function.sym_name.data == "forward":
                _fold(function.body.block, parameters)


def clamped(op: object) -> tuple[SSAValue, float, float] | None:
    """What `op` clamps, and between which numbers; None if it is no clamp."""
    match op:
        case nn.ReluOp():
            return op.x, 0.0, np.inf
        case nn.Relu6Op():
            return op.x, 0.0, 6.0
        case nn.MaxOp():
            bound = _number(op.b)
            return None if bound is None else (op.a, bound, np.inf)
        case nn.MinOp():
            bound = _number(op.b)
            return None if bound is None else (op.a, -np.inf, bound)
        case _:
            return None


def _number(value: SSAValue) -> float | None:
    op = value.owner
    if isinstance(op, nn.ConstantOp) and isinstance(op.value, FloatAttr):
        return float(op.value.value.data)
    return None


def _fold(block: Block, parameters: Parameters) -> None:
    if not any(isinstance(op, nn.DequantizeOp) for op in block.ops):
        return
    for op in block.ops:
        if isinstance(op, MOVES):
            _move_codes(op)
        elif isinstance(op, nn.QuantizeOp) and op.inside.first_use is None:
            codes = _quantized(op, parameters)
            if codes is not None:
                op.y.replace_all_uses_with(codes)
    _erase_unused(block)
    for op in block.ops:
        product = product_of(op)
        if product is None:
            continue
        b = Builder(InsertPoint.before(product.result.op), op.location)
        sums = quantized_product(b, parameters, product, None)
        if sums is not None:
            product.result.replace_all_uses_with(sums)
    _erase_unused(block)


def _move_codes(op: TensorOp) -> None:
    codes = activation_codes(op.operands[0])
    if codes is None:
        return
    b = Builder.before(op)
    moved = b.insert(type(op).make(codes, **op.properties))
    Rewriter.replace_op(op, [], [b.dequantize(moved.results[0]), *moved.results[1:]])


def _quantized(op: nn.QuantizeOp, parameters: Parameters) -> SSAValue | None:
    """The result of `op` by one operation on codes."""
    to = element_of(op.y)
    if to.axis is not None or to.storage != i8:
        return None
    value = _unclamped(op.x, to)
    codes = activation_codes(value)
    if codes is not None and element_of(codes) == to:
        return codes
    producer = value.owner
    if only_user(value) is None or not isinstance(producer, Operation):
        return None
    b = Builder(InsertPoint.before(op), producer.location)
    match producer:
        case nn.AddOp() if shape_of(producer.a) == shape_of(producer.b):
            return _quantized_sum(b, producer, to)
        case nn.ReduceMeanOp():
            return _quantized_mean(b, producer, to)
        case _:
            product = product_of(producer.a.owner if isinstance(producer, nn.AddOp) else producer)
            if product is None or product.result is not value:
                return None
            return quantized_product(b, parameters, product, to)


def _unclamped(value: SSAValue, element: QuantizedType) -> SSAValue:
    """`value` before the clamps that change no code of `element`."""
    while True:
        clamp = clamped(value.owner)
        if clamp is None or not _is_implied(*clamp[1:], element):
            return value
        value = clamp[0]


def _is_implied(low: float, high: float, element: QuantizedType) -> bool:
    """Whether every number has the same code of `element` before and after the clamp."""
    least, most = element.limits
    first, last = (np.rint(v / element.scales[0]) + element.zero_point for v in (low, high))
    return bool(first <= least and last >= most)


def _quantized_sum(b: Builder, op: nn.AddOp, to: QuantizedType) -> SSAValue | None:
    a, c = activation_codes(op.a), activation_codes(op.b)
    if a is None or c is None:
        return None
    try:
        sum_rescaling(element_of(a), element_of(c), to)
    except VerifyException:
        return None
    return b.quantized_add(a, c, to)


def _quantized_mean(b: Builder, op: nn.ReduceMeanOp, to: QuantizedType) -> SSAValue | None:
    codes = activation_codes(op.x)
    if codes is None or element_of(codes) != to:
        return None
    return b.quantized_mean(codes, get_ints(op.properties, "axes"))


def _erase_unused(block: Block) -> None:
    """Erases what computes nothing that is read, and parameters that only it read."""
    for op in reversed(list(block.ops)):
        if isinstance(op, TensorOp | train.ParameterOp) and not any(
            r.first_use for r in op.results
        ):
            op.detach()
            op.erase()
