"""Imported torch.export programs compute what torch computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from xdsl.dialects.builtin import FileLineColLoc, NameLoc

import niwaki
from niwaki.frontends import torch_export
from niwaki.ir.dialects import nn as nn_dialect
from niwaki.ir.dialects import train
from niwaki.ir.errors import UnsupportedOpsError, UsageError
from niwaki.ir.program import Program
from tests.exporting import check_outputs, export, save
from tests.torch_models import (
    Activations,
    Attentions,
    Contractions,
    Elementwise,
    InPlace,
    Losses,
    MobileNet,
    Pools,
    ResNet,
    Shapes,
    randomise_statistics,
)
from tests.transformers import TINY, Decoder, Encoder

MODELS = {
    "elementwise": (Elementwise, [(2, 3, 4, 5), (2, 3, 4, 5)]),
    "activations": (Activations, [(2, 3, 4, 5)]),
    "shapes": (Shapes, [(2, 3, 4, 6)]),
    "pools": (Pools, [(2, 3, 9, 8)]),
    "contractions": (Contractions, [(3, 4, 8, 9)]),
    "in_place": (InPlace, [(2, 3, 6, 6)]),
    "mobilenet": (MobileNet, [(2, 3, 16, 16)]),
    "resnet": (ResNet, [(2, 3, 8, 8)]),
}


def ops(program: Program, kind: type) -> list:
    return [op for op in program.module.walk() if isinstance(op, kind)]


@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_outputs(name: str, decompose: bool, tmp_path: Path) -> None:
    model, shapes = MODELS[name]
    torch.manual_seed(0)
    built = randomise_statistics(model()).eval()
    inputs = tuple(torch.randn(shape) for shape in shapes)
    path = save(export(built, inputs, decompose), tmp_path / "model.pt2")
    check_outputs(torch_export.load(path), inputs, built(*inputs))


TRANSFORMERS = {
    "encoder": (lambda: Encoder(TINY), [(2, 7)]),
    "decoder": (lambda: Decoder(TINY), [(2, 7)]),
    "attentions": (Attentions, [(2, 5)]),
}


@pytest.mark.parametrize("decompose", [False, True])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_transformers(name: str, decompose: bool, tmp_path: Path) -> None:
    model, shapes = TRANSFORMERS[name]
    built = model().eval()
    torch.manual_seed(0)
    inputs = tuple(torch.randint(0, TINY.vocabulary, shape) for shape in shapes)
    path = save(export(built, inputs, decompose), tmp_path / "model.pt2")
    check_outputs(torch_export.load(path), inputs, built(*inputs))


def test_heads_need_no_transpose_of_their_own() -> None:
    tokens = torch.zeros(2, 7, dtype=torch.int64)
    program = torch_export.from_exported_program(export(Encoder(TINY), (tokens,)))
    # Queries, keys, values and the result: a key is never transposed once more for its product.
    assert len(ops(program, nn_dialect.TransposeOp)) == 4 * TINY.layers


def test_a_padding_row_never_changes() -> None:
    tokens = torch.tensor([[0, 3, 1, 3, 2]])
    program = torch_export.from_exported_program(export(Attentions(), (tokens,)))
    step = niwaki.compile(program, loss="output", optimizer=niwaki.SGD(lr=0.1))
    tables = "zero.weight", "kept.weight"
    before = [np.array(step.parameters[name]) for name in tables]
    step(tokens.numpy().astype(np.int32))
    for name, array in zip(tables, before, strict=True):
        moved = np.any(step.parameters[name] != array, -1)
        assert list(np.flatnonzero(moved)) == [0, 1, 2], name


def test_losses() -> None:
    inputs = (torch.randn(4, 5), torch.tensor([0, 4, 2, 2]))
    exported = export(Losses(), inputs)
    check_outputs(torch_export.from_exported_program(exported), inputs, Losses()(*inputs))


@pytest.mark.parametrize("decompose", [False, True])
def test_training_mode(decompose: bool) -> None:
    torch.manual_seed(0)
    model, x = randomise_statistics(MobileNet()), torch.randn(2, 3, 16, 16)
    program = torch_export.from_exported_program(export(model.train(), (x,), decompose))
    norms = ops(program, nn_dialect.BatchNormOp)
    assert norms
    assert all(norm.training.value.data for norm in norms)
    assert norms[0].momentum.value.data == pytest.approx(0.2)
    assert [op.rate.value.data for op in ops(program, nn_dialect.DropoutOp)] == [0.25]
    assert program.notes == []
    # Outside a training step, batch norms use the running statistics and dropout does nothing.
    check_outputs(program, (x,), model.eval()(x))


def test_frozen_batch_norm_is_noted() -> None:
    program = torch_export.from_exported_program(
        export(ResNet().eval(), (torch.randn(1, 3, 8, 8),))
    )
    assert not any(n.training.value.data for n in ops(program, nn_dialect.BatchNormOp))
    (note,) = program.notes
    assert "2 batch norm(s)" in note


def test_parameters() -> None:
    model = ResNet().eval()
    model.stem.weight.requires_grad_(False)
    program = torch_export.from_exported_program(export(model, (torch.randn(1, 3, 8, 8),)))
    stored = {op.key: op for op in ops(program, train.ParameterOp)}
    weight = stored["conv1.weight"]
    np.testing.assert_array_equal(
        program.weights["conv1.weight"],
        model.conv1.weight.detach().numpy().transpose(0, 2, 3, 1),
    )
    assert weight.source_permutation is not None
    assert weight.source_permutation.get_values() == (0, 2, 3, 1)
    fixed = {name for name, op in stored.items() if op.fixed is not None}
    assert fixed == {
        "stem.weight", "bn1.running_mean", "bn1.running_var", "bn2.running_mean", "bn2.running_var"
    }  # fmt: skip


def test_linear_needs_no_transpose() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    program = torch_export.from_exported_program(export(model, (torch.randn(2, 3),), True))
    assert ops(program, nn_dialect.TransposeOp) == []
    assert program.weights["0.weight"].shape == (4, 3)


def test_one_channel_image_is_reshaped() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    program = torch_export.from_exported_program(export(model, (torch.randn(1, 1, 5, 5),)))
    assert ops(program, nn_dialect.TransposeOp) == []


def test_locations() -> None:
    program = torch_export.from_exported_program(
        export(ResNet().eval(), (torch.randn(1, 3, 8, 8),))
    )
    location = ops(program, nn_dialect.Conv2dOp)[1].location
    assert isinstance(location, NameLoc)
    assert location.desc.data == "conv1"
    assert isinstance(location.location, FileLineColLoc)
    assert location.location.filename.data.endswith("torch_models.py")


def test_all_unsupported_operations_at_once() -> None:
    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.special.i0(x).cumsum(1)
            torch.special.i0(x)  # dead: never reported
            return torch.max_pool2d(x, 2, dilation=2).cos()

    with pytest.raises(UnsupportedOpsError) as caught:
        torch_export.from_exported_program(export(Strange(), (torch.randn(1, 1, 8, 8),)))
    assert [name.split(" ")[0] for name, _ in caught.value.ops] == [
        "aten.special_i0.default", "aten.cumsum.default", "aten.max_pool2d.default",
        "aten.cos.default",
    ]  # fmt: skip
    assert all("test_torch_export.py:" in place for _, place in caught.value.ops)


def test_in_place_through_a_view_is_refused() -> None:
    class Aliased(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = x * 2
            y.flatten().relu_()
            return y + 1

    inputs = (torch.randn(2, 3),)
    with pytest.raises(UnsupportedOpsError, match="in-place"):
        torch_export.from_exported_program(export(Aliased(), inputs))
    decomposed = torch_export.from_exported_program(export(Aliased(), inputs, decompose=True))
    check_outputs(decomposed, inputs, Aliased()(*inputs))


def test_dynamic_batch_becomes_one() -> None:
    model, batch = MobileNet().eval(), torch.export.Dim("batch")
    exported = export(model, (torch.randn(2, 3, 8, 8),), dynamic_shapes=({0: batch},))
    program = torch_export.from_exported_program(exported)
    x = torch.randn(1, 3, 8, 8)
    check_outputs(program, (x,), model(x))
    assert any("dynamic" in note for note in program.notes)


def test_other_dynamic_dimensions_are_refused() -> None:
    exported = export(
        nn.ReLU(), (torch.randn(2, 3, 8, 8),), dynamic_shapes=({2: torch.export.Dim("height")},)
    )
    with pytest.raises(UsageError, match="dimension 2 of input 'input'"):
        torch_export.from_exported_program(exported)


def test_other_precisions_are_refused() -> None:
    exported = export(nn.Linear(2, 2).double(), (torch.randn(1, 2).double(),))
    with pytest.raises(UsageError, match="float32"):
        torch_export.from_exported_program(exported)


def test_strided_and_shared_weights(tmp_path: Path) -> None:
    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            whole = torch.randn(4, 6)
            self.a = nn.Parameter(whole.t())
            self.b = nn.Parameter(whole[1:3, ::2])

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return x @ self.a, x[:, :3] @ self.b.t()

    model, inputs = Strided(), (torch.randn(2, 6),)
    path = save(export(model, inputs), tmp_path / "model.pt2")
    check_outputs(torch_export.load(path), inputs, model(*inputs))


def test_names_are_data() -> None:
    name = "we*/ird\n\"'\0 " + "x" * 500
    model = nn.Module()
    model.register_parameter(name, nn.Parameter(torch.rand(3)))
    model.forward = lambda x: x * getattr(model, name)  # pyright: ignore
    program = torch_export.from_exported_program(export(model, (torch.rand(2, 3),)))
    assert list(program.weights) == [name]
    (parameter,) = ops(program, train.ParameterOp)
    assert parameter.key == name


def test_output_is_deterministic(tmp_path: Path) -> None:
    path = save(export(ResNet().eval(), (torch.randn(1, 3, 8, 8),)), tmp_path / "m.pt2")
    first, second = torch_export.load(path), torch_export.load(path)
    assert str(first.module) == str(second.module)
    assert list(first.weights) == list(second.weights)


def test_every_rule_is_documented() -> None:
    assert set(torch_export.OPS) >= {"aten.conv2d.default", "aten.convolution.default"}
    known = {op.name for op in nn_dialect.NN.operations}
    for name, targets in torch_export.OPS.items():
        assert set(targets) <= known, name
