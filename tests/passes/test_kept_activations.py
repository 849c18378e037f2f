"""What the backward pass of each operation keeps: as few bits as its gradient needs, exactly."""

from collections.abc import Callable

import numpy as np
import pytest

from niwaki.ir.builder import Builder, ProgramBuilder, Value
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.ir.training import SGD
from tests.training_programs import training_program

SHAPE = (2, 8, 8, 16)
ELEMENTS = int(np.prod(SHAPE))


def _kept_bits(layer: Callable[[Builder, Value], Value]) -> float:
    """Bits kept for each input element of `layer`, behind which only a sum is taken."""
    b = ProgramBuilder()
    x = b.add(b.input(SHAPE), b.weight("shift", np.zeros(SHAPE[-1], np.float32)))
    y = layer(b, x)
    output = b.reshape(b.reduce_sum(y, range(len(shape_of(y)))), ())
    program = training_program(b.finish(output), SGD(0.1), loss="output")
    block = program.function("train_step").body.block
    assert block.last_op is not None
    ops = list(block.ops)
    end = ops.index(block.last_op.operands[0].owner) + 1
    late = set(ops[end:-1])
    kept = [
        result
        for op in ops[:end]
        if not isinstance(op, train.Storage | nn.ConstantOp)
        for result in op.results
        if any(use.operation in late for use in result.uses)
    ]
    return 8 * sum(tensor_bytes(type_of(value)) for value in kept) / ELEMENTS


@pytest.mark.parametrize(
    ("bits", "layer"),
    [
        pytest.param(1, lambda b, x: b.relu(x), id="relu"),
        pytest.param(1, lambda b, x: b.relu6(x), id="relu6"),
        pytest.param(1, lambda b, x: b.leaky_relu(x, 0.1), id="leaky_relu"),
        pytest.param(1, lambda b, x: b.hard_sigmoid(x), id="hard_sigmoid"),
        pytest.param(2, lambda b, x: b.abs(x), id="abs"),
        pytest.param(1, lambda b, x: b.max(x, b.neg(x)), id="max"),
        pytest.param(1, lambda b, x: b.dropout(x, 0.5, seed=1), id="dropout"),
        pytest.param(8 / 4, lambda b, x: b.max_pool2d(x, 2, 2), id="max_pool2d"),
        pytest.param(0, lambda b, x: b.avg_pool2d(x, 2, 2), id="avg_pool2d"),
        pytest.param(0, lambda b, x: b.global_avg_pool(x), id="global_avg_pool"),
        pytest.param(0, lambda b, x: b.neg(x), id="neg"),
        pytest.param(32, lambda b, x: b.sigmoid(x), id="sigmoid"),
        pytest.param(32, lambda b, x: b.tanh(x), id="tanh"),
        pytest.param(32, lambda b, x: b.exp(x), id="exp"),
        pytest.param(32, lambda b, x: b.softmax(x), id="softmax"),
        pytest.param(32, lambda b, x: b.hard_swish(x), id="hard_swish"),
        pytest.param(32, lambda b, x: b.silu(x), id="silu"),
    ],
)
def test_bits_kept_for_each_element(bits: float, layer: Callable[[Builder, Value], Value]) -> None:
    assert _kept_bits(layer) == bits


@pytest.mark.parametrize(
    "layer",
    [
        pytest.param(lambda b, x: b.sigmoid(b.mul(x, x)), id="sigmoid"),
        pytest.param(lambda b, x: b.tanh(b.mul(x, x)), id="tanh"),
        pytest.param(lambda b, x: b.softmax(b.mul(x, x)), id="softmax"),
        pytest.param(lambda b, x: b.sqrt(b.mul(x, x)), id="sqrt"),
    ],
)
def test_gradients_from_the_result_free_the_operand(
    layer: Callable[[Builder, Value], Value],
) -> None:
    """The square keeps x and the function its own result, but nobody the square."""
    assert _kept_bits(layer) == 2 * 32
