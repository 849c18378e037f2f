"""Arrays of bf16, as their bits, and of i8."""

from typing import Any

import numpy as np
from xdsl.dialects.builtin import bf16
from xdsl.ir import Attribute

from niwaki.ir.dialects.tensor_op import NARROW

Array = np.ndarray[Any, np.dtype[Any]]

_LARGEST = np.float32(127)
"""Of i8: -128 stays unused, so that both signs have one range."""


def narrow(x: Array, element: Attribute) -> Array:
    """f32 rounded to `element`, to nearest, ties to even."""
    if element == bf16:
        return _to_bf16(x)
    at_least = np.where(x > -_LARGEST, x, -_LARGEST)
    return np.rint(np.minimum(at_least, _LARGEST)).astype(np.int8)


def widen(x: Array, element: Attribute) -> Array:
    """Elements of NARROW types as f32; other arrays as they are."""
    if element == bf16:
        return (x.astype(np.int32) << 16).view(np.float32)
    return x.astype(np.float32) if element in NARROW else x


def _to_bf16(x: Array) -> Array:
    """The upper half of the bits; a nan stays one by its quiet bit."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    odd = (bits >> 16) & 1
    rounded = np.where(np.isnan(x), bits | 0x400000, bits + 0x7FFF + odd)
    return (rounded >> 16).astype(np.uint16).view(np.int16)
