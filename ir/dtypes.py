"""NumPy dtypes of IR element types."""

import numpy as np
from xdsl.dialects.builtin import bf16, f16, f32, f64, i1, i8, i16, i32, i64
from xdsl.ir import Attribute
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.dialects.quantized_type import QuantizedType

_DTYPES: dict[Attribute, np.dtype[np.generic]] = {
    f32: np.dtype(np.float32),
    f64: np.dtype(np.float64),
    f16: np.dtype(np.float16),
    bf16: np.dtype(np.int16),
    i1: np.dtype(np.bool_),
    i8: np.dtype(np.int8),
    i16: np.dtype(np.int16),
    i32: np.dtype(np.int32),
    i64: np.dtype(np.int64),
}


def dtype_of(element: Attribute) -> np.dtype[np.generic]:
    """The dtype of arrays of `element`; VerifyException if Niwaki has no such arrays.

    NumPy has no bf16: such arrays hold the bits.
    """
    if isinstance(element, QuantizedType):
        element = element.storage
    dtype = _DTYPES.get(element)
    if dtype is None:
        raise VerifyException(f"no arrays of element type {element}")
    return dtype
