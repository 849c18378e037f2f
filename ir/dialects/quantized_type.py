"""The type of quantised tensor elements: integers that stand for real numbers."""

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import ArrayAttr, FloatAttr, IntAttr, IntegerType, f32, i8, i32
from xdsl.ir import Attribute, ParametrizedAttribute, TypeAttribute
from xdsl.irdl import irdl_attr_definition
from xdsl.parser import AttrParser
from xdsl.printer import Printer
from xdsl.utils.exceptions import VerifyException


@irdl_attr_definition
class QuantizedType(ParametrizedAttribute, TypeAttribute):
    """A code q of `storage` (i8 or i32) stands for scale * (q - zero_point) (Jacob et al. 2018).

    One scale for all, or one per index of dimension `axis` (then `zero_point` is 0). Printed
    `!nn.quantized<i8, 0.05, zero -3>` or `!nn.quantized<i8, [0.05, 0.1], axis 0>`.
    """

    name = "nn.quantized"
    storage: IntegerType
    scale: ArrayAttr[FloatAttr]
    zero: IntAttr
    dimension: IntAttr
    """The dimension of the scales; -1 where there is one for all."""

    @classmethod
    def of(
        cls,
        storage: Attribute,
        scales: int | float | Sequence[float] | NDArray[np.floating],
        zero_point: int = 0,
        axis: int | None = None,
    ) -> Self:
        """Scales are kept as f32. Raises VerifyException if the type makes no sense."""
        if storage not in (i8, i32):
            raise VerifyException(f"quantised codes are i8 or i32, not {storage}")
        values = [scales] if isinstance(scales, int | float) else [float(s) for s in scales]
        return cls(
            storage,  # pyright: ignore[reportArgumentType]
            ArrayAttr([FloatAttr(float(np.float32(v)), f32) for v in values]),
            IntAttr(int(zero_point)),
            IntAttr(-1 if axis is None else axis),
        )

    @property
    def size(self) -> int:
        """Bytes of an element, as of a builtin type."""
        return self.storage.size

    @property
    def scales(self) -> NDArray[np.float32]:
        """One scale, or one per index of `axis`."""
        return np.array([s.value.data for s in self.scale], np.float32)

    @property
    def zero_point(self) -> int:
        """The code that stands for 0."""
        return self.zero.data

    @property
    def axis(self) -> int | None:
        """The dimension along which scales differ."""
        return None if self.dimension.data < 0 else self.dimension.data

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest code. 32-bit codes keep a bit free for sums."""
        bits = 8 if self.storage == i8 else 31
        return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1

    def broadcast_scales(self, rank: int) -> NDArray[np.float32]:
        """The scales, shaped to multiply a tensor of `rank`."""
        if self.axis is None:
            return self.scales.reshape(())
        return self.scales.reshape([-1 if d == self.axis else 1 for d in range(rank)])

    def verify(self) -> None:
        scales = self.scales
        if not len(scales) or not np.all(np.isfinite(scales)) or not np.all(scales > 0):
            raise VerifyException("scales must be positive numbers")
        if self.axis is None and len(scales) != 1:
            raise VerifyException("several scales need an axis")
        if self.axis is not None and self.zero_point != 0:
            raise VerifyException("with a scale per channel the zero point must be 0")
        low, high = self.limits
        if not low <= self.zero_point <= high:
            raise VerifyException(f"the zero point {self.zero_point} is no code of {self.storage}")

    def print_parameters(self, printer: Printer) -> None:
        with printer.in_angle_brackets():
            printer.print_attribute(self.storage)
            values = [repr(s.value.data) for s in self.scale]
            if self.axis is None:
                printer.print_string(f", {values[0]}")
            else:
                printer.print_string(f", [{', '.join(values)}], axis {self.axis}")
            if self.zero_point:
                printer.print_string(f", zero {self.zero_point}")

    @classmethod
    def parse_parameters(cls, parser: AttrParser) -> Sequence[Attribute]:
        zero, axis = 0, -1
        with parser.in_angle_brackets():
            storage = parser.parse_type()
            parser.parse_punctuation(",")
            values = parser.parse_optional_comma_separated_list(
                parser.Delimiter.SQUARE, lambda: float(parser.parse_number())
            )
            if values is None:
                values = [float(parser.parse_number())]
            while parser.parse_optional_punctuation(","):
                if parser.parse_optional_keyword("axis"):
                    axis = parser.parse_integer()
                else:
                    parser.parse_keyword("zero")
                    zero = parser.parse_integer()
        scales = ArrayAttr([FloatAttr(v, f32) for v in values])
        return [storage, scales, IntAttr(zero), IntAttr(axis)]


def quantized(element: Attribute) -> QuantizedType:
    """`element` as a quantised type; VerifyException if it is none."""
    if not isinstance(element, QuantizedType):
        raise VerifyException(f"expected a quantised element type, got {element}")
    return element


def check_fits(element: QuantizedType, shape: Sequence[int]) -> None:
    """VerifyException unless a tensor of `shape` can have `element`: one scale per channel."""
    axis = element.axis
    if axis is None:
        return
    if axis >= len(shape) or shape[axis] != len(element.scales):
        raise VerifyException(
            f"{len(element.scales)} scales along axis {axis} do not fit the shape {list(shape)}"
        )
