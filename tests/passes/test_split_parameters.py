"""split-parameters: the same steps, with only what they write in the state."""

from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.backends.c.saved_state import model_hash, pack, unpack
from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import get_ints, ints, shape_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.passes.autodiff import differentiate
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.pipelines import Techniques, compile_program
from niwaki.passes.planner import Planner
from niwaki.passes.split_parameters import SplitParametersPass
from tests.networks import lenet
from tests.random_networks import SPECS, Spec, build, inputs
from tests.training_programs import apply, training_program

Array = np.ndarray
OPTIMIZER = SGD(0.1, momentum=0.5, weight_decay=0.1)


def _steps(program: Program, arrays: list[Array]) -> tuple[list[Array], dict[str, Array]]:
    """Losses of two steps, and all parameters after them."""
    state: dict[str, Array] = {}
    losses = [
        run(program, "train_step", [*arrays, np.float32(0.05)], state)[0].copy() for _ in range(2)
    ]
    return losses, {**program.weights, **state}


def _reads(program: Program) -> list[train.ParameterOp]:
    return [op for op in program.module.walk() if isinstance(op, train.ParameterOp)]


def _assembled(program: Program, arrays: dict[str, Array]) -> dict[str, Array]:
    """The parts put together."""
    wholes: dict[str, Array] = {}
    parts = [op for op in _reads(program) if op.whole is not None]
    for op in parts:
        assert op.whole is not None
        starts = get_ints(op.properties, "starts")
        ends = [s + n for s, n in zip(starts, shape_of(op.value), strict=True)]
        old = wholes.get(op.whole.data, np.zeros(ends, np.float32))
        whole = np.full(np.maximum(old.shape, ends), np.nan, np.float32)
        whole[tuple(slice(0, n) for n in old.shape)] = old
        whole[tuple(map(slice, starts, ends))] = arrays[op.key]
        wholes[op.whole.data] = whole
    return wholes


def _check(before: Program, arrays: list[Array]) -> Program:
    after = apply(before, SplitParametersPass())
    losses, parameters = _steps(before, arrays)
    split_losses, parts = _steps(after, arrays)
    assert all(map(np.array_equal, losses, split_losses))
    for name, whole in _assembled(after, parts).items():
        assert np.array_equal(whole, parameters[name]), name
    return after


@settings(max_examples=30)
@given(SPECS, st.sampled_from([0.25, 0.5, 1.0]))
def test_steps_stay_the_same(spec: Spec, ratio: float) -> None:
    scheme = Scheme(weights={"0": ratio})
    program = apply(training_program(build(spec), OPTIMIZER, scheme), ExpandUpdatesPass())
    after = _check(program, list(inputs("cross_entropy")))
    for op in _reads(after):
        box = op.update_box
        assert box is None or box == shape_of(op.value)


def test_a_box_may_cut_several_dimensions() -> None:
    b = ProgramBuilder()
    x = b.input([2, 6])
    w = b.weight("w", np.arange(30, dtype=np.float32).reshape(5, 6) / 30)
    program = apply(b.finish(b.dense(x, w)), BuildTrainingPass("mse"))
    function = program.function("train_step")
    for op in function.body.block.ops:
        if isinstance(op, train.ParameterOp):
            op.properties["update"] = ints([2, 4])
    differentiate(function, OPTIMIZER)
    arrays = [np.ones((2, 6), np.float32), np.zeros((2, 5), np.float32)]
    after = _check(apply(program, ExpandUpdatesPass()), arrays)
    sizes = {op.key: shape_of(op.value) for op in _reads(after)}
    assert sizes == {"w": (2, 4), "w.frozen0": (3, 4), "w.frozen1": (5, 2)}
    assert sum(map(prod, sizes.values())) == 30
    joined = [op for op in after.function("train_step").body.block.ops if type(op) is nn.ConcatOp]
    assert len(joined) == 2 * 1  # The forward pass alone reads the whole: two cut dimensions.


def test_cores_keep_only_the_box_in_their_state_and_save_the_same_bytes() -> None:
    scheme = Scheme(weights={"1": 0.5})
    options = TrainingOptions(scheme=scheme)
    host, core = (
        compile_program(lenet(2, 12), options, get_target(target))
        for target in ("host", "cortex-m4")
    )
    (whole,) = (e for e in host.state if e.updated not in (None, e.shape))
    (box,) = (e for e in core.state if e.name == whole.name)
    assert box.shape == whole.updated != whole.shape
    assert model_hash(core) == model_hash(host)
    state = core.state_image.array()
    data = pack(core, state, 0.5)
    assert data == pack(host, host.state_image.array(), 0.5)
    restored = np.zeros_like(state)
    assert unpack(core, data, restored, "here") == 0.5
    assert restored[box.offset : box.offset + 4 * prod(box.shape)].any()


@pytest.mark.parametrize(("layer", "split"), [("1", False), ("2", True)])
def test_weights_are_stored_in_parts_where_that_takes_less(layer: str, split: bool) -> None:
    """In the middle of a small network a copy of a weight lies on top of the peak."""
    target, options = get_target("cortex-m4"), TrainingOptions(scheme=Scheme(weights={layer: 0.5}))
    plan = Planner(lenet(2, 12), options, target).plan(Techniques())
    assert plan.techniques.split_parameters is split
    sizes = [
        lowered.arena_bytes + len(lowered.state_image)
        for techniques in (Techniques(), Techniques(split_parameters=False))
        for lowered in [compile_program(lenet(2, 12), options, target, techniques=techniques)]
    ]
    assert plan.bytes == min(sizes) < max(sizes)
