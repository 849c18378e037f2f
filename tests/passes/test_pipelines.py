"""Whole training steps through every pass and the JIT, against the interpreter on the gradients."""

import numpy as np
import pytest
from numpy.typing import NDArray

from niwaki.ir import interpreter
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme, TrainingOptions
from niwaki.passes.instrument import PassRunner, VerifyEach
from niwaki.passes.pipelines import compile_program, training_pipeline
from tests import networks
from tests.compiled import HOST, Compiled
from tests.training_programs import training_program

VERIFIED = PassRunner([VerifyEach()])


def batch_of(program: Program) -> tuple[NDArray[np.generic], ...]:
    (x,) = program.function("forward").body.block.args
    random = np.random.default_rng(5)
    shape = x.type.get_shape()
    classes = program.function("forward").function_type.outputs.data[0].get_shape()[-1]
    return (
        random.standard_normal(shape).astype(np.float32),
        random.integers(0, classes, shape[0]).astype(np.int32),
    )


def check_training(
    program: Program, optimizer: Optimizer, scheme: Scheme, steps: int = 3
) -> Compiled:
    """Losses and the state of every step, then inference and evaluation."""
    options = TrainingOptions(optimizer=optimizer, scheme=scheme)
    before = str(program.module)
    compiled = Compiled(compile_program(program, options, HOST, instrument=VERIFIED))
    assert str(program.module) == before
    reference = training_program(program, optimizer, scheme)
    x, labels = batch_of(program)
    rate = np.float32(optimizer.lr)
    state: dict[str, NDArray[np.generic]] = {}
    for _ in range(steps):
        expected = interpreter.run(reference, "train_step", [x, labels, rate], state)
        actual = compiled.run("train_step", [x, labels, rate])
        np.testing.assert_allclose(actual[0], expected[0], rtol=1e-4)
    for name, value in compiled.state().items():
        tolerance = 1e-6 + 1e-4 * np.abs(state[name]).max()
        np.testing.assert_allclose(value, state[name], rtol=1e-3, atol=tolerance, err_msg=name)
    for name, inputs in (("infer", [x]), ("evaluate", [x, labels])):
        expected = interpreter.run(reference, name, inputs, state)
        for a, e in zip(compiled.run(name, inputs), expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-3, atol=1e-4)
    return compiled


@pytest.mark.parametrize(
    ("optimizer", "scheme"),
    [
        (SGD(0.05), Scheme.full()),
        (SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01), Scheme.full()),
        (Adam(0.001, clip_norm=1.0), Scheme.bias()),
        (AdamW(0.001), Scheme.last_layers(2)),
        (SGD(0.05, momentum=0.9), Scheme.channels({1: 0.5, 3: 0.25}, biases=3)),
    ],
    ids=["sgd", "nesterov", "adam_clip_bias", "adamw_last", "channels"],
)
def test_lenet(optimizer: Optimizer, scheme: Scheme) -> None:
    compiled = check_training(networks.lenet(2), optimizer, scheme)
    for entry in compiled.lowered.entries.values():
        assert entry.arena_bytes <= 1.15 * entry.bound_bytes
        assert not any(call.kernel.startswith("copy") for call in entry.calls)


def small_residual_network(batch_norm: bool) -> Program:
    def network(net: networks.Net, x: object) -> object:
        y = net.conv("a", x, 8, 3, 1, 1)
        if batch_norm:
            y = net.batch_norm("bn", y, training=True)
        y = net.relu6(y)
        z = net.relu(net.conv("b", y, 8, 3, 1, 1, groups=8))
        return net.dense("fc", net.global_avg_pool(net.add(y, z)), 5)

    net = networks._ProgramNet(0)
    return net.builder.finish(network(net, net.builder.input((3, 6, 6, 3))))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_residual_network(batch_norm: bool) -> None:
    program = small_residual_network(batch_norm)
    compiled = check_training(program, SGD(0.05, momentum=0.9), Scheme.full())
    names = {entry.name for entry in compiled.lowered.state}
    assert ("bn.running_mean" in names) == batch_norm


@pytest.mark.slow
@pytest.mark.parametrize("scheme", [Scheme.full(), Scheme.last_layers(6)], ids=["full", "last"])
def test_mobilenet_v2(scheme: Scheme) -> None:
    compiled = check_training(networks.mobilenet_v2(2, size=32), SGD(0.01), scheme, steps=2)
    entry = compiled.lowered.entries["train_step"]
    assert entry.arena_bytes <= 1.15 * entry.bound_bytes


def test_sparse_updates_keep_less_alive() -> None:
    def arena(scheme: Scheme) -> int:
        options = TrainingOptions(optimizer=SGD(0.01), scheme=scheme)
        lowered = compile_program(networks.lenet(8), options, HOST)
        return lowered.entries["train_step"].arena_bytes

    assert arena(Scheme.last_layers(1)) < arena(Scheme.full())


def test_frozen_parameters_are_constants() -> None:
    options = TrainingOptions(optimizer=SGD(0.01, momentum=0.9), scheme=Scheme.head_only())
    lowered = compile_program(networks.lenet(1), options, HOST)
    assert {e.name: e.kind for e in lowered.state} == {
        "fc3.weight": "parameter",
        "fc3.bias": "parameter",
        "fc3.weight.momentum": "optimizer",
        "fc3.bias.momentum": "optimizer",
    }
    assert {"conv1.weight", "fc2.bias"} <= {e.name for e in lowered.constants}
    image = lowered.constants_image.array()
    for entry in lowered.constants:
        if entry.kind == "parameter":
            array = np.asarray(networks.lenet(1).weights[entry.name])
            assert entry.plain(image).tobytes() == array.tobytes()


def test_batch_and_options() -> None:
    b = ProgramBuilder()
    x = b.input([1, 4])
    program = b.finish(b.dense(x, b.weight("w", np.ones((3, 4), np.float32))))
    lowered = compile_program(program, TrainingOptions(), HOST, batch=5)
    step = lowered.entries["train_step"]
    assert [(p.name, p.shape, p.dtype) for p in step.inputs] == [
        ("x", (5, 4), "float32"),
        ("target", (5,), "int32"),
        ("lr", (), "float32"),
    ]
    with pytest.raises(UsageError, match="unknown batch_norm 'folded': use as_is or fold"):
        training_pipeline(TrainingOptions(), HOST, batch_norm="folded")
