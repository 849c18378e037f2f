"""The gradient of every operation against central differences in a random direction."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from xdsl.ir import SSAValue

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import i32, ints, shape_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD
from niwaki.passes.autodiff import active_values
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.gradients import NOT_DIFFERENTIABLE, RULES, quantized
from tests.training_programs import in_float64, training_program

Build = Callable[..., SSAValue]


@dataclass(frozen=True)
class Case:
    """`build(b, *parameters)`; every parameter is differentiated."""

    name: str
    build: Build
    shapes: Sequence[tuple[int, ...]]
    positive: bool = False


SMALL = (2, 3, 4)
IMAGE = (2, 7, 6, 4)


def _unary(name: str, build: Build, positive: bool = False) -> Case:
    return Case(name, build, [SMALL], positive)


def _conv(name: str, filters: tuple[int, ...], shape: tuple[int, ...] = IMAGE, **window) -> Case:
    return Case(f"conv2d-{name}", lambda b, x, w: b.conv2d(x, w, **window), [shape, filters])


def _matmul(a: tuple[int, int], c: tuple[int, int], ta: bool, tb: bool) -> Case:
    return Case(f"matmul-{ta}-{tb}", lambda b, x, y: b.matmul(x, y, ta, tb), [a, c])


def _avg_pool_grad(b: ProgramBuilder, dy: SSAValue) -> SSAValue:
    return b.one(
        nn.AvgPool2dGradOp.make(
            dy,
            kernel_size=[3, 2],
            strides=[2, 2],
            padding=[1, 0, 1, 0],
            count_include_pad=False,
            input_size=[7, 6],
        )
    )


def _batch_norm_train(b: ProgramBuilder, x: SSAValue, gamma: SSAValue, beta: SSAValue) -> SSAValue:
    return b.insert(nn.BatchNormTrainOp.make(x, gamma, beta, epsilon=1e-3)).results[0]


def _labels(b: ProgramBuilder, x: SSAValue) -> SSAValue:
    return b.cross_entropy(x, b.constant(2, (5,), i32))


def _soft_labels(b: ProgramBuilder, x: SSAValue) -> SSAValue:
    target = np.random.default_rng(5).random((5, 4), np.float32)
    return b.cross_entropy(x, b.weight("target", target, fixed=True))


def _indices(b: ProgramBuilder) -> SSAValue:
    """One index twice, one outside."""
    indices = np.array([[0, 2, 0], [3, -1, 4]], np.int32)
    return b.weight("indices", indices, fixed=True)


STRIDED = nn.Window((2, 1), (1, 0, 1, 1), (1, 2), 2)
BROADCASTS = ([(4,), SMALL], [SMALL, (3, 1)], [(2, 1, 4), (1, 3, 1)], [SMALL, ()], [SMALL, SMALL])

CASES = [
    *(
        Case(f"{name}-{'-'.join(str(len(s)) for s in shapes)}-{i}", build, shapes, name == "div")
        for i, shapes in enumerate(BROADCASTS)
        for name, build in (
            ("add", lambda b, x, y: b.add(x, y)),
            ("sub", lambda b, x, y: b.sub(x, y)),
            ("mul", lambda b, x, y: b.mul(x, y)),
            ("div", lambda b, x, y: b.div(x, y)),
            ("max", lambda b, x, y: b.max(x, y)),
            ("min", lambda b, x, y: b.min(x, y)),
            ("select", lambda b, x, y: b.select(b.compare(x, y, "gt"), b.exp(y), b.neg(x))),
        )
    ),
    Case(
        "select-broadcast-mask",
        lambda b, m, x, y: b.select(b.compare(m, b.constant(0.0), "lt"), x, y),
        [(3, 1), (4,), (2, 1, 1)],
    ),
    _unary("neg", lambda b, x: b.neg(x)),
    _unary("abs", lambda b, x: b.abs(x)),
    _unary("exp", lambda b, x: b.exp(x)),
    _unary("log", lambda b, x: b.log(x), positive=True),
    _unary("sqrt", lambda b, x: b.sqrt(x), positive=True),
    _unary("rsqrt", lambda b, x: b.rsqrt(x), positive=True),
    _unary("erf", lambda b, x: b.erf(x)),
    _unary("relu", lambda b, x: b.relu(x)),
    _unary("relu6", lambda b, x: b.relu6(b.mul(x, b.constant(6.0)))),
    _unary("leaky_relu", lambda b, x: b.leaky_relu(x, 0.1)),
    _unary("leaky_relu-negative", lambda b, x: b.leaky_relu(x, -0.5)),
    _unary("sigmoid", lambda b, x: b.sigmoid(x)),
    _unary("tanh", lambda b, x: b.tanh(x)),
    _unary("hard_sigmoid", lambda b, x: b.hard_sigmoid(b.mul(x, b.constant(3.0)))),
    _unary("hard_swish", lambda b, x: b.hard_swish(b.mul(x, b.constant(3.0)))),
    _unary("silu", lambda b, x: b.silu(x)),
    _unary("softplus", lambda b, x: b.softplus(x)),
    _unary("gelu", lambda b, x: b.gelu(x)),
    _unary("gelu-tanh", lambda b, x: b.gelu(x, "tanh")),
    _unary("square", lambda b, x: b.mul(x, x)),
    _unary("residual", lambda b, x: b.add(x, b.mul(b.tanh(x), b.add(x, b.exp(x))))),
    _conv("plain", (5, 3, 3, 4)),
    _conv("pointwise", (5, 1, 1, 4)),
    _conv("stride", (5, 3, 3, 4), strides=2, padding=1),
    _conv("uneven", (5, 3, 2, 4), strides=(2, 1), padding=(1, 0, 2, 1)),
    _conv("dilation", (5, 3, 2, 4), dilation=(2, 3), padding=2),
    _conv("groups", (6, 3, 3, 2), groups=2, padding=1),
    _conv("groups-stride", (6, 2, 3, 2), groups=2, strides=2, dilation=2, padding=2),
    _conv("depthwise", (4, 3, 3, 1), groups=4, padding=1),
    _conv("depthwise-stride", (4, 3, 3, 1), groups=4, strides=2, padding=1),
    _conv("depthwise-multiplier", (8, 3, 3, 1), groups=4),
    _conv("large-window", (3, 7, 6, 4)),
    _conv("rest", (3, 2, 2, 4), strides=3),
    Case(
        "conv2d_dx",
        lambda b, dy, w: b.conv2d_dx(dy, w, STRIDED, [7, 6]),
        [(2, 4, 5, 6), (6, 3, 2, 2)],
    ),
    Case("conv2d_dw", lambda b, x, dy: b.conv2d_dw(x, dy, STRIDED, [3, 2]), [IMAGE, (2, 4, 5, 6)]),
    _matmul((3, 4), (4, 5), False, False),
    _matmul((3, 4), (5, 4), False, True),
    _matmul((4, 3), (4, 5), True, False),
    _matmul((4, 3), (5, 4), True, True),
    *(
        Case(
            f"matmul-stack-{ta}-{tb}",
            lambda b, x, y, ta=ta, tb=tb: b.matmul(x, y, ta, tb),
            [(2, 3, 4, 5) if ta else (2, 3, 5, 4), (2, 3, 6, 4) if tb else (2, 3, 4, 6)],
        )
        for ta in (False, True)
        for tb in (False, True)
    ),
    Case("gather", lambda b, x: b.gather(x, _indices(b)), [(4, 3)]),
    Case("scatter_add", lambda b, x: b.scatter_add(x, _indices(b), 4), [(2, 3, 5)]),
    Case("max_pool2d", lambda b, x: b.max_pool2d(x, 2, 2), [IMAGE]),
    Case("max_pool2d-overlap", lambda b, x: b.max_pool2d(x, (3, 2), (2, 1), (1, 0, 1, 1)), [IMAGE]),
    Case("avg_pool2d", lambda b, x: b.avg_pool2d(x, 2, 2), [IMAGE]),
    Case("avg_pool2d-overlap", lambda b, x: b.avg_pool2d(x, 3, (2, 1), 1, True), [IMAGE]),
    Case("avg_pool2d-border", lambda b, x: b.avg_pool2d(x, 3, 2, 1, False), [IMAGE]),
    Case("avg_pool2d_grad", _avg_pool_grad, [(2, 4, 3, 4)]),
    Case("global_avg_pool", lambda b, x: b.global_avg_pool(x), [IMAGE]),
    *(
        Case(f"{name}-{axes}", build(axes), [SMALL])
        for axes in ((0,), (1, 2), (0, 1, 2))
        for name, build in (
            ("reduce_sum", lambda axes: lambda b, x: b.reduce_sum(x, axes)),
            ("reduce_mean", lambda axes: lambda b, x: b.reduce_mean(x, axes)),
            ("reduce_max", lambda axes: lambda b, x: b.reduce_max(x, axes)),
        )
    ),
    Case("reshape", lambda b, x: b.reshape(x, [4, 6]), [SMALL]),
    Case("broadcast", lambda b, x: b.broadcast(x, [2, 3, 4]), [(3, 1)]),
    Case("transpose", lambda b, x: b.transpose(x, [2, 0, 1]), [SMALL]),
    Case("pad", lambda b, x: b.pad(x, [1, 0, 2], [0, 1, 1], [0, 2, 1], 3.0), [SMALL]),
    Case("slice", lambda b, x: b.slice(x, [0, 1, 0], [2, 2, 2], [1, 1, 3]), [SMALL]),
    Case("concat", lambda b, x, y, z: b.concat([x, y, x, z], 1), [SMALL, (2, 1, 4), (2, 2, 4)]),
    Case("softmax", lambda b, x: b.softmax(x, 1), [SMALL]),
    Case("log_softmax", lambda b, x: b.log_softmax(x), [SMALL]),
    Case("cross_entropy", _labels, [(5, 4)]),
    Case("cross_entropy-soft", _soft_labels, [(5, 4)]),
    Case("mse", lambda b, x, y: b.mse(x, y), [SMALL, SMALL]),
    Case("bce", lambda b, x, y: b.bce_with_logits(x, y), [SMALL, SMALL]),
    Case(
        "batch_norm",
        lambda b, x, g, h, m, v: b.batch_norm(x, g, h, b.neg(m), b.exp(v), epsilon=1e-3),
        [IMAGE, (4,), (4,), (4,), (4,)],
    ),
    Case("layer_norm", lambda b, x, g, h: b.layer_norm(x, g, h, 1e-3), [SMALL, (4,), (4,)]),
    Case("rms_norm", lambda b, x, g: b.rms_norm(x, g, 1e-3), [SMALL, (4,)]),
    Case("batch_norm_train", _batch_norm_train, [IMAGE, (4,), (4,)]),
    Case("batch_norm_train-rows", _batch_norm_train, [(6, 4), (4,), (4,)]),
]


def _program(case: Case) -> Program:
    """A forward program whose output is a random linear functional of the case's result."""
    random = np.random.default_rng(7)
    b = ProgramBuilder()
    parameters: list[SSAValue] = []
    for i, shape in enumerate(case.shapes):
        array = random.standard_normal(shape).astype(np.float32)
        parameters.append(b.weight(f"p{i}", np.abs(array) + 0.5 if case.positive else array))
    y = case.build(b, *parameters)
    direction = random.standard_normal(shape_of(y)).astype(np.float32)
    weighted = b.mul(y, b.weight("direction", np.asarray(direction, np.float32), fixed=True))
    total = b.reduce_sum(weighted, range(len(shape_of(y))))
    return b.finish(b.reshape(total, ()))


def _gradients(program: Program) -> dict[str, np.ndarray]:
    """The gradient of the output with respect to each parameter, as a step of rate 1 shows it."""
    trained = training_program(program, SGD(lr=1.0), loss="output")
    state: dict[str, np.ndarray] = {}
    run(trained, "train_step", [np.float32(1.0)], state)
    return {name: program.weights[name].astype(state[name].dtype) - state[name] for name in state}


def _slope(program: Program, directions: dict[str, np.ndarray], step: float = 1e-6) -> float:
    """The derivative of the output along `directions` by central differences."""
    ends = [
        run(program, "forward", [], {n: program.weights[n] + s * d for n, d in directions.items()})
        for s in (step, -step)
    ]
    return float(ends[0][0] - ends[1][0]) / (2 * step)


@pytest.mark.parametrize("case", CASES, ids=[c.name for c in CASES])
def test_gradient_is_the_central_difference(case: Case) -> None:
    narrow = _program(case)
    wide = in_float64(narrow)
    gradients = {np.float64: _gradients(wide), np.float32: _gradients(narrow)}
    random = np.random.default_rng(11)
    for i, shape in enumerate(case.shapes):
        name = f"p{i}"
        direction = random.standard_normal(shape)
        slope = _slope(wide, {name: direction})
        for dtype, tolerance in ((np.float64, 1e-6), (np.float32, 2e-3)):
            gradient = gradients[dtype].get(name, np.zeros(shape)).astype(np.float64)
            along = float(np.sum(gradient * direction))
            scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
            assert along == pytest.approx(slope, abs=tolerance * max(scale, 1e-3)), (name, dtype)


def test_every_operation_has_a_rule_or_a_reason() -> None:
    ops = set(nn.NN.operations)
    assert set(RULES) | set(NOT_DIFFERENTIABLE) == ops
    assert not set(RULES) & set(NOT_DIFFERENTIABLE)


def test_cases_reach_every_differentiable_operand() -> None:
    reached: set[tuple[type, int]] = set()
    expected: set[tuple[type, int]] = set()
    for case in CASES:
        program = _program(case)
        BuildTrainingPass("output").apply(None, program.module)
        ops = list(program.function("train_step").body.block.ops)
        for op in ops:
            if isinstance(op, train.ParameterOp) and op.fixed is None:
                op.properties["update"] = ints(shape_of(op.value))
        active = active_values(ops)
        for op in ops:
            if type(op) in RULES:
                expected |= {(type(op), i) for i in range(len(op.operands))}
                reached |= {(type(op), i) for i, v in enumerate(op.operands) if v in active}
    # Rounding has no slope: tests/passes/test_quantized.py differentiates what is rounded.
    elsewhere = {nn.DropoutOp, *quantized.RULES}
    assert {op for op, _ in expected} == set(RULES) - elsewhere
    integers = {(nn.CrossEntropyOp, 1), (nn.GatherOp, 1), (nn.ScatterAddOp, 1)}
    assert expected - reached == {(nn.SelectOp, 0), *integers}
