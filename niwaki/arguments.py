"""Checks the arrays that a user passes to a compiled step."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Port


def check_arguments(
    entry: str, ports: Sequence[Port], arrays: Sequence[object]
) -> list[NDArray[np.generic]]:
    """`arrays` as NumPy arrays, if they fit `ports`; any memory layout will do.

    Raises UsageError that names the argument and what it must be.
    """
    if len(arrays) != len(ports):
        names = ", ".join(p.name for p in ports)
        raise UsageError(f"{entry} takes {len(ports)} array(s) ({names}), got {len(arrays)}")
    return [_check(entry, port, array) for port, array in zip(ports, arrays, strict=True)]


def check_labels(entry: str, labels: NDArray[np.generic], classes: int) -> None:
    """Raises UsageError unless all `labels` are in 0..classes - 1."""
    smallest, largest = int(labels.min()), int(labels.max())
    if smallest < 0 or largest >= classes:
        wrong = smallest if smallest < 0 else largest
        raise UsageError(f"{entry}: label {wrong} is none of 0 to {classes - 1}")


def _check(entry: str, port: Port, array: object) -> NDArray[np.generic]:
    given = np.asarray(array)
    if not np.can_cast(given.dtype, port.dtype, "same_kind"):
        raise UsageError(
            f"{entry}: '{port.name}' must be {port.dtype}, got {given.dtype}; "
            f"convert it with .astype(numpy.{port.dtype})"
        )
    if given.shape != port.shape:
        raise UsageError(f"{entry}: {_shape_message(port, given.shape)}")
    return given


def _shape_message(port: Port, shape: tuple[int, ...]) -> str:
    message = f"'{port.name}' must have the shape {list(port.shape)}, got {list(shape)}"
    if shape[1:] != port.shape[1:] or not len(shape) == len(port.shape) > 0:
        return message
    return f"{message}; compile with batch={shape[0]} for this batch size"
