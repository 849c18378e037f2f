"""From a program of real numbers to one of integers."""

from collections.abc import Sequence

from numpy.typing import ArrayLike

from niwaki.frontends.load import load
from niwaki.ir.program import Program
from niwaki.passes import quantize as passes


def quantize(
    program: object,
    calibration: ArrayLike | Sequence[ArrayLike],
    method: str = "min_max",
    input: str = "float",
) -> Program:
    """A program whose layers compute on int8 codes, for `niwaki.compile`.

    `program`: a Program, or what `niwaki.load` takes. `calibration`: samples of its input along
    dimension 0, at least one batch; for several inputs a list of such arrays. `method`: how the
    range of each activation follows from them: "min_max", "percentile" (the outermost 0.01 % at
    each end are clipped) or "mse" (of least squared error, also for weights). `input`: "float", or
    "codes" for int8 inputs, whose scale and zero point are in the type of @forward's argument.

    Frozen batch norms are folded; weights have a scale per output channel; what has no quantised
    form computes in f32. Dense weights become [outputs, 1, 1, inputs].

    Raises UsageError if an argument does not fit, an activation is not finite or there is nothing
    to quantise, and what `niwaki.load` raises.
    """
    program = program if isinstance(program, Program) else load(program)
    return passes.quantize(program, calibration, method, input)
