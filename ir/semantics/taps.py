"""Windows over NHWC arrays, one tap (kernel position) at a time.

Tap (i, j) of a window sees, of the padded input, the elements i * dilation + h * stride: one
strided view for all output positions at once.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from niwaki.ir.dialects.nn.contraction import Window

Array = np.ndarray[Any, np.dtype[Any]]


def padded(x: Array, window: Window) -> Array:
    """`x` with the window's padding as zeros (or False) around height and width."""
    top, left, bottom, right = window.padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def padded_zeros(shape: Sequence[int], window: Window, dtype: np.dtype[Any]) -> Array:
    """Zeros of the NHWC `shape` plus the window's padding."""
    top, left, bottom, right = window.padding
    return np.zeros((shape[0], top + shape[1] + bottom, left + shape[2] + right, shape[3]), dtype)


def cropped(x: Array, window: Window) -> Array:
    """`x` without the window's padding."""
    top, left, bottom, right = window.padding
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right, :]


def taps(
    x: Array, window: Window, kernel: Sequence[int], output: Sequence[int]
) -> Iterator[tuple[int, int, Array]]:
    """(i, j, view [N, output height, output width, C] of the padded `x`), row-major."""
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            top, left = i * window.dilation[0], j * window.dilation[1]
            rows = slice(top, top + (output[0] - 1) * window.strides[0] + 1, window.strides[0])
            columns = slice(left, left + (output[1] - 1) * window.strides[1] + 1, window.strides[1])
            yield i, j, x[:, rows, columns, :]
