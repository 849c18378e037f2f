"""Ordering channels changes no result, and puts the largest first where the scheme chooses."""

from pathlib import Path

import numpy as np
import pytest

import niwaki
from niwaki.ir import effects
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import train
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import Scheme
from niwaki.passes.order_channels import OrderChannelsPass, order_channels
from niwaki.passes.set_batch import SetBatchPass
from tests import quantized_networks
from tests.training_programs import apply

SCHEME = Scheme(
    weights={"expand.weight": 0.5, "project.weight": 0.25, "dw.weight": 0.5}, order="magnitude"
)


def _block() -> Program:
    """stem - [expand - depthwise - project] + residual - head."""
    rng = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    b = ProgramBuilder()
    x = b.input([2, 6, 6, 3])

    def layer(name: str, x, shape: tuple[int, ...], **window):
        y = b.conv2d(x, b.weight(f"{name}.weight", draw(*shape)), **window)
        return b.add(y, b.weight(f"{name}.bias", draw(shape[0])))

    stem = b.relu6(layer("stem", x, (4, 3, 3, 3), padding=1))
    wide = b.relu6(layer("expand", stem, (8, 1, 1, 4)))
    deep = b.relu6(layer("dw", wide, (8, 3, 3, 1), padding=1, groups=8))
    joined = b.add(layer("project", deep, (4, 1, 1, 8)), stem)
    pooled = b.global_avg_pool(joined)
    head = b.dense(pooled, b.weight("head.weight", draw(5, 4)), b.weight("head.bias", draw(5)))
    return b.finish(head)


def _ordered(program: Program, scheme: Scheme = SCHEME) -> Program:
    program = program.clone()
    order_channels(program.module, program.weights, scheme)
    effects.verify(program.module)
    return program


def test_the_network_computes_the_same() -> None:
    program = _block()
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)

    (before,) = run(program, "forward", [x])
    (after,) = run(_ordered(program), "forward", [x])

    # Sums over channels run in another order.
    np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "axis"), [("project.weight", 3), ("expand.weight", 3)])
def test_the_largest_channels_come_first(name: str, axis: int) -> None:
    scheme = Scheme(weights={name: 0.5}, order="magnitude")
    weight = _ordered(_block(), scheme).weights[name]

    norms = np.sqrt((weight**2).sum(axis=tuple(a for a in range(4) if a != axis)))
    assert np.all(np.diff(norms) <= 1e-6)
    assert np.any(weight != _block().weights[name])


def test_what_reads_and_makes_the_channels_agrees() -> None:
    program = _ordered(_block(), Scheme(weights={"project.weight": 0.5}, order="magnitude"))
    orders = {
        op.key: op.channel_orders
        for op in program.module.walk()
        if isinstance(op, train.ParameterOp) and op.channel_orders
    }

    (order,) = {o for found in orders.values() for o in found if o}
    places = {(key, axis) for key, found in orders.items() for axis, o in enumerate(found) if o}
    assert sorted(order) == list(range(8))
    assert places == {
        ("project.weight", 3), ("dw.weight", 0), ("dw.bias", 0),
        ("expand.weight", 0), ("expand.bias", 0),
    }  # fmt: skip


def test_channels_of_inputs_and_outputs_stay() -> None:
    scheme = Scheme(weights={"stem.weight": 0.5}, order="magnitude")
    before = _block()
    after = _ordered(before, scheme)

    assert str(after.module) == str(before.module)


def test_the_pass_reads_a_scheme_file(tmp_path: Path) -> None:
    path = tmp_path / "scheme.toml"
    path.write_text('order = "magnitude"\n[weights]\n"project.weight" = 0.5\n')
    program = _block()
    by_pass = apply(program, OrderChannelsPass(str(path)))

    expected = _ordered(program, Scheme(weights={"project.weight": 0.5}, order="magnitude"))
    assert str(by_pass.module) == str(expected.module)


def test_training_moves_the_largest_channels_and_shows_them_in_the_models_order() -> None:
    program = _block()
    step = niwaki.compile(program, update=SCHEME, optimizer=niwaki.SGD(lr=0.05))
    x = np.random.default_rng(1).standard_normal((2, 6, 6, 3)).astype(np.float32)
    names = ("expand.weight", "project.weight", "dw.weight")
    before = {name: program.weights[name] for name in names}
    np.testing.assert_allclose(step.infer(x), run(program, "forward", [x])[0], rtol=1e-4, atol=1e-4)

    step(x, np.array([1, 3], np.int32))

    moved = {n: step.parameters[n] != before[n] for n in names}
    first = np.argsort(-_shares(before), kind="stable").tolist()
    assert set(np.flatnonzero(moved["project.weight"].any(axis=(0, 1, 2)))) == set(first[:2])
    # A channel whose activation is 0 everywhere has no gradient.
    assert set(np.flatnonzero(moved["dw.weight"].any(axis=(1, 2, 3)))) <= set(first[:4])


def _shares(weights: dict[str, np.ndarray]) -> np.ndarray:
    """What each wide channel has of the norms of the layers that choose among them."""
    project = np.sqrt((weights["project.weight"] ** 2).sum(axis=(0, 1, 2)))
    deep = np.sqrt((weights["dw.weight"] ** 2).sum(axis=(1, 2, 3)))
    return project / project.sum() + deep / deep.sum()


def test_quantised_networks_give_the_same_bits() -> None:
    if quantized_networks.find_data("mcunet-5fps-int8.npz") is None:
        pytest.skip("the pretrained networks are not beside this checkout")
    program = apply(quantized_networks.load("mcunet-5fps", 10, resolution=32), SetBatchPass(1))
    scheme = Scheme(weights={"24": 0.25, "27": 0.5, "29": 0.5}, order="magnitude")
    x = np.random.default_rng(0).integers(-128, 128, (1, 32, 32, 3)).astype(np.int8)
    ordered = _ordered(program, scheme)

    assert str(ordered.module) != str(program.module)
    assert np.array_equal(run(ordered, "forward", [x])[0], run(program, "forward", [x])[0])
