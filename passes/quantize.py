"""Post-training quantisation: from an f32 program and data to one that computes on codes.

Every activation that a quantised operation reads gets a type from the numbers that it takes on
calibration data, every weight of such an operation one from its own. Quantising and dequantising
operations are put around them; `fold-quantization` makes quantised operations of what is between.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from xdsl.dialects.builtin import f32
from xdsl.dialects.func import FuncOp
from xdsl.ir import BlockArgument, OpResult, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import shape_of, tensor, type_of
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.quantization import to_codes
from niwaki.passes.calibration import METHODS, Array, Range, filter_element, ranges_of
from niwaki.passes.canonicalize import CanonicalizePass
from niwaki.passes.fold_batch_norm import FoldBatchNormPass
from niwaki.passes.fold_quantization import MOVES, FoldQuantizationPass, clamped
from niwaki.passes.instrument import PassRunner
from niwaki.passes.quantized_product import Parameters, Product, product_of

INPUTS = ("float", "codes")
"""What the quantised program takes: numbers, which it quantises itself, or their i8 codes."""


def quantize(
    program: Program,
    calibration: ArrayLike | Sequence[ArrayLike],
    method: str = "min_max",
    input: str = "float",
) -> Program:
    """`program` with convolutions, dense products, sums and means on i8 codes.

    `calibration`: samples of the input, along dimension 0 (at least one batch of the model's); for
    several inputs a list of such arrays. `method`: how ranges follow from them, one of METHODS.
    `input`: "float" takes numbers as before, "codes" the i8 codes of each quantised input (their
    scale is in the input's type).

    Frozen batch norms are folded first. Weights have a scale per output channel, activations one;
    results that nothing quantised reads, as logits, are real numbers of exact sums. What has no
    quantised form computes in f32.

    Raises UsageError if an argument does not fit, an activation is not finite, or there is
    nothing to quantise.
    """
    if method not in METHODS:
        raise UsageError(f"unknown method '{method}': use {', '.join(METHODS)}")
    if input not in INPUTS:
        raise UsageError(f"unknown input '{input}': use {' or '.join(INPUTS)}")
    result = program.clone()
    context = NiwakiContext(result.weights)
    before = (CanonicalizePass(), FoldBatchNormPass(), CanonicalizePass())
    PassRunner().run(context, result.module, before)
    function = result.function("forward")
    plan = _Plan.of(function, result)
    if not plan.products:
        raise UsageError(f"{program.source or 'the program'} has no layer that can be quantised")
    batches = _Batches.of(function, calibration)
    ranges = ranges_of(lambda: _observed(result, function, plan.activations, batches), method)
    _insert(function, plan, _elements(plan, ranges), input == "codes")
    for product in plan.products:
        _quantize_weight(product, plan.parameters, method)
    PassRunner().run(context, result.module, (FoldQuantizationPass(), CanonicalizePass()))
    return result


# --- what is quantised


@dataclass(frozen=True)
class _Plan:
    """What becomes codes."""

    parameters: Parameters
    products: list[Product]
    activations: list[SSAValue]
    """Values that quantised operations read, before what only moves their elements."""
    means: Mapping[SSAValue, SSAValue]
    """Means among the activations, and what they are the means of: both have one type."""

    @classmethod
    def of(cls, function: FuncOp, program: Program) -> "_Plan":
        reads = Counter(p.key for p in function.walk() if isinstance(p, train.ParameterOp))
        parameters = Parameters(program.weights, reads)
        products = [p for p in map(product_of, function.body.block.ops) if p]
        products = [p for p in products if parameters.sole(p.op.operands[1]) and _is_real(p)]
        activations = dict.fromkeys(_origin(p.op.operands[0]) for p in products)
        means: dict[SSAValue, SSAValue] = {}
        pending = list(activations)
        while pending:
            value = pending.pop()
            sources = [_origin(v) for v in _operands_on_codes(value)]
            if isinstance(value.owner, nn.ReduceMeanOp):
                means[value] = sources[0]
            pending += [s for s in sources if s not in activations]
            activations.update(dict.fromkeys(sources))
        return cls(parameters, products, list(activations), means)


def _is_real(product: Product) -> bool:
    return type_of(product.op.y).element_type == f32


def _origin(value: SSAValue) -> SSAValue:
    """`value` before what only moves its elements."""
    while isinstance(value.owner, MOVES) and value is value.owner.results[0]:
        value = value.owner.operands[0]
    return value


def _operands_on_codes(value: SSAValue) -> Sequence[SSAValue]:
    """What the sum or mean reads that gives `value`, which is to be codes."""
    clamp = clamped(value.owner)
    while clamp is not None and clamp[0].has_one_use():
        value = clamp[0]
        clamp = clamped(value.owner)
    match value.owner:
        case nn.AddOp(a=a, b=b) if shape_of(a) == shape_of(b) and len(shape_of(a)) > 1:
            return (a, b)
        case nn.ReduceMeanOp(x=x):
            return (x,)
        case _:
            return ()


# --- calibration


@dataclass(frozen=True)
class _Batches:
    """Samples of each input, and how many a batch has."""

    arrays: list[Array]
    size: int

    @classmethod
    def of(cls, function: FuncOp, calibration: ArrayLike | Sequence[ArrayLike]) -> "_Batches":
        arguments = function.body.block.args
        given = [calibration] if len(arguments) == 1 else calibration
        if not isinstance(given, list | tuple) or len(given) != len(arguments):
            raise UsageError(f"calibration must be a list of {len(arguments)} arrays")
        arrays = [np.asarray(a) for a in given]
        sizes = {shape_of(a)[:1] for a in arguments}
        if len(sizes) != 1 or sizes == {()}:
            raise UsageError("the inputs of the model have no common batch in dimension 0")
        ((size,),) = sizes
        if any(a.ndim == 0 or len(a) != len(arrays[0]) or len(a) < size for a in arrays):
            raise UsageError(f"calibration needs at least {size} samples, as many of each input")
        return cls(arrays, size)

    def __iter__(self) -> Iterator[list[Array]]:
        """Whole batches; what is left at the end is not used."""
        for start in range(0, len(self.arrays[0]) - self.size + 1, self.size):
            yield [a[start : start + self.size] for a in self.arrays]


def _observed(
    program: Program, function: FuncOp, values: Sequence[SSAValue], batches: _Batches
) -> Iterator[list[Array]]:
    """`values` for each batch: the function returns them for the time being."""
    terminator = function.body.block.last_op
    assert terminator is not None
    outputs = list(terminator.operands)
    terminator.operands = values
    function.update_function_type()
    try:
        for batch in batches:
            yield run(program, "forward", batch)
    finally:
        terminator.operands = outputs
        function.update_function_type()


def _elements(plan: _Plan, ranges: Sequence[Range]) -> dict[SSAValue, QuantizedType]:
    elements: dict[SSAValue, QuantizedType] = {}
    for value, found in zip(plan.activations, ranges, strict=True):
        if not np.isfinite([found.low, found.high]).all():
            location = value.owner.location if isinstance(value, OpResult) else "the input"
            raise UsageError(f"an activation is not finite on the calibration data: {location}")
        elements[value] = found.element()
    for mean, source in plan.means.items():
        while source in plan.means:
            source = plan.means[source]
        elements[mean] = elements[source]
    return elements


# --- rewriting


def _insert(
    function: FuncOp, plan: _Plan, elements: Mapping[SSAValue, QuantizedType], codes: bool
) -> None:
    """Everything reads the activations as codes stand for them."""
    for value in plan.activations:
        b = _behind(value)
        users = list(value.uses)
        if codes and isinstance(value, BlockArgument):
            kind = tensor(shape_of(value), elements[value])
            quantized = Rewriter.replace_value_with_new_type(value, kind)
        else:
            quantized = b.quantize(value, elements[value])
        real = b.dequantize(quantized)
        for use in users:
            use.operation.operands[use.index] = real
    function.update_function_type()


def _behind(value: SSAValue) -> Builder:
    if isinstance(value, OpResult):
        return Builder(InsertPoint.after(value.op), value.op.location)
    assert isinstance(value, BlockArgument)
    return Builder(InsertPoint.at_start(value.block))


def _quantize_weight(product: Product, parameters: Parameters, method: str) -> None:
    weight = product.op.operands[1]
    parameter = parameters.sole(weight)
    assert parameter is not None
    array = parameters.store[parameter.key]
    element = filter_element(array, product.output_axis, method)
    b = Builder(InsertPoint.before(product.op), parameter.location)
    codes = parameters.restore(b, parameter, to_codes(array, element), element)
    product.op.operands[1] = b.dequantize(codes)
    Rewriter.erase_op(parameter)
