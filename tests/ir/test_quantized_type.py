"""The quantised element type: what it prints, refuses, and says of its codes."""

import numpy as np
import pytest
from xdsl.dialects.builtin import TensorType, f32, i8, i32
from xdsl.parser import Parser
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.quantized_type import QuantizedType, check_fits
from niwaki.ir.dialects.tensor_op import tensor_bytes

CASES = {
    "per-tensor": QuantizedType.of(i8, 0.05, -3),
    "symmetric": QuantizedType.of(i8, 0.25),
    "per-channel": QuantizedType.of(i8, [0.1, 0.2, 3e-9], axis=0),
    "bias": QuantizedType.of(i32, [0.001, 7.0], axis=0),
}


@pytest.mark.parametrize("element", CASES.values(), ids=CASES)
def test_the_printed_type_parses_to_itself(element: QuantizedType) -> None:
    text = str(TensorType(element, [3, 2]))

    assert Parser(NiwakiContext(), text).parse_type() == TensorType(element, [3, 2])


def test_it_prints_scale_and_zero_point() -> None:
    assert str(QuantizedType.of(i8, 0.25, -3)) == "!nn.quantized<i8, 0.25, zero -3>"
    assert str(QuantizedType.of(i8, [0.5, 2.0], axis=1)) == "!nn.quantized<i8, [0.5, 2.0], axis 1>"


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("codes are i8 or i32", (f32, 0.1)),
        ("positive", (i8, 0.0)),
        ("positive", (i8, float("inf"))),
        ("several scales need an axis", (i8, [0.1, 0.2])),
        ("zero point must be 0", (i8, [0.1, 0.2], 1, 0)),
        ("no code of", (i8, 0.1, 128)),
    ],
)
def test_it_refuses_what_makes_no_sense(message: str, arguments: tuple[object, ...]) -> None:
    with pytest.raises(VerifyException, match=message):
        QuantizedType.of(*arguments)  # pyright: ignore[reportArgumentType]


def test_scales_must_fit_the_shape() -> None:
    element = QuantizedType.of(i8, [0.1, 0.2], axis=0)

    check_fits(element, [2, 5])
    with pytest.raises(VerifyException, match="2 scales along axis 0"):
        check_fits(element, [3, 5])


def test_bytes_are_those_of_the_codes() -> None:
    assert tensor_bytes(TensorType(CASES["per-channel"], [3, 4])) == 12
    assert tensor_bytes(TensorType(CASES["bias"], [2])) == 8


def test_scales_broadcast_along_their_axis() -> None:
    assert CASES["per-channel"].broadcast_scales(4).shape == (3, 1, 1, 1)
    assert CASES["per-tensor"].broadcast_scales(4).shape == ()
    assert CASES["per-tensor"].scales == np.float32(0.05)
