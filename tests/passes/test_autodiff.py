"""Autodiff: leading boxes, shared parameters, what it refuses, and that it stays linear."""

from collections.abc import Callable

import numpy as np
import pytest
from xdsl.dialects.builtin import FileLineColLoc, IntAttr, StringAttr
from xdsl.ir import SSAValue

from niwaki.ir import effects
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import ints, shape_of
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Scheme
from niwaki.passes.autodiff import AutodiffPass, differentiate
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.cse import CsePass
from niwaki.passes.dce import DcePass
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.select_updates import SelectUpdatesPass
from tests.training_programs import apply, in_float64, op_names, training_program

Build = Callable[[ProgramBuilder, SSAValue, SSAValue], SSAValue]

IMAGE = (2, 5, 5, 4)


def _program(build: Build, x: tuple[int, ...], w: tuple[int, ...]) -> Program:
    """The mean of the squares of `build(b, x, w)`, for a parameter w, is the loss."""
    random = np.random.default_rng(0)
    b = ProgramBuilder()
    y = build(b, b.input(x), b.weight("w", random.standard_normal(w).astype(np.float32)))
    mean = b.reduce_mean(b.mul(y, y), range(len(shape_of(y))))
    return b.finish(b.reshape(mean, ()))


def _step(program: Program, box: tuple[int, ...]) -> tuple[Program, np.ndarray]:
    """The training program that updates `box` of w by its gradient, and w after a step."""
    trained = apply(in_float64(program), BuildTrainingPass("output"))
    function = trained.function("train_step")
    for op in function.body.block.ops:
        if isinstance(op, train.ParameterOp):
            op.properties["update"] = ints(box)
    differentiate(function, SGD(1.0))
    effects.verify(trained.module)
    x = np.random.default_rng(1).standard_normal(shape_of(function.body.block.args[0]))
    state: dict[str, np.ndarray] = {}
    run(trained, "train_step", [x, np.float64(1.0)], state)
    return trained, state["w"]


BOXES: dict[str, tuple[Build, tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = {
    "inputs": (lambda b, x, w: b.conv2d(x, w, 2, 1), IMAGE, (6, 3, 3, 4), (6, 3, 3, 1)),
    "outputs": (lambda b, x, w: b.conv2d(x, w), IMAGE, (6, 3, 3, 4), (2, 3, 3, 3)),
    "window": (lambda b, x, w: b.conv2d(x, w), IMAGE, (6, 3, 3, 4), (6, 2, 1, 4)),
    "grouped": (lambda b, x, w: b.conv2d(x, w, groups=2), IMAGE, (6, 3, 3, 2), (4, 3, 3, 1)),
    "depthwise": (lambda b, x, w: b.conv2d(x, w, 1, 1, 1, 4), IMAGE, (4, 3, 3, 1), (3, 3, 3, 1)),
    "multiplier": (lambda b, x, w: b.conv2d(x, w, groups=4), IMAGE, (8, 3, 3, 1), (6, 3, 3, 1)),
    "odd-multiplier": (lambda b, x, w: b.conv2d(x, w, groups=4), IMAGE, (8, 3, 3, 1), (3, 3, 3, 1)),
    "dense": (lambda b, x, w: b.dense(x, w), (3, 4), (5, 4), (5, 2)),
    "dense-untransposed": (lambda b, x, w: b.matmul(x, w), (3, 4), (4, 5), (2, 5)),
    "left": (lambda b, x, w: b.matmul(w, x), (4, 5), (3, 4), (2, 3)),
    "transposed-left": (lambda b, x, w: b.matmul(x, w, True, True), (4, 3), (5, 4), (2, 3)),
    "twice": (lambda b, x, w: b.add(b.dense(x, w), b.mul(x, b.exp(w))), (4, 4), (4, 4), (4, 3)),
}


@pytest.mark.parametrize("name", BOXES)
def test_gradient_of_a_box_is_the_box_of_the_gradient(name: str) -> None:
    build, x, w, box = BOXES[name]
    program = _program(build, x, w)
    start = program.weights["w"]
    inside = tuple(slice(size) for size in box)
    _, whole = _step(program, w)
    _, part = _step(program, box)
    assert np.abs(whole - start).min() > 0
    np.testing.assert_allclose(part[inside], whole[inside], rtol=1e-12)
    part[inside] = start[inside]
    np.testing.assert_array_equal(part, start)


@pytest.mark.parametrize("name", ["inputs", "outputs", "depthwise", "multiplier", "dense"])
def test_a_box_costs_no_more_than_its_size(name: str) -> None:
    build, x, w, box = BOXES[name]
    trained, _ = _step(_program(build, x, w), box)
    products = [
        shape_of(op.results[0])
        for op in trained.function("train_step").body.block.ops
        if isinstance(op, nn.Conv2dDwOp | nn.MatmulOp)
    ]
    assert products[-1] == box


def test_a_parameter_that_is_read_twice_gets_one_update() -> None:
    array = np.ones((3, 3), np.float32)
    b = ProgramBuilder()
    x = b.input([2, 3])
    y = b.dense(b.dense(x, b.weight("w", array)), b.weight("w", array))
    program = training_program(b.finish(y), SGD(0.1), loss="mse")
    assert op_names(program.function("train_step")).count("train.sgd") == 1


def test_a_parameter_without_influence_is_not_updated() -> None:
    b = ProgramBuilder()
    x = b.input([2, 3])
    w, mask = (b.weight(n, np.ones(3, np.float32)) for n in ("w", "mask"))
    y = b.select(b.compare(mask, x, "gt"), b.mul(x, w), x)
    trained = training_program(b.finish(y), SGD(0.1), loss="mse")
    state: dict[str, np.ndarray] = {}
    x_value = np.full((2, 3), 0.5, np.float32)
    run(trained, "train_step", [x_value, 0 * x_value, np.float32(0.1)], state)
    assert set(state) == {"w"}
    ops = trained.function("train_step").body.block.ops
    marks = {op.key: op.update_box for op in ops if isinstance(op, train.ParameterOp)}
    assert marks == {"w": (3,), "mask": None}


def test_nothing_to_update_is_refused() -> None:
    b = ProgramBuilder()
    program = apply(b.finish(b.neg(b.input([2, 2]))), BuildTrainingPass("mse"))
    with pytest.raises(UsageError, match="does not depend on any parameter"):
        differentiate(program.function("train_step"), SGD(0.1))


def test_an_operation_without_gradient_is_refused() -> None:
    b = ProgramBuilder()
    x = b.input([1, 4, 4, 2])
    w = b.weight("w", np.ones((1, 2, 2, 2), np.float32))
    pool = nn.MaxPool2dOp.make(x, kernel_size=[2, 2], strides=[2, 2], padding=[0, 0, 0, 0])
    b.insert(pool)
    attributes = {**pool.properties, "input_size": ints([4, 4])}
    y = b.one(nn.MaxPool2dGradOp.make(w, pool.index, **attributes))
    with pytest.raises(UsageError, match=r"'nn.max_pool2d_grad' .*has no gradient"):
        training_program(b.finish(y), SGD(0.1), loss="mse")


def test_unknown_optimizer_is_refused() -> None:
    b = ProgramBuilder()
    y = b.mul(b.input([2, 2]), b.weight("w", np.ones(2, np.float32)))
    with pytest.raises(UsageError, match="unknown optimizer 'lion': use sgd, adam or adamw"):
        apply(b.finish(y), BuildTrainingPass("mse"), SelectUpdatesPass(), AutodiffPass("lion"))


def test_locations_are_kept() -> None:
    """A gradient has the location of the operation that it is the gradient of."""
    b = ProgramBuilder()
    x = b.input([2, 3])
    w = b.weight("w", np.ones((4, 3), np.float32))
    b.location = FileLineColLoc(StringAttr("model.py"), IntAttr(12), IntAttr(1))
    program = training_program(b.finish(b.dense(x, w)), SGD(0.1), loss="mse")
    gradient = [op for op in program.function("train_step").walk() if isinstance(op, nn.MatmulOp)]
    assert [op.location for op in gradient] == [b.location, b.location]


def test_deep_networks_need_no_recursion() -> None:
    b = ProgramBuilder()
    x = b.input([1, 2])
    w = b.weight("w", np.ones(2, np.float32))
    for _ in range(1001):
        x = b.relu(b.mul(x, w))
    program = training_program(b.finish(x), SGD(0.1), Scheme.full(), loss="mse")
    for step in (ExpandUpdatesPass(), DecomposePass(), CsePass(), DcePass()):
        step.apply(NiwakiContext(), program.module)
    assert op_names(program.function("train_step")).count("nn.compare") == 1001


@pytest.mark.parametrize("name", ["max", "min"])
def test_a_mask_of_a_late_parameter_stands_behind_its_read(name: str) -> None:
    b = ProgramBuilder()
    x, w = b.input([2, 3]), b.weight("w", np.ones((4, 3), np.float32))
    y = b.dense(x, w)
    bound = b.weight("bound", np.ones(4, np.float32))
    program = training_program(b.finish(getattr(b, name)(y, bound)), SGD(0.1), loss="mse")
    ops = op_names(program.function("train_step"))
    mask = ops.index("nn.compare")
    assert ops.index("nn.matmul") < ops.index("train.parameter", 1) < mask
    assert mask < ops.index("nn.mse")
