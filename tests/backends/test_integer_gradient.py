"""Integer products of the backward pass against the reference, bit for bit, at edge sizes."""

import numpy as np
import pytest
from xdsl.dialects.builtin import f32, i8, i16, i32

from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from tests.backends.kernel_cases import INTEGER_TARGETS, values
from tests.backends.run_kernel import reference, run_op

targets = pytest.mark.parametrize("target", INTEGER_TARGETS.values(), ids=INTEGER_TARGETS)

CONVOLUTIONS = {
    "1x1": ((1, 5, 5, 8), (6, 1, 1, 8), 1, 0, 1),
    "1x1 wide": ((2, 4, 4, 12), (20, 1, 1, 12), 1, 0, 1),
    "1x1 odd": ((1, 3, 3, 7), (5, 1, 1, 7), 1, 0, 1),
    "1x1 odd outputs": ((1, 3, 3, 8), (5, 1, 1, 8), 1, 0, 1),
    "1x1 one position": ((1, 1, 1, 8), (10, 1, 1, 8), 1, 0, 1),
    "1x1 stride": ((1, 5, 5, 8), (4, 1, 1, 8), 2, 0, 1),
    "3x3": ((2, 5, 6, 4), (5, 3, 3, 4), 1, 1, 1),
    "3x3 stride": ((1, 6, 5, 8), (3, 3, 3, 8), 2, 1, 1),
    "groups": ((1, 5, 5, 8), (4, 3, 3, 4), 1, 1, 2),
    "depthwise": ((1, 6, 5, 8), (8, 3, 3, 1), 1, 1, 8),
    "depthwise stride": ((2, 7, 7, 12), (12, 5, 5, 1), 2, 2, 12),
    "depthwise even": ((1, 5, 5, 6), (6, 3, 3, 1), 1, 1, 6),
    "depthwise odd": ((1, 5, 5, 5), (5, 3, 3, 1), 1, 1, 5),
    "depthwise large": ((1, 4, 4, 4), (4, 7, 7, 1), 1, 3, 4),
    "depthwise large stride": ((1, 8, 8, 4), (4, 7, 7, 1), 2, 3, 4),
    "one output": ((1, 3, 3, 5), (1, 3, 3, 5), 1, 0, 1),
}


class Case:
    """A convolution's shapes, and random operands of its cotangents, extreme ones among them."""

    def __init__(self, name: str) -> None:
        self.x, self.w, stride, padding, groups = CONVOLUTIONS[name]
        self.window = nn.Window(
            (stride, stride), (padding, padding, padding, padding), (1, 1), groups
        )
        height, width = self.window.output_size(self.x[1:3], self.w[1:3])
        self.dy = (self.x[0], height, width, self.w[0])
        self.attributes = {
            "strides": self.window.strides,
            "padding": self.window.padding,
            "dilation": self.window.dilation,
            "groups": groups,
        }
        self.rng = np.random.default_rng(0)

    def codes(self, shape: tuple[int, ...]) -> np.ndarray:
        return self.rng.integers(-128, 128, shape).astype(np.int8)

    def cotangent(self) -> np.ndarray:
        codes = self.rng.integers(-32767, 32768, self.dy).astype(np.int16)
        codes[..., 0] = 32767
        return codes


@targets
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_input_cotangent(name: str, target: Target) -> None:
    case = Case(name)
    operands = values((case.dy, i16), (case.w, i8))
    op = nn.IntegerConv2dDxOp.make(*operands, input_size=case.x[1:3], **case.attributes)
    arrays = [case.cotangent(), case.codes(case.w)]

    (actual,) = run_op(op, arrays, target)

    assert np.array_equal(actual, reference(op, arrays)[0])


@targets
@pytest.mark.parametrize("zero_point", [0, -128, 5])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_filter_cotangent(name: str, zero_point: int, target: Target) -> None:
    case = Case(name)
    operands = values((case.x, i8), (case.dy, i16))
    op = nn.IntegerConv2dDwOp.make(
        *operands, kernel_size=case.w[1:3], zero_point=zero_point, **case.attributes
    )
    arrays = [case.codes(case.x), case.cotangent()]

    (actual,) = run_op(op, arrays, target)

    assert np.array_equal(actual, reference(op, arrays)[0])


@targets
def test_the_largest_sums_fit(target: Target) -> None:
    """512 * 128 * 32767 is just below 2^31."""
    dy = np.full((1, 1, 1, 512), 32767, np.int16)
    w = np.full((512, 1, 1, 4), -128, np.int8)
    op = nn.IntegerConv2dDxOp.make(
        *values((dy.shape, i16), (w.shape, i8)),
        input_size=[1, 1],
        strides=[1, 1],
        padding=[0] * 4,
        dilation=[1, 1],
        groups=1,
    )

    (actual,) = run_op(op, [dy, w], target)

    assert np.array_equal(actual, np.full((1, 1, 1, 4), -512 * 128 * 32767, np.int32))


@targets
@pytest.mark.parametrize(("source", "to"), [(f32, i16), (i16, f32), (i16, i32)])
def test_cast(source: object, to: object, target: Target) -> None:
    dtypes = {f32: np.float32, i16: np.int16}
    x = np.array([-32767, -1, 0, 300, 32767] * 5, dtypes[source])  # pyright: ignore[reportArgumentType]
    op = nn.CastOp.make(*values((x.shape, source)), to=to)  # pyright: ignore[reportArgumentType]

    (actual,) = run_op(op, [x], target)

    assert np.array_equal(actual, reference(op, [x])[0])
