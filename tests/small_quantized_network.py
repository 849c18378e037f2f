"""A quantised network with every kind of layer, small enough to train on emulated cores."""

from collections.abc import Mapping

import numpy as np
from xdsl.dialects.builtin import i8, i32

from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.quantized_type import QuantizedType, quantized
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, TrainingOptions
from niwaki.passes.instrument import PassRunner
from niwaki.passes.pipelines import training_pipeline

LR = 0.05
OPTIONS: Mapping[str, TrainingOptions] = {
    "sgd": TrainingOptions(optimizer=SGD(lr=LR)),
    "momentum": TrainingOptions(
        optimizer=SGD(lr=LR, momentum=0.9, weight_decay=1e-3), rounding="error_feedback"
    ),
    "adam": TrainingOptions(optimizer=Adam(lr=LR, clip_norm=1.0), rounding="nearest"),
}


def small_network() -> Program:
    """An inverted residual block between a strided stem and a head; images of [2, 8, 8, 3]."""
    return _Network().program()


def samples() -> tuple[np.ndarray, np.ndarray]:
    """A batch of codes and labels."""
    rng = np.random.default_rng(1)
    return rng.integers(-128, 128, (2, 8, 8, 3)).astype(np.int8), np.array([0, 2], np.int32)


def trained(program: Program, options: TrainingOptions, upto: str) -> Program:
    """`program` behind the pass `upto` of the pipeline."""
    program = program.clone()
    passes = training_pipeline(options, get_target("host"))
    names = [p.name for p in passes]
    runner = PassRunner()
    runner.run(NiwakiContext(program.weights), program.module, passes[: names.index(upto) + 1])
    return program


class _Network:
    def __init__(self) -> None:
        self.b = ProgramBuilder()
        self.rng = np.random.default_rng(0)
        self.layers = 0

    def program(self) -> Program:
        b = self.b
        x = b.input([2, 8, 8, 3], QuantizedType.of(i8, 0.02, 3))
        x = self._convolution(x, 8, 3, 2)
        expanded = self._convolution(x, 16, 1)
        filtered = self._convolution(expanded, 16, 5, groups=16)
        y = b.quantized_add(x, self._convolution(filtered, 8, 1), QuantizedType.of(i8, 0.07, -4))
        y = self._convolution(y, 8, 3, 2, groups=8)
        logits = self._convolution(b.quantized_mean(y, [1, 2]), 3, 1, head=True)
        return b.finish(b.reshape(b.dequantize(logits), [2, 3]))

    def _convolution(
        self, x: Value, outputs: int, kernel: int, stride: int = 1, groups: int = 1,
        head: bool = False,
    ) -> Value:  # fmt: skip
        b, rng, name = self.b, self.rng, f"layer{self.layers}"
        self.layers += 1
        inputs = shape_of(x)[3] // groups
        w = rng.integers(-127, 128, (outputs, kernel, kernel, inputs)).astype(np.int8)
        scales = rng.uniform(0.5, 1.5, outputs).astype(np.float32) / np.float32(
            40 * np.sqrt(kernel * kernel * inputs)
        )
        sums = scales * quantized(type_of(x).element_type).scales[0]
        filters = b.weight(f"{name}.weight", w, element=QuantizedType.of(i8, scales, axis=0))
        bias = b.weight(
            f"{name}.bias",
            rng.integers(-99, 100, outputs).astype(np.int32),
            element=QuantizedType.of(i32, sums, axis=0),
        )
        to = QuantizedType.of(i32, sums, axis=3) if head else QuantizedType.of(i8, 0.05, -9)
        return b.quantized_conv2d(x, filters, bias, to, stride, kernel // 2, groups=groups)
