"""The options of quantised training, through the public face."""

import numpy as np
import pytest
from xdsl.dialects.builtin import i8, i32

import niwaki
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects.quantized_type import QuantizedType

X = np.random.default_rng(0).normal(size=(4, 1, 1, 6)).astype(np.float32)
Y = np.array([0, 1, 2, 1], np.int32)
SCALES = np.array([0.01, 0.02, 0.03], np.float32)


@pytest.fixture(scope="module")
def program() -> niwaki.Program:
    """One quantised layer."""
    b = ProgramBuilder()
    x = b.quantize(b.input([4, 1, 1, 6]), QuantizedType.of(i8, 0.02))
    w = np.arange(-9, 9).reshape(3, 1, 1, 6).astype(np.int8)
    sums = SCALES * np.float32(0.02)
    logits = b.quantized_conv2d(
        x,
        b.weight("head.weight", w, element=QuantizedType.of(i8, SCALES, axis=0)),
        b.weight("head.bias", np.zeros(3, np.int32), element=QuantizedType.of(i32, sums, axis=0)),
        QuantizedType.of(i32, sums, axis=3),
    )
    return b.finish(b.reshape(b.dequantize(logits), [4, 3]))


def _codes(program: niwaki.Program, **options: object) -> bytes:
    """The weight's after two steps."""
    optimizer = niwaki.SGD(lr=0.1)
    step = niwaki.compile(program, optimizer=optimizer, **options)  # pyright: ignore[reportArgumentType]
    for _ in range(2):
        step(X, Y)
    return step.parameters["head.weight"].tobytes()


def test_every_option_counts(program: niwaki.Program) -> None:
    options: list[dict[str, object]] = [
        {},
        {"seed": 1},
        {"rounding": "error_feedback"},
        {"rounding": "nearest", "quantization_aware_scaling": False},
    ]
    assert len({_codes(program, **chosen) for chosen in options}) == len(options)


def test_same_seed_same_codes(program: niwaki.Program) -> None:
    assert _codes(program, seed=3) == _codes(program, seed=3)


def test_unknown_rounding(program: niwaki.Program) -> None:
    with pytest.raises(niwaki.UsageError, match="unknown rounding 'up': use stochastic"):
        niwaki.compile(program, rounding="up")
