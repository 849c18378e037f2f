"""Numbers as C text, exact: the compiler reads back the same bits."""

import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

C_TYPES: Mapping[str, str] = MappingProxyType(
    {
        "float32": "float",
        "float64": "double",
        "bool": "uint8_t",
        "int8": "int8_t",
        "uint8": "uint8_t",
        "int16": "int16_t",
        "int32": "int32_t",
        "int64": "int64_t",
    }
)
"""NumPy dtype -> C type of the caller's arrays."""

_PER_LINE = 8


def float_literal(value: float) -> str:
    """An f32, in the shortest decimal that rounds to it.

    Hexadecimal floats would be plainer, but C++ before 2017 has none.
    """
    rounded = np.float32(value)
    if math.isnan(rounded):
        return "NAN"
    if math.isinf(rounded):
        return "INFINITY" if rounded > 0 else "(-INFINITY)"
    text = f"{rounded}f"
    return f"({text})" if text.startswith("-") else text


def unsigned_literal(value: int, width: int) -> str:
    """An integer of `width` bits as the unsigned number with the same bits."""
    bits = value & ((1 << width) - 1)
    if width < 32:
        return f"(uint{width}_t){bits}u"
    return f"{bits}u" if width == 32 else f"{bits}ull"


def initializer(array: NDArray[np.generic]) -> str:
    """The elements of `array` in row-major order, for between the braces of an array."""
    flat = array.ravel()
    if flat.dtype != np.float32:
        return _lines(str(int(v)) for v in flat)
    if np.isfinite(flat.astype(np.float64)).all():
        # 9 significant digits are exact, and far faster to write than the shortest form.
        return _lines(f"{v:.8e}f" for v in flat.tolist())
    return _lines(float_literal(v) for v in flat.tolist())


def _lines(items: Iterable[str]) -> str:
    texts = list(items)
    rows = (texts[i : i + _PER_LINE] for i in range(0, len(texts), _PER_LINE))
    return ",\n".join(f"    {', '.join(row)}" for row in rows)
