"""exp, tanh and erf of vectors: polynomials, several elements at once.

The C library computes one element per call. Scalars still go there: it is as exact, and small
machines have no vectors. Errors are at most 1 unit in the last place of exp, 1.5 of tanh, 2.5 of
erf; results below the smallest normal number are 0.
"""

import math
from collections.abc import Sequence

from xdsl.dialects.builtin import f32, i32

from niwaki.backends.kernels.builder import KernelBuilder, Value

_LOG2_E = 1 / math.log(2)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 in two parts: the product of the first one with a small integer is exact."""
_ROUND = 1.5 * 2**23 + 126
"""Adding this to a float n leaves the nearest integer to n, as the exponent of 2^(n-1), in the low
bits."""
_EXP_RANGE = (-87.0, 89.0)
"""Beyond, results are 0 and infinite; they are so for exponents -126 and 128 too."""

# Moshier, Cephes mathematical library: expf, tanhf, erff. Highest power first.
_EXP = (
    1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1,
    5.0000001201e-1, 1.0, 1.0,
)  # fmt: skip
_TANH = (
    -5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1,
)  # fmt: skip
_ERF = (
    7.853861353153693e-5, -8.010193625184903e-4, 5.188327685732524e-3, -2.685381193529856e-2,
    1.128358514861418e-1, -3.761262582423300e-1, 1.128379165726710,
)  # fmt: skip
# (1 - erf(x))^(1/8) for 1 <= x <= 4, by Chebyshev nodes reweighted until 1 - q^8 erred alike at all
# extrema, by 1.6e-8.
_ERFC_ROOT = (
    1.498402516e-4, -2.469644700e-3, 1.292552686e-2, -1.137287646e-2, -6.142711042e-2,
    -1.450601441e-1, 1.000834606,
)  # fmt: skip
_ERF_IS_ONE = 4.0
"""To the last place."""


def exp(k: KernelBuilder, x: Value) -> Value:
    """e to the x: 2^n * e^r with n the nearest integer to x / ln 2."""
    if k.lanes(x) == 1:
        return k.exp(x)
    low, high = (_like(k, x, bound) for bound in _EXP_RANGE)
    inside = k.min(high, k.max(low, x))
    shifted = k.fma(inside, _like(k, x, _LOG2_E), _like(k, x, _ROUND))
    n = k.sub(shifted, _like(k, x, _ROUND))
    r = k.fma(n, _like(k, x, -_LN2_HIGH), inside)
    r = k.fma(n, _like(k, x, -_LN2_LOW), r)
    # 2 e^r, and half of 2^n: 2^128 is no float.
    p = _polynomial(k, r, [2 * c for c in _EXP])
    half = k.shift_left(k.bitcast(shifted, i32), k.constant(23, i32, k.lanes(x)))
    return k.mul(p, k.bitcast(half, f32))


def tanh(k: KernelBuilder, x: Value) -> Value:
    """x + x^3 P(x^2) near 0, else 1 - 2 / (e^2|x| + 1) with the sign of x."""
    if k.lanes(x) == 1:
        return k.tanh(x)
    one, size, square = _like(k, x, 1.0), k.abs(x), k.mul(x, x)
    near = k.fma(k.mul(_polynomial(k, square, _TANH), square), x, x)
    far = k.sub(one, k.div(_like(k, x, 2.0), k.add(exp(k, k.add(size, size)), one)))
    return k.select(k.compare(size, _like(k, x, 0.625), "olt"), near, _signed(k, far, x))


def erf(k: KernelBuilder, x: Value) -> Value:
    """x P(x^2) for |x| < 1, else 1 - Q(|x|)^8 with the sign of x."""
    if k.lanes(x) == 1:
        return k.erf(x)
    one, size, square = _like(k, x, 1.0), k.abs(x), k.mul(x, x)
    near = k.mul(x, _polynomial(k, square, _ERF))
    root = _polynomial(k, k.min(_like(k, x, _ERF_IS_ONE), size), _ERFC_ROOT)
    fourth = k.mul(root, root)
    fourth = k.mul(fourth, fourth)
    far = k.fma(k.neg(fourth), fourth, one)
    return k.select(k.compare(size, one, "olt"), near, _signed(k, far, x))


def _like(k: KernelBuilder, x: Value, value: float) -> Value:
    return k.constant(value, f32, k.lanes(x))


def _signed(k: KernelBuilder, size: Value, x: Value) -> Value:
    return k.select(k.compare(x, _like(k, x, 0.0), "olt"), k.neg(size), size)


def _polynomial(k: KernelBuilder, x: Value, coefficients: Sequence[float]) -> Value:
    result = _like(k, x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = k.fma(result, x, _like(k, x, coefficient))
    return result
