"""Fusion of whole training steps: results, order, and what must not be in memory."""

from functools import cache

import numpy as np
import pytest

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import i1, shape_of, tensor, tensor_bytes, type_of
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Optimizer, Scheme
from niwaki.passes.canonicalize import CanonicalizePass
from niwaki.passes.constant_fold import ConstantFoldPass
from niwaki.passes.cse import CsePass
from niwaki.passes.dce import DcePass
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.dependences import ANCHORS
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.fuse import FusePass
from niwaki.passes.fusion.groups import MAX_OPS, MAX_VALUES
from tests import networks
from tests.training_programs import apply, training_program

NETWORKS = {
    "lenet": lambda: networks.lenet(2, 20),
    "mobilenet_v2": lambda: networks.mobilenet_v2(1, 32),
    "resnet18": lambda: networks.resnet18(2, 48, batch_norm="training", width=4),
}
RECIPES: dict[str, tuple[Optimizer, Scheme]] = {
    "sgd": (SGD(0.1), Scheme.full()),
    "nesterov": (SGD(0.1, 0.9, nesterov=True, weight_decay=0.01), Scheme.last_layers(4)),
    "adam clipped": (Adam(0.1, clip_norm=1.0), Scheme.full()),
    "bias": (SGD(0.1), Scheme.bias()),
    "channels": (SGD(0.1), Scheme.channels({1: 0.5, 2: 0.25}, 3)),
}


@cache
def _unfused(network: str, recipe: str) -> Program:
    optimizer, scheme = RECIPES[recipe]
    return apply(
        training_program(NETWORKS[network](), optimizer, scheme),
        *(ExpandUpdatesPass(), DecomposePass(), CanonicalizePass()),
        *(ConstantFoldPass(), CsePass(), DcePass()),
    )


def _step(program: Program) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    x, labels, _ = (shape_of(a) for a in program.function("train_step").body.block.args)
    random = np.random.default_rng(0)
    state: dict[str, np.ndarray] = {}
    inputs = (random.standard_normal(x), random.integers(0, 10, labels), 0.1)
    (loss,) = run(program, "train_step", inputs, state)
    return loss, state


def _groups(program: Program) -> list[nn.FusedOp]:
    return [op for op in program.function("train_step").walk() if isinstance(op, nn.FusedOp)]


CASES = [
    *(("lenet", recipe) for recipe in RECIPES),
    *(("mobilenet_v2", r) for r in ("sgd", "adam clipped", "bias")),
    *(("resnet18", r) for r in ("sgd", "nesterov")),
]


@pytest.mark.parametrize(("network", "recipe"), CASES)
def test_training_step_stays(network: str, recipe: str) -> None:
    program = _unfused(network, recipe)
    fused = apply(program, FusePass())
    loss, state = _step(program)
    fused_loss, fused_state = _step(fused)
    assert fused_loss == loss
    assert list(fused_state) != []
    assert fused_state.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(fused_state[name], array, err_msg=name)


@pytest.mark.parametrize(("network", "recipe"), CASES)
def test_groups_are_kernels(network: str, recipe: str) -> None:
    fused = apply(_unfused(network, recipe), FusePass())
    for group in _groups(fused):
        members = list(group.body.block.ops)
        assert sum(isinstance(op, ANCHORS) for op in members) <= 1
        assert len(group.operands) + len(group.results) <= MAX_VALUES
        assert all(isinstance(op, (*ANCHORS, nn.Elementwise, nn.ConstantOp)) for op in members[:-1])
    again = apply(_unfused(network, recipe), FusePass())
    assert str(again.module) == str(fused.module)


@pytest.mark.parametrize("network", ["lenet", "mobilenet_v2", "resnet18"])
def test_sgd_leaves_no_gradient_of_a_weight_in_memory(network: str) -> None:
    fused = apply(_unfused(network, "sgd"), FusePass())
    block = fused.function("train_step").body.block
    assert not any(isinstance(op, nn.Conv2dDwOp) for op in block.ops)
    for op in block.ops:
        if isinstance(op, train.AssignOp) and len(shape_of(op.value)) in (2, 4):
            producer = op.value.owner
            assert isinstance(producer, nn.FusedOp)
            kinds = {type(inner) for inner in producer.body.block.ops}
            assert kinds & {nn.Conv2dDwOp, nn.MatmulOp}
            # Whatever else reads the weight comes before: the update may write in place.
            users = [use.operation for use in op.target.uses if use.operation is not op]
            assert all(u is producer or u.is_before_in_block(producer) for u in users)


@pytest.mark.parametrize(("recipe", "masks"), [("sgd", 0), ("bias", 34)])
def test_masks_are_kept_only_where_the_activation_dies(recipe: str, masks: int) -> None:
    """With frozen weights the backward pass reads 34 masks; else the activations are there."""
    fused = apply(_unfused("mobilenet_v2", recipe), FusePass())
    block = fused.function("train_step").body.block
    kept = [r for op in block.ops for r in op.results if type_of(r).element_type == i1]
    assert len(kept) == masks
    for mask in kept:
        assert isinstance(mask.owner, nn.FusedOp)
        assert any(isinstance(op, nn.Conv2dOp) for op in mask.owner.body.block.ops)


@pytest.mark.parametrize(
    ("network", "recipe", "bound"), [("lenet", "sgd", 50), ("mobilenet_v2", "sgd", 270)]
)
def test_number_of_kernels(network: str, recipe: str, bound: int) -> None:
    fused = apply(_unfused(network, recipe), FusePass())
    free = (train.Storage, train.AssignOp, nn.ConstantOp, nn.ReshapeOp)
    kernels = [op for op in fused.function("train_step").body.block.ops if not isinstance(op, free)]
    assert len(kernels) <= bound


def test_updates_that_read_each_other_are_not_in_place() -> None:
    """The gradient of a is made of b, and that of b of a: neither can go last."""
    b = ProgramBuilder()
    x = b.input([4, 4])
    first, second = (b.weight(n, np.eye(4, dtype=np.float32) * (i + 2)) for i, n in enumerate("ab"))
    for target, other in ((first, second), (second, first)):
        b.assign(target, b.sub(target, b.matmul(x, other)))
    program = b.finish(x)
    # Both are read before either is written.
    block = program.function("forward").body.block
    early, *_ = [op for op in block.ops if isinstance(op, train.AssignOp)]
    early.detach()
    block.insert_op_before(early, block.last_op)
    fused = apply(program, FusePass())
    states: list[dict[str, np.ndarray]] = [{}, {}]
    ones = np.ones((4, 4))
    for each, state in zip((program, fused), states, strict=True):
        run(each, "forward", [ones], state)
    assert states[0].keys() == {"a", "b"}
    for name in "ab":
        np.testing.assert_array_equal(states[0][name], states[1][name])


def test_a_long_chain_is_cut_into_kernels() -> None:
    b = ProgramBuilder()
    y = x = b.input([8])
    for _ in range(300):
        y = b.tanh(b.add(y, x))
    program = b.finish(y)
    fused = apply(program, FusePass())
    groups = [op for op in fused.function("forward").walk() if isinstance(op, nn.FusedOp)]
    sizes = [len(list(group.body.block.ops)) - 1 for group in groups]
    assert sum(sizes) == 600
    assert max(sizes) <= MAX_OPS
    ones = [np.linspace(-1, 1, 8)]
    np.testing.assert_array_equal(run(fused, "forward", ones), run(program, "forward", ones))


@pytest.mark.parametrize(
    ("shape", "element", "size"),
    [([2, 3], None, 24), ([2, 9], i1, 4), ([], i1, 1), ([], None, 4)],
)
def test_tensor_bytes(shape, element, size: int) -> None:
    kind = tensor(shape) if element is None else tensor(shape, element)
    assert tensor_bytes(kind) == size


def test_attention_keeps_probabilities_and_not_their_exponentials_too() -> None:
    b = ProgramBuilder()
    x = b.input([6, 8])
    w, v = (b.weight(name, np.eye(8, dtype=np.float32)) for name in "wv")
    scores = b.matmul(b.dense(x, w), x, transpose_b=True)
    program = b.finish(b.dense(b.matmul(b.softmax(scores), x), v))
    passes = (ExpandUpdatesPass(), DecomposePass(), CsePass(), FusePass())
    fused = apply(training_program(program, SGD(lr=0.1)), *passes)
    quotients = [
        op
        for op in fused.function("train_step").body.block.walk()
        if isinstance(op, nn.DivOp) and shape_of(op.y) == (6, 6)
    ]
    assert len(quotients) == 1
