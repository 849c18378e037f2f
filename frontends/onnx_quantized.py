"""ONNX's QuantizeLinear and DequantizeLinear: what stands between them computes on real numbers.

Niwaki's codes are signed: those of 8 unsigned bits, and their zero points, become less by 128.
Quantised operations follow from the pairs later, in the pass `fold-quantization`.
"""

from collections.abc import Sequence

import numpy as np
from xdsl.dialects.builtin import i8, i32

from niwaki.frontends.conversion import Unsupported
from niwaki.frontends.nchw import Array, Imported, NchwBuilder, checked_axis
from niwaki.frontends.onnx_operands import INT8, UINT8, Operands
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import require

ON_CODES = (
    "DequantizeLinear", "Flatten", "Identity", "MaxPool", "Reshape", "Shape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Operations that treat codes as they treat the numbers that those stand for."""

_STORAGE = {"int8": (i8, 0), "uint8": (i8, 128), "int32": (i32, 0)}
"""dtype of codes -> how Niwaki stores them, and how much less they are then."""
_UNSIGNED_ZERO = -128
"""The zero point 0 of unsigned codes."""


def quantize(n: NchwBuilder, a: Operands) -> Imported:
    """QuantizeLinear."""
    x = a.tensor(n, 0)
    kinds = {0: "uint8", UINT8: "uint8", INT8: "int8"}
    kind = str(a.constant(2).dtype) if a.has(2) else kinds.get(a.integer("output_dtype", 0))
    if kind not in ("int8", "uint8"):
        raise Unsupported("codes other than int8 and uint8")
    return n.quantize(x, _element(a, x.shape, kind))


def dequantize(n: NchwBuilder, a: Operands) -> Imported:
    """DequantizeLinear of constant codes, or of what QuantizeLinear made with the same numbers."""
    codes = a.known(0)
    if isinstance(codes, np.ndarray):
        kind = str(codes.dtype)
        if kind not in _STORAGE:
            raise Unsupported(f"codes of {kind}; only int8, uint8 and int32")
        _, shift = _STORAGE[kind]
        signed = codes if shift == 0 else (codes.astype(np.int16) - shift).astype(np.int8)
        return n.dequantize(n.codes(a.names[0], signed, _element(a, codes.shape, kind)))
    if not n.is_codes(codes):
        raise Unsupported("of integers that are computed")
    made = n.element_of_codes(codes)
    if a.has(2):
        kind = str(a.constant(2).dtype)
    else:
        kind = "uint8" if made.zero_point == _UNSIGNED_ZERO else "int8"
    if _element(a, codes.shape, kind) != made:
        raise Unsupported("scale or zero point other than those of the QuantizeLinear")
    return n.dequantize(codes)


def _element(a: Operands, shape: Sequence[int], kind: str) -> QuantizedType:
    """The type that inputs 1 (scale) and 2 (zero point) state for codes of `kind`."""
    a.only("block_size", 0)
    scales = a.constant(1)
    zeros = a.constant(2) if a.has(2) else np.zeros(scales.shape, kind)
    require(kind in _STORAGE and str(zeros.dtype) == kind, f"zero points of {zeros.dtype}")
    require(scales.dtype == np.float32 and scales.ndim <= 1, "scales must be one float32 or a list")
    require(zeros.shape == scales.shape, "there must be as many zero points as scales")
    storage, shift = _STORAGE[kind]
    signed = zeros.reshape(-1).astype(np.int64) - shift
    if scales.size == 1:
        return QuantizedType.of(storage, _numbers(scales), int(signed[0]))
    axis = checked_axis(a.integer("axis", 1), len(shape))
    require(scales.size == shape[axis], f"{scales.size} scales for {shape[axis]} channels")
    if np.any(signed != 0):
        raise Unsupported("scales per channel with zero points other than 0")
    return QuantizedType.of(storage, _numbers(scales), 0, axis)


def _numbers(scales: Array) -> list[float]:
    return [float(s) for s in scales.reshape(-1)]
