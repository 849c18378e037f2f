"""Random small networks: every pass keeps what the interpreter computes, and gradients are right.

A network is drawn as a plain list of (kind, number) pairs and built in the test.
"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xdsl.ir import SSAValue
from xdsl.passes import ModulePass

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme
from niwaki.passes.cse import CsePass
from niwaki.passes.dce import DcePass
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from tests.training_programs import apply, in_float64, training_program

Spec = list[tuple[int, int]]
Array = np.ndarray

OPTIMIZERS: list[Optimizer] = [
    SGD(0.1),
    SGD(0.1, momentum=0.5, nesterov=True, weight_decay=0.1),
    Adam(0.1, epsilon=1e-2, weight_decay=0.1, clip_norm=0.1),
    AdamW(0.1, epsilon=1e-2, weight_decay=0.1),
]
SCHEMES = [
    Scheme.full(),
    Scheme.bias(),
    Scheme.head_only(),
    Scheme.last_layers(2),
    Scheme(weights={"0": 0.5}),
]
LOSSES = ["cross_entropy", "cross_entropy_soft", "mse", "bce"]
PASSES: list[list[ModulePass]] = [
    [ExpandUpdatesPass()],
    [DecomposePass()],
    [CsePass()],
    [DcePass()],
    [ExpandUpdatesPass(), DecomposePass(), CsePass(), DcePass()],
]

SPECS = st.lists(st.tuples(st.integers(0, 13), st.integers(0, 11)), max_size=6)


class _Net:
    """Builds a network out of a spec; weights are drawn in order."""

    def __init__(self) -> None:
        self.b = ProgramBuilder()
        self.random = np.random.default_rng(0)

    def weight(self, *shape: int, offset: float = 0.0) -> SSAValue:
        array = self.random.standard_normal(shape).astype(np.float32) * np.float32(0.5)
        return self.b.weight(f"w{len(self.b.store)}", array + np.float32(offset))

    def conv(self, x: SSAValue, channels: int, kernel: int, groups: int, stride: int) -> SSAValue:
        w = self.weight(channels, kernel, kernel, shape_of(x)[3] // groups)
        y = self.b.conv2d(x, w, stride, kernel // 2, groups=groups)
        return self.b.add(y, self.weight(channels))

    def norm(self, x: SSAValue, training: bool) -> SSAValue:
        c = shape_of(x)[3]
        gamma, beta, mean = self.weight(c, offset=1.0), self.weight(c), self.weight(c)
        return self.b.batch_norm(
            x, gamma, beta, mean, self.weight(c, offset=4.0), training=training
        )

    def layer(self, x: SSAValue, kind: int, n: int) -> SSAValue:
        b, (_, height, _, channels) = self.b, shape_of(x)
        match kind:
            case 0:
                return self.conv(x, 2 + n % 4, 1 + n % 3, 1, 1 + n % 2)
            case 1:
                return self.conv(x, channels, 3, channels, 1 + n % 2)
            case 2:
                return [b.relu, b.relu6, b.hard_swish, b.silu][n % 4](x)
            case 3:
                return [b.sigmoid, b.tanh, b.gelu, b.softplus][n % 4](x)
            case 4:
                return b.leaky_relu(x, 0.1)
            case 5:
                return self.norm(x, training=True)
            case 6:
                return self.norm(x, training=False)
            case 7 if height >= 2:
                return b.max_pool2d(x, 2, 1 + n % 2)
            case 8 if height >= 2:
                return b.avg_pool2d(x, 2, 1 + n % 2, n % 2, n % 3 == 0)
            case 9:
                return b.add(x, b.relu6(self.conv(x, channels, 3, 1, 1)))
            case 10:
                gate = b.sigmoid(b.dense(b.global_avg_pool(x), self.weight(channels, channels)))
                return b.mul(x, b.reshape(gate, [2, 1, 1, channels]))
            case 11:
                return b.dropout(x, 0.25, n)
            case 12:
                return b.concat([x, b.neg(x)], 3) if channels < 8 else x
            case _:
                return b.mul(x, self.weight(channels))

    def program(self, spec: Spec) -> Program:
        x = self.b.input([2, 6, 5, 3])
        for kind, n in [(0, 4), *spec]:
            x = self.layer(x, kind, n)
        x = self.b.global_avg_pool(x)
        return self.b.finish(self.b.dense(x, self.weight(3, shape_of(x)[1]), self.weight(3)))


def _inputs(program: Program) -> list[Array]:
    random = np.random.default_rng(1)
    x, target, _ = program.function("train_step").body.block.args
    labels = random.integers(0, 3, 2).astype(np.int32)
    soft = random.random((2, 3))
    return [
        random.standard_normal(shape_of(x)),
        soft if len(shape_of(target)) == 2 else labels,
        np.float64(0.05),
    ]


def _two_steps(program: Program) -> tuple[list[Array], dict[str, Array]]:
    state: dict[str, Array] = {}
    inputs = _inputs(program)
    outputs = [run(program, "train_step", inputs, state)[0] for _ in range(2)]
    outputs += run(program, "infer", inputs[:1], state)
    outputs += run(program, "evaluate", inputs[:2], state)
    return outputs, state


@settings(max_examples=40)
@given(
    SPECS, st.sampled_from(OPTIMIZERS), st.sampled_from(SCHEMES), st.sampled_from(LOSSES),
)  # fmt: skip
def test_passes_keep_the_results(
    spec: Spec, optimizer: Optimizer, scheme: Scheme, loss: str
) -> None:
    program = training_program(in_float64(_Net().program(spec)), optimizer, scheme, loss)
    outputs, state = _two_steps(program)
    for passes in PASSES:
        new_outputs, new_state = _two_steps(apply(program, *passes))
        assert new_state.keys() == state.keys()
        for got, wanted in zip(
            [*new_outputs, *(new_state[k] for k in state)], [*outputs, *state.values()], strict=True
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-11, err_msg=str(passes))


@settings(max_examples=40)
@given(SPECS, st.sampled_from(LOSSES))
def test_gradient_of_a_network_is_the_central_difference(spec: Spec, loss: str) -> None:
    program = training_program(in_float64(_Net().program(spec)), SGD(1.0), Scheme.full(), loss)
    inputs = [*_inputs(program)[:2], np.float64(1.0)]
    state: dict[str, Array] = {}
    run(program, "train_step", inputs, state)
    boxes = [
        op.key
        for op in program.function("train_step").body.block.ops
        if op.name == "train.parameter" and op.update_box is not None
    ]
    random = np.random.default_rng(2)
    directions = {name: random.standard_normal(program.weights[name].shape) for name in boxes}
    along = sum(np.sum((program.weights[n] - state[n]) * d) for n, d in directions.items())
    step = 1e-6
    ends = [
        run(
            program,
            "train_step",
            inputs,
            {n: program.weights[n] + sign * step * d for n, d in directions.items()},
        )[0]
        for sign in (1, -1)
    ]
    slope = (ends[0] - ends[1]) / (2 * step)
    assert along == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_drawn_networks_train_in_float64() -> None:
    program = in_float64(_Net().program([(9, 1)]))
    assert all("f64" in str(type_of(a)) for a in program.function("forward").body.block.args)
