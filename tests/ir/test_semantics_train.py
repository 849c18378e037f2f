"""Updates against torch.optim over several steps, and what they write."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import Tensor, tensor, to_attribute, type_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from tests.evaluate import evaluate_all

SHAPE = (3, 4)
STEPS = 5
LR = 0.05
# Relative and absolute. Adam's 1 - beta2^t loses up to 5 bits in float32.
SGD_TOLERANCE = 1e-6
ADAM_TOLERANCE = 2e-5


def _weights() -> np.ndarray:
    return np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)


def _gradients() -> Iterator[np.ndarray]:
    rng = np.random.default_rng(2)
    for _ in range(STEPS):
        yield rng.normal(size=SHAPE).astype(np.float32)


def _program(
    update: Callable[[ProgramBuilder, Value, Value, Value], None], box: tuple[int, ...] = SHAPE
) -> Program:
    """@forward(gradient, lr) that updates "w"."""
    b = ProgramBuilder()
    gradient, lr = b.input(box), b.input([])
    update(b, b.weight("w", _weights()), gradient, lr)
    return b.finish(lr)


def _sgd(
    momentum: float = 0.0, weight_decay: float = 0.0, nesterov: bool = False
) -> Callable[[ProgramBuilder, Value, Value, Value], None]:
    def update(b: ProgramBuilder, parameter: Value, gradient: Value, lr: Value) -> None:
        velocity = [b.state("velocity", type_of(gradient))] if momentum else []
        b.insert(
            train.SgdOp.create(
                operands=[parameter, gradient, lr, *velocity],
                properties={
                    "momentum": to_attribute(momentum),
                    "weight_decay": to_attribute(weight_decay),
                    "nesterov": to_attribute(nesterov),
                },
            )
        )

    return update


def _adam(
    weight_decay: float, decoupled: bool
) -> Callable[[ProgramBuilder, Value, Value, Value], None]:
    beta1, beta2 = 0.8, 0.99

    def update(b: ProgramBuilder, parameter: Value, gradient: Value, lr: Value) -> None:
        like: Tensor = type_of(gradient)
        mean, variance = b.state("mean", like), b.state("variance", like)
        powers = [b.state(f"power{i}", tensor([]), beta) for i, beta in ((1, beta1), (2, beta2))]
        products = [
            b.mul(power, b.constant(beta))
            for power, beta in zip(powers, (beta1, beta2), strict=True)
        ]
        b.insert(
            train.AdamOp.create(
                operands=[parameter, gradient, lr, mean, variance, *powers],
                properties={
                    "beta1": to_attribute(beta1),
                    "beta2": to_attribute(beta2),
                    "epsilon": to_attribute(1e-3),
                    "weight_decay": to_attribute(weight_decay),
                    "decoupled": to_attribute(decoupled),
                },
            )
        )
        for power, product in zip(powers, products, strict=True):
            b.assign(power, product)

    return update


def _agrees(
    program: Program, make: Callable[[list[torch.Tensor]], torch.optim.Optimizer], tolerance: float
) -> None:
    theirs = torch.tensor(_weights(), requires_grad=True)
    optimizer = make([theirs])
    state: dict[str, Any] = {}
    for gradient in _gradients():
        run(program, "forward", [gradient, LR], state)
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        assert state["w"].dtype == np.float32
        np.testing.assert_allclose(state["w"], theirs.detach(), rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(program.weights["w"], _weights())


@pytest.mark.parametrize(
    ("momentum", "weight_decay", "nesterov"),
    [(0.0, 0.0, False), (0.0, 0.1, False), (0.9, 0.0, False), (0.9, 0.1, False), (0.9, 0.1, True)],
)
def test_sgd(momentum: float, weight_decay: float, nesterov: bool):
    _agrees(
        _program(_sgd(momentum, weight_decay, nesterov)),
        lambda p: torch.optim.SGD(
            p, LR, momentum=momentum, weight_decay=weight_decay, nesterov=nesterov
        ),
        SGD_TOLERANCE,
    )


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam(decoupled: bool, weight_decay: float):
    torch_optimizer = torch.optim.AdamW if decoupled else torch.optim.Adam
    _agrees(
        _program(_adam(weight_decay, decoupled)),
        lambda p: torch_optimizer(p, LR, betas=(0.8, 0.99), eps=1e-3, weight_decay=weight_decay),
        ADAM_TOLERANCE,
    )


@pytest.mark.parametrize("update", [_sgd(0.9, 0.1, True), _adam(0.1, False), _adam(0.1, True)])
def test_only_the_leading_box_is_written(
    update: Callable[[ProgramBuilder, Value, Value, Value], None],
):
    box = (2, 3)
    whole_state: dict[str, Any] = {}
    box_state: dict[str, Any] = {}
    for gradient in _gradients():
        run(_program(update), "forward", [gradient, LR], whole_state)
        run(_program(update, box), "forward", [gradient[:2, :3], LR], box_state)
    np.testing.assert_array_equal(box_state["w"][:2, :3], whole_state["w"][:2, :3])
    np.testing.assert_array_equal(box_state["w"][2:], _weights()[2:])
    np.testing.assert_array_equal(box_state["w"][:, 3:], _weights()[:, 3:])


@pytest.mark.parametrize("max_norm", [0.5, 1e6])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clip_by_norm(dtype: type, max_norm: float):
    rng = np.random.default_rng(3)
    gradients = [rng.normal(size=shape).astype(dtype) for shape in ((3, 4), (), (5,))]

    def build(b: ProgramBuilder, *values: Value) -> list[Value]:
        op = train.ClipByNormOp.create(
            operands=values,
            properties={"max_norm": to_attribute(max_norm)},
            result_types=[v.type for v in values],
        )
        return list(b.insert(op).results)

    ours = evaluate_all(build, *gradients)
    theirs = [torch.zeros(g.shape, dtype=torch.tensor(g).dtype) for g in gradients]
    for parameter, gradient in zip(theirs, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    for our, their in zip(ours, theirs, strict=True):
        assert our.dtype == dtype
        assert their.grad is not None
        np.testing.assert_allclose(our, their.grad, rtol=1e-6)


def test_reads_see_the_start_of_the_step():
    b = ProgramBuilder()
    x = b.input([2])
    before = b.state("s", tensor([2]), 1.0)
    b.assign(before, x)
    after = b.state("s", tensor([2]), 1.0)
    program = b.finish(after)
    state: dict[str, Any] = {}
    (first,) = run(program, "forward", [[5.0, 6.0]], state)
    np.testing.assert_array_equal(first, [1, 1])
    np.testing.assert_array_equal(state["s"], [5, 6])
    held = state["s"]
    (second,) = run(program, "forward", [[7.0, 8.0]], state)
    np.testing.assert_array_equal(second, [5, 6])
    np.testing.assert_array_equal(held, [5, 6])


def test_an_assigned_value_is_no_alias_of_the_input():
    b = ProgramBuilder()
    x = b.input([2])
    b.assign(b.state("s", tensor([2])), x)
    program = b.finish(x)
    array, state = np.ones(2, np.float32), {}
    run(program, "forward", [array], state)
    array[:] = 9
    np.testing.assert_array_equal(state["s"], [1, 1])
