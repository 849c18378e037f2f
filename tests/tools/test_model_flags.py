"""What the flags of every compiling command mean."""

import argparse

import pytest

from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.tools.model_flags import add_model_flags, options_of


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("", TrainingOptions()),
        (
            "--rounding nearest --no-quantization-aware-scaling --seed 7",
            TrainingOptions(rounding="nearest", scaling=False, seed=7),
        ),
        (
            "--loss mse --update head --lr 0.1 --momentum 0.9",
            TrainingOptions("mse", SGD(0.1, 0.9), Scheme.head_only()),
        ),
    ],
)
def test_options(flags: str, expected: TrainingOptions) -> None:
    parser = argparse.ArgumentParser()
    add_model_flags(parser)

    assert options_of(parser.parse_args(["model.onnx", *flags.split()])) == expected
