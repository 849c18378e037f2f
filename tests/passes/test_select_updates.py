"""Which parameters a scheme marks, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import train
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import Scheme
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.layers import layers_of
from niwaki.passes.select_updates import SelectUpdatesPass, select_updates
from tests import networks
from tests.training_programs import apply


def _boxes(program: Program, scheme: Scheme) -> dict[str, tuple[int, ...]]:
    program = apply(program, BuildTrainingPass())
    select_updates(program.function("train_step"), scheme)
    program.module.verify()
    ops = program.function("train_step").body.block.ops
    return {
        op.key: op.update_box
        for op in ops
        if isinstance(op, train.ParameterOp) and op.update_box is not None
    }


def _grouped() -> Program:
    """A grouped convolution, a free scale, a fixed bias, and a dense layer of shape [I, O]."""
    b = ProgramBuilder()
    x = b.input([2, 4, 4, 4])
    y = b.conv2d(x, b.weight("conv", np.ones((6, 1, 1, 2), np.float32)), groups=2)
    y = b.add(y, b.weight("fixed", np.ones(6, np.float32), fixed=True))
    y = b.mul(y, b.weight("scale", np.ones(6, np.float32)))
    y = b.matmul(b.global_avg_pool(y), b.weight("dense", np.ones((6, 3), np.float32)))
    return b.finish(y)


def test_full_updates_everything_but_running_statistics() -> None:
    program = networks.resnet18(2, 32, batch_norm="training", width=4)
    names = {n for n in program.weights if "running_" not in n}
    assert set(_boxes(program, Scheme.full())) == names


def test_full_includes_free_parameters_but_not_fixed_ones() -> None:
    assert set(_boxes(_grouped(), Scheme.full())) == {"conv", "scale", "dense"}


def test_bias_updates_biases_and_the_head() -> None:
    boxes = _boxes(networks.lenet(1), Scheme.bias())
    assert set(boxes) == {f"{n}.bias" for n in ("conv1", "conv2", "fc1", "fc2", "fc3")} | {
        "fc3.weight"
    }


def test_bias_includes_the_shifts_of_layer_norms() -> None:
    b = ProgramBuilder()
    x, ones = b.input([2, 4]), np.ones(4, np.float32)
    y = b.dense(x, b.weight("w0", np.ones((4, 4), np.float32)))
    y = b.layer_norm(b.add(x, y), b.weight("gamma", ones), b.weight("beta", ones), 1e-5)
    program = b.finish(b.dense(y, b.weight("w1", np.ones((3, 4), np.float32))))
    assert set(_boxes(program, Scheme.bias())) == {"beta", "w1"}
    assert set(_boxes(program, Scheme.last_layers(1))) == {"w1"}


def test_bias_of_a_layer_includes_its_batch_norm() -> None:
    boxes = _boxes(networks.resnet18(2, 32, batch_norm="frozen", width=4), Scheme.last_layers(2))
    assert list(boxes) == [
        "layer4.1.conv2.weight",
        "layer4.1.conv2.bias",
        "layer4.1.conv2_bn.weight",
        "layer4.1.conv2_bn.bias",
        "fc.weight",
        "fc.bias",
    ]


def test_head_updates_the_last_layer() -> None:
    assert _boxes(networks.lenet(1), Scheme.head_only()) == {
        "fc3.weight": (10, 84),
        "fc3.bias": (10,),
    }


def test_channels_are_the_leading_ones() -> None:
    program = networks.mobilenet_v2(1)
    # 42: pointwise [336, 1, 1, 56]; 43: depthwise; 44: [56, 1, 1, 336]; 45 is listed, not updated.
    scheme = Scheme.channels({42: 0.125, 43: 0.5, 44: 0.001, 45: 0}, biases=2)
    assert _boxes(program, scheme) == {
        "blocks.14.pw1.weight": (336, 1, 1, 7),
        "blocks.14.dw.weight": (168, 3, 3, 1),
        "blocks.14.pw2.weight": (56, 1, 1, 1),
        "blocks.16.pw2.bias": (112,),
        "fc.weight": (10, 112),
        "fc.bias": (10,),
    }


def test_layers_are_numbered_in_execution_order() -> None:
    layers = layers_of(networks.mobilenet_v2(1).function("forward").body.block)
    assert [layer.number for layer in layers] == list(range(52))
    assert [layers[i].weight.key for i in (0, 1, 3, 51)] == [
        "stem.weight",
        "blocks.0.dw.weight",
        "blocks.1.pw1.weight",
        "fc.weight",
    ]


def test_layers_are_named_by_weight_too() -> None:
    by_name = Scheme.channels({"fc1.weight": 0.5}, biases=0)
    boxes = _boxes(networks.lenet(1), by_name)
    assert boxes == {"fc1.weight": (120, 200), "fc3.weight": (10, 84)}


def test_dense_weight_without_transposition_has_inputs_first() -> None:
    scheme = Scheme(weights={"dense": 0.5}, biases=0, head=False)
    assert _boxes(_grouped(), scheme) == {"dense": (3, 3)}


def test_selecting_again_forgets_the_first_selection() -> None:
    program = apply(networks.lenet(1), BuildTrainingPass(), SelectUpdatesPass("full"))
    program = apply(program, SelectUpdatesPass("head"))
    ops = program.function("train_step").body.block.ops
    marked = [o.key for o in ops if isinstance(o, train.ParameterOp) and o.update_box is not None]
    assert marked == ["fc3.weight", "fc3.bias"]


def test_scheme_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "scheme.toml"
    path.write_text("biases = 1\n[weights]\n1 = 0.5\n")
    boxes = _boxes(networks.lenet(1), Scheme.parse(str(path)))
    assert set(boxes) == {"conv2.weight", "fc3.weight", "fc3.bias"}
    assert boxes["conv2.weight"] == (16, 5, 5, 3)


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (
            Scheme.channels({7: 1}, 0),
            "layer '7' that there is not; the layers are 0 (conv1.weight)",
        ),
        (Scheme.channels({"conv9": 1}, 0), "layer 'conv9'"),
        (Scheme(weights={}, biases=0, head=False), "updates nothing"),
        (Scheme(layers=0), "updates nothing"),
        (Scheme(weights={"0": 1, "conv1.weight": 0.5}), "twice"),
    ],
)
def test_refused_schemes(scheme: Scheme, message: str) -> None:
    with pytest.raises(UsageError) as error:
        _boxes(networks.lenet(1), scheme)
    assert message in str(error.value)


def test_part_of_a_grouped_convolution_is_refused() -> None:
    with pytest.raises(UsageError, match=r"layer 0 \('conv'\).*whole"):
        _boxes(_grouped(), Scheme.channels({0: 0.5}, 0))


def test_select_updates_needs_a_training_step() -> None:
    with pytest.raises(UsageError, match="build-training"):
        apply(networks.lenet(1), SelectUpdatesPass())
