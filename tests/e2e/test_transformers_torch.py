"""Exported transformers, compiled for this machine, train as torch does: loss and every parameter.

As in `test_networks_torch`: torch in float64, both run freely, and the same bounds hold.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

import niwaki
from niwaki.frontends import torch_export
from niwaki.ir.training import SGD, AdamW, Optimizer, Scheme, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.compiled import HOST, Compiled
from tests.e2e.test_networks_torch import RTOL, STEPS, check, parameters_of, torch_optimizer
from tests.exporting import export, save
from tests.transformers import TINY, Decoder, Encoder

BATCH = 3
MODELS: Mapping[str, Callable[[], torch.nn.Module]] = {
    "encoder": lambda: Encoder(TINY),
    "decoder": lambda: Decoder(TINY),
}
LAST_LAYERS = {
    "encoder": ("layers.1.up", "layers.1.down", "pool", "head"),
    "decoder": ("layers.1.gate", "layers.1.up", "layers.1.down", "head"),
}


def updated(name: str, scheme: str, parameter: str) -> bool:
    """What a scheme means, said without the compiler."""
    layer, _, kind = parameter.rpartition(".")
    match scheme:
        case "full":
            return True
        case "bias":
            return parameter == "head.weight" or kind == "bias"
        case _:
            return layer in LAST_LAYERS[name]


SCHEMES = {"full": Scheme.full(), "bias": Scheme.bias(), "last_layers": Scheme.last_layers(4)}


def train_both(
    name: str, scheme: str, optimizer: Optimizer, folder: Path, decompose: bool = False
) -> None:
    """STEPS steps on random tokens, through a .pt2 file; checks losses and parameters."""
    torch.set_num_threads(1)
    model = MODELS[name]().train()
    tokens = torch.zeros(BATCH, TINY.sequence, dtype=torch.int64)
    program = torch_export.load(save(export(model, (tokens,), decompose), folder / "model.pt2"))
    options = TrainingOptions(optimizer=optimizer, scheme=SCHEMES[scheme])
    compiled = Compiled(compile_program(program, options, HOST))

    reference = deepcopy(model).double()
    for parameter, tensor in reference.named_parameters():
        tensor.requires_grad_(updated(name, scheme, parameter))
    torch_step = torch_optimizer(optimizer, reference)
    random = np.random.default_rng(1)
    labels = compiled.lowered.entries["train_step"].inputs[1].shape
    classes = TINY.classes if name == "encoder" else TINY.vocabulary
    for number in range(STEPS):
        x = random.integers(0, TINY.vocabulary, tuple(tokens.shape)).astype(np.int32)
        y = random.integers(0, classes, labels).astype(np.int32)
        (loss,) = compiled.run("train_step", [x, y, np.float32(optimizer.lr)])
        torch_step.zero_grad()
        logits = reference(torch.tensor(x).long())
        target = torch.tensor(y).long().flatten()
        expected = torch.nn.functional.cross_entropy(logits.reshape(len(target), -1), target)
        expected.backward()
        torch_step.step()
        assert float(loss) == pytest.approx(expected.item(), rel=RTOL), f"step {number}"
    ours = parameters_of(compiled)
    parameters = reference.named_parameters()
    check(ours, {n: p.detach().numpy() for n, p in parameters if p.requires_grad}, program)
    for parameter, before in model.named_parameters():
        # What constants alone lead to is computed ahead, and the parameter gone.
        if not updated(name, scheme, parameter) and parameter in ours:
            assert np.array_equal(ours[parameter], before.detach().numpy()), parameter


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", MODELS)
def test_training_steps_are_those_of_torch(name: str, scheme: str, tmp_path: Path) -> None:
    train_both(name, scheme, SGD(1e-2), tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_core_operations_train_as_well(name: str, tmp_path: Path) -> None:
    train_both(name, "full", SGD(1e-2), tmp_path, decompose=True)


@pytest.mark.parametrize(
    "optimizer",
    [SGD(1e-2, momentum=0.9, weight_decay=1e-2), AdamW(1e-3, epsilon=1e-3)],
    ids=["momentum", "adamw"],
)
def test_optimizers_are_those_of_torch(optimizer: Optimizer, tmp_path: Path) -> None:
    train_both("encoder", "full", optimizer, tmp_path)


@pytest.mark.parametrize("name", MODELS)
def test_the_batch_can_be_set(name: str) -> None:
    tokens = np.random.default_rng(2).integers(0, TINY.vocabulary, (4, TINY.sequence))
    labels = tokens[:, 0] % TINY.classes if name == "encoder" else tokens
    losses: list[float] = []
    for batch in (1, 4):
        model = MODELS[name]()
        exported = export(model, (torch.zeros(batch, TINY.sequence, dtype=torch.int64),))
        program = torch_export.from_exported_program(exported)
        step = niwaki.compile(program, batch=4, update="head")
        losses.append(step(tokens.astype(np.int32), labels.astype(np.int32)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
