"""Moves parameters of codes: how real steps become whole numbers without stalling or drifting.

Rounding a step to the nearest code loses every step below half a code, and truncation shrinks
weights. Stochastic rounding is right on average (Gupta et al. 2015, section 3); error feedback
keeps what was rounded away for the next step (Seide et al. 2014, section 2.1).
"""

from dataclasses import dataclass

from xdsl.dialects.builtin import f32, i8, i32
from xdsl.ir import Block, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import train
from niwaki.ir.dialects.quantized_type import QuantizedType, quantized
from niwaki.ir.dialects.tensor_op import shape_of, tensor, type_of
from niwaki.passes.training_mode import SEED_STRIDE, step_counter

ROUNDINGS = ("stochastic", "error_feedback", "nearest")

_RESIDUAL_UNIT = 1.0 / 128
"""Codes per unit of a residual: half a code either way fills 7 bits of an i8."""


@dataclass(frozen=True)
class Parameter:
    """The updated box of a parameter, as an optimizer sees it: floating-point numbers."""

    value: SSAValue
    """The train.parameter."""
    sizes: tuple[int, ...]
    """Of the updated box."""
    scaling: bool
    """Quantization-aware scaling: the optimizer works on real numbers; without, on codes."""

    @property
    def element(self) -> QuantizedType | None:
        """The quantised type; None for a floating-point parameter."""
        element = type_of(self.value).element_type
        return element if isinstance(element, QuantizedType) else None

    def _box(self, b: Builder, x: SSAValue) -> SSAValue:
        return b.slice(x, [0] * len(self.sizes), self.sizes)

    def _scales(self, b: Builder) -> SSAValue:
        """Shaped to multiply the box."""
        axis = quantized(type_of(self.value).element_type).axis
        scales = b.scales(self.value)
        if axis is None:
            return scales
        shape = [size if d == axis else 1 for d, size in enumerate(self.sizes)]
        return b.reshape(b.slice(scales, [0], [self.sizes[axis]]), shape)

    def read(self, b: Builder) -> SSAValue:
        """The numbers of the box."""
        if self.element is None:
            return self._box(b, self.value)
        codes = b.cast(self._box(b, b.codes(self.value)))
        return b.mul(codes, self._scales(b)) if self.scaling else codes

    def gradient(self, b: Builder, real: SSAValue) -> SSAValue:
        """The gradient with respect to these numbers, from that to real ones."""
        if self.element is None or self.scaling:
            return real
        return b.mul(real, self._scales(b))

    def code_step(self, b: Builder, step: SSAValue) -> SSAValue:
        """`step`, in codes."""
        return b.div(step, self._scales(b)) if self.scaling else step

    def move(self, b: Builder, step: SSAValue, rounding: "Rounding") -> None:
        """Subtracts `step` from the box."""
        if self.element is None:
            b.assign(self.value, b.sub(self.read(b), step))
            return
        low, high = self.element.limits
        span = float(min(high - low, 2**24))
        exact = self.code_step(b, step)
        bounded = b.max(b.min(exact, b.number(span, exact)), b.number(-span, exact))
        whole = b.cast(rounding.round(b, self, bounded), i32)
        old = b.codes(self.value)
        new = b.sub(b.cast(self._box(b, old), i32), whole)
        inside = b.max(b.min(new, b.number(high, new)), b.number(low, new))
        b.assign(self.value, inside if self.element.storage == i32 else b.cast(inside, i8))


class Rounding:
    """Rounds the steps of one block."""

    def __init__(self, block: Block, mode: str, seed: int) -> None:
        self.block = block
        self.mode = mode
        self.seed = seed
        self.rounded = 0

    def round(self, b: Builder, parameter: Parameter, step: SSAValue) -> SSAValue:
        """The whole numbers that stand for `step`."""
        if self.mode == "nearest":
            return b.round(step)
        if self.mode == "stochastic":
            return self._stochastic(b, step)
        return self._with_residual(b, parameter, step)

    def _stochastic(self, b: Builder, step: SSAValue) -> SSAValue:
        seed = (self.seed + SEED_STRIDE * self.rounded) % 2**32
        self.rounded += 1
        noise = b.random_uniform(step, step_counter(self.block), seed)
        return b.round(b.add(step, b.sub(noise, b.number(0.5, noise))))

    def _with_residual(self, b: Builder, parameter: Parameter, step: SSAValue) -> SSAValue:
        storage = train.storage_of(parameter.value)
        residual = b.state(f"{storage.key}.residual", tensor(shape_of(step), i8), 0)
        total = b.add(step, b.scale(b.cast(residual, f32), _RESIDUAL_UNIT))
        whole = b.round(total)
        rest = b.round(b.scale(b.sub(total, whole), 1.0 / _RESIDUAL_UNIT))
        b.assign(residual, b.cast(rest, i8))
        return whole
