"""Softmax out of operations that every machine computes to the last bit.

Exponentials in libraries differ in the last bit, and so do sums of floats in another order. Here
2^u is a polynomial of separate products and sums (IEEE 754 rounds each one), and the powers are
whole numbers before they are added up.
"""

import math

from xdsl.dialects.builtin import i32
from xdsl.ir import SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects.tensor_op import shape_of

_DEGREE = 6
"""Of the Taylor polynomial of 2^f: within 1.3e-7 of it for |f| <= 1/2."""
_STEPS = (16, 8, 4, 2, 1)
"""Halvings that add up to any exponent down to -31."""


def exact_softmax(b: Builder, x: SSAValue, axis: int) -> SSAValue:
    """exp(x - max) / sum(exp(x - max)) along `axis`, f32.

    Powers are rounded to multiples of 2^-bits, so that the sum of all fits 31 bits: of n elements,
    each is wrong by at most about n^2 / 2^31.
    """
    bits = 30 - (shape_of(x)[axis] - 1).bit_length()
    powers = _power_of_two(b, b.scale(b.sub(x, b.reduce_max(x, [axis])), 1 / math.log(2)))
    whole = b.cast(b.round(b.scale(powers, 2.0**bits)), i32)
    return b.div(b.cast(whole), b.cast(b.reduce_sum(whole, [axis])))


def _power_of_two(b: Builder, u: SSAValue) -> SSAValue:
    """2^u for u <= 0; 2^-31 where that is less."""
    u = b.max(u, b.number(-float(sum(_STEPS)), u))
    exponent = b.round(u)
    f = b.sub(u, exponent)
    coefficients = [math.log(2) ** n / math.factorial(n) for n in range(_DEGREE + 1)]
    power = b.scale(f, coefficients[-1])
    for coefficient in reversed(coefficients[1:-1]):
        power = b.mul(b.add(power, b.number(coefficient, f)), f)
    power = b.add(power, b.number(coefficients[0], f))
    for step in _STEPS:
        below = b.compare(exponent, b.number(-float(step), exponent), "le")
        power = b.select(below, b.scale(power, 2.0**-step), power)
        exponent = b.select(below, b.add(exponent, b.number(float(step), exponent)), exponent)
    return power
