"""What the backward pass of each operation keeps: as few bits as its gradient needs, exactly."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import pytest

from niwaki.backends.targets import get_target
from niwaki.ir.builder import Builder, ProgramBuilder, Value
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.training_programs import training_program

SHAPE = (2, 8, 8, 16)
ELEMENTS = int(np.prod(SHAPE))


Layer: TypeAlias = Callable[[Builder, Value], Value]


def _kept_bits(layer: Layer) -> float:
    """Bits kept for each input element of `layer`, behind which only a sum is taken."""
    b = ProgramBuilder()
    x = b.add(b.input(SHAPE), b.weight("shift", np.zeros(SHAPE[-1], np.float32)))
    y = layer(b, x)
    output = b.reshape(b.reduce_sum(y, range(len(shape_of(y)))), ())
    program = training_program(b.finish(output), SGD(0.1), loss="output")
    block = program.function("train_step").body.block
    assert block.last_op is not None
    ops = list(block.ops)
    loss = block.last_op.operands[0]
    end = 1 + next(i for i, op in enumerate(ops) if loss in op.results)
    late = set(ops[end:-1])
    kept = [
        result
        for op in ops[:end]
        if not isinstance(op, train.Storage | nn.ConstantOp)
        for result in op.results
        if any(use.operation in late for use in result.uses)
    ]
    return 8 * sum(tensor_bytes(type_of(value)) for value in kept) / ELEMENTS


LAYERS: dict[str, tuple[float, Layer]] = {
    "relu": (1, lambda b, x: b.relu(x)),
    "relu6": (1, lambda b, x: b.relu6(x)),
    "leaky_relu": (1, lambda b, x: b.leaky_relu(x, 0.1)),
    "hard_sigmoid": (1, lambda b, x: b.hard_sigmoid(x)),
    "abs": (2, lambda b, x: b.abs(x)),
    "max": (1, lambda b, x: b.max(x, b.neg(x))),
    "dropout": (1, lambda b, x: b.dropout(x, 0.5, seed=1)),
    "max_pool2d": (8 / 4, lambda b, x: b.max_pool2d(x, 2, 2)),
    "avg_pool2d": (0, lambda b, x: b.avg_pool2d(x, 2, 2)),
    "global_avg_pool": (0, lambda b, x: b.global_avg_pool(x)),
    "neg": (0, lambda b, x: b.neg(x)),
    "sigmoid": (32, lambda b, x: b.sigmoid(x)),
    "tanh": (32, lambda b, x: b.tanh(x)),
    "exp": (32, lambda b, x: b.exp(x)),
    "softmax": (32, lambda b, x: b.softmax(x)),
    "hard_swish": (32, lambda b, x: b.hard_swish(x)),
    "silu": (32, lambda b, x: b.silu(x)),
}
"""Bits for each element of the input, and a layer."""
OF_THE_SQUARE: dict[str, Layer] = {
    "sigmoid": lambda b, x: b.sigmoid(b.mul(x, x)),
    "tanh": lambda b, x: b.tanh(b.mul(x, x)),
    "softmax": lambda b, x: b.softmax(b.mul(x, x)),
    "sqrt": lambda b, x: b.sqrt(b.mul(x, x)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_bits_kept_for_each_element(name: str) -> None:
    bits, layer = LAYERS[name]
    assert _kept_bits(layer) == bits


@pytest.mark.parametrize("name", OF_THE_SQUARE)
def test_gradients_from_the_result_free_the_operand(name: str) -> None:
    """The square keeps x and the function its own result, but nobody the square."""
    assert _kept_bits(OF_THE_SQUARE[name]) == 2 * 32


def test_cross_entropy_holds_its_logits_once() -> None:
    rows, classes = 64, 4096
    b = ProgramBuilder()
    head = b.weight("head", np.ones((classes, 8), np.float32))
    program = b.finish(b.dense(b.input([rows, 8]), head))
    options = TrainingOptions(optimizer=SGD(0.1))
    logits = 4 * rows * classes
    assert compile_program(program, options, get_target("cortex-m7")).arena_bytes < 1.1 * logits
