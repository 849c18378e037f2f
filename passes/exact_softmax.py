"""Softmax and cross-entropy out of operations that every machine computes to the last bit.

Exponentials and logarithms in libraries differ in the last bit, and so do sums of floats in
another order. Here 2^u and log are polynomials of separate products and sums (IEEE 754 rounds each
one), and what is added up are whole numbers.
"""

import math

from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects.tensor_op import shape_of

_POWER_DEGREE = 6
"""Of the Taylor polynomial of 2^f: within 1.3e-7 of it for |f| <= 1/2."""
_LOG_TERMS = 6
"""Of 2 * (z + z^3 / 3 + ...), the logarithm of (1 + z) / (1 - z): within 1e-7 for z <= 1/3."""
_STEPS = (16, 8, 4, 2, 1)
"""Powers of two that add up to any exponent up to 31."""
_LEVELS = 2**24
"""Whole numbers that f32 holds exactly."""


def exact_softmax(b: Builder, x: SSAValue, axis: int) -> SSAValue:
    """exp(x - max) / sum(exp(x - max)) along `axis`, f32.

    Powers are rounded to multiples of 2^-bits, so that the sum of all fits 31 bits: of n elements,
    each is wrong by at most about n^2 / 2^31.
    """
    powers = _powers(b, _shifted(b, x, axis))
    return b.div(b.cast(powers), b.cast(b.reduce_sum(powers, [axis])))


def exact_cross_entropy(b: Builder, x: SSAValue, labels: SSAValue) -> SSAValue:
    """The mean of log(sum(exp(x))) - x[label] over the rows of x [N, C], f32; as wrong."""
    rows, classes = shape_of(x)
    shifted = _shifted(b, x, 1)
    total = b.cast(b.reduce_sum(_powers(b, shifted), [1]))
    logarithm = _log(b, b.scale(total, 2.0 ** -_bits(classes)))
    # One term of the sum is not 0, so that its order does not matter.
    chosen = b.reduce_sum(b.mul(b.one_hot(labels, classes), shifted), [1])
    losses = b.sub(logarithm, chosen)
    return b.scale(_sum_of_positive(b, losses), 1.0 / rows)


def _shifted(b: Builder, x: SSAValue, axis: int) -> SSAValue:
    return b.sub(x, b.reduce_max(x, [axis]))


def _bits(classes: int) -> int:
    return 30 - (classes - 1).bit_length()


def _powers(b: Builder, shifted: SSAValue) -> SSAValue:
    """exp(shifted) * 2^bits for elements <= 0 of a row of `classes`, rounded, i32."""
    powers = _power_of_two(b, b.scale(shifted, 1 / math.log(2)))
    return b.cast(b.round(b.scale(powers, 2.0 ** _bits(shape_of(shifted)[-1]))), i32)


def _power_of_two(b: Builder, u: SSAValue) -> SSAValue:
    """2^u for u <= 0; 2^-31 where that is less."""
    u = b.max(u, b.number(-float(sum(_STEPS)), u))
    exponent = b.round(u)
    f = b.sub(u, exponent)
    coefficients = [math.log(2) ** n / math.factorial(n) for n in range(_POWER_DEGREE + 1)]
    power = _polynomial(b, f, coefficients)
    for step in _STEPS:
        below = b.compare(exponent, b.number(-float(step), exponent), "le")
        power = b.select(below, b.scale(power, 2.0**-step), power)
        exponent = b.select(below, b.add(exponent, b.number(float(step), exponent)), exponent)
    return power


def _log(b: Builder, x: SSAValue) -> SSAValue:
    """The natural logarithm of 1 <= x < 2^32."""
    exponent = b.sub(x, x)
    for step in _STEPS:
        above = b.compare(x, b.number(2.0**step, x), "ge")
        x = b.select(above, b.scale(x, 2.0**-step), x)
        exponent = b.select(above, b.add(exponent, b.number(float(step), exponent)), exponent)
    one = b.number(1.0, x)
    z = b.div(b.sub(x, one), b.add(x, one))
    series = _polynomial(b, b.mul(z, z), [2 / (2 * n + 1) for n in range(_LOG_TERMS)])
    return b.add(b.scale(exponent, math.log(2)), b.mul(z, series))


def _polynomial(b: Builder, x: SSAValue, coefficients: list[float]) -> SSAValue:
    """By Horner's rule, the constant first."""
    *rest, last = coefficients
    result = b.scale(x, last)
    for coefficient in reversed(rest[1:]):
        result = b.mul(b.add(result, b.number(coefficient, x)), x)
    return b.add(result, b.number(rest[0], x))


def _sum_of_positive(b: Builder, x: SSAValue) -> SSAValue:
    """The sum of a column of numbers >= 0, a scalar: as whole numbers of 2^-24 of the largest."""
    rows = shape_of(x)[0]
    if rows == 1:
        return b.reshape(x, ())
    largest = b.max(b.reshape(b.reduce_max(x, [0]), ()), b.constant(2.0**-100))
    levels = b.constant(float(min(_LEVELS, 2**30 // rows)))
    whole = b.cast(b.round(b.mul(x, b.div(levels, largest))), i32)
    total = b.cast(b.reshape(b.reduce_sum(whole, [0]), ()))
    return b.mul(total, b.div(largest, levels))
