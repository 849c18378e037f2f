"""Whole training steps against torch: loss and every parameter over several steps."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from niwaki.ir.dialects import train
from niwaki.ir.interpreter import run
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme
from tests import networks
from tests.training_programs import in_float64, training_program

Array = np.ndarray


@dataclass(frozen=True)
class Model:
    """A network, its program, and the shape of a batch (NHWC)."""

    network: networks.Network
    build: Callable[[], Program]
    shape: tuple[int, ...]


MODELS = {
    "lenet": Model(networks.lenet_network, lambda: networks.lenet(3, size=20), (3, 20, 20, 1)),
    "mobilenet_v2": Model(
        networks.mobilenet_v2_network(0.1),
        lambda: networks.mobilenet_v2(2, 32, 0.1),
        (2, 32, 32, 3),
    ),
    "resnet18": Model(
        networks.resnet18_network(10, "training", 4),
        lambda: networks.resnet18(4, 48, 10, "training", 4),
        (4, 48, 48, 3),
    ),
    "resnet18-frozen": Model(
        networks.resnet18_network(10, "frozen", 4),
        lambda: networks.resnet18(2, 32, 10, "frozen", 4),
        (2, 32, 32, 3),
    ),
}

OPTIMIZERS: dict[str, Optimizer] = {
    "sgd": SGD(0.05),
    "momentum": SGD(0.05, momentum=0.9),
    "nesterov": SGD(0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "decay": SGD(0.05, weight_decay=0.1),
    "clip": SGD(0.5, momentum=0.5, clip_norm=0.25),
    "no-clip": SGD(0.05, clip_norm=1e6),
    "adam": Adam(0.01),
    "adam-decay": Adam(0.01, betas=(0.5, 0.75), epsilon=1e-4, weight_decay=0.1),
    "adamw": AdamW(0.01, weight_decay=0.1, clip_norm=1.0),
}

SCHEMES: dict[str, Scheme] = {
    "full": Scheme.full(),
    "bias": Scheme.bias(),
    "head": Scheme.head_only(),
    "last_layers": Scheme.last_layers(5),
    "channels": Scheme.channels({4: 0.5, 15: 0.25, 30: 0.125, 42: 0.5, 49: 1, 50: 0.3}, biases=9),
}

STEPS = 3


def _torch_optimizer(optimizer: Optimizer, parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(
            parameters,
            optimizer.lr,
            _single(optimizer.momentum),
            nesterov=optimizer.nesterov,
            weight_decay=_single(optimizer.weight_decay),
        )
    kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
    betas = (_single(optimizer.betas[0]), _single(optimizer.betas[1]))
    return kind(parameters, optimizer.lr, betas, optimizer.epsilon, _single(optimizer.weight_decay))


def _single(value: float) -> float:
    """Attributes of operations are float32."""
    return float(np.float32(value))


def _boxes(program: Program) -> dict[str, tuple[int, ...]]:
    ops = program.function("train_step").body.block.ops
    return {
        op.key: op.update_box
        for op in ops
        if isinstance(op, train.ParameterOp) and op.update_box is not None
    }


def _restrict(tensor: torch.Tensor, box: tuple[int, ...]) -> None:
    """Makes the gradient of `tensor` zero outside of the updated box (given as OHWI)."""
    box = (box[0], box[3], box[1], box[2]) if len(box) == 4 else box
    mask = torch.zeros_like(tensor)
    mask[tuple(slice(size) for size in box)] = 1
    tensor.register_hook(lambda gradient: gradient * mask)


def _torch_steps(
    module: torch.nn.Module,
    optimizer: Optimizer,
    boxes: Mapping[str, tuple[int, ...]],
    x: Array,
    labels: Array,
) -> list[float]:
    tensors = networks.torch_parameters(module)
    for name, tensor in tensors.items():
        if name not in boxes:
            tensor.requires_grad_(False)
        else:
            _restrict(tensor, boxes[name])
    updated = [tensors[name] for name in boxes]
    stepper = _torch_optimizer(optimizer, updated)
    losses: list[float] = []
    for _ in range(STEPS):
        stepper.zero_grad()
        y = module(torch.tensor(x.transpose(0, 3, 1, 2)))
        loss = torch.nn.functional.cross_entropy(y, torch.tensor(labels).long())
        loss.backward()
        if optimizer.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(updated, optimizer.clip_norm)
        stepper.step()
        losses.append(loss.item())
    return losses


def _compare(
    model: Model, optimizer: Optimizer, scheme: Scheme, dtype: type, tolerance: float
) -> None:
    program = model.build()
    trained = training_program(
        in_float64(program) if dtype is np.float64 else program, optimizer, scheme
    )
    random = np.random.default_rng(3)
    x = random.standard_normal(model.shape).astype(dtype)
    labels = random.integers(0, 10, model.shape[0]).astype(np.int32)

    state: dict[str, Array] = {}
    inputs = [x, labels, dtype(optimizer.lr)]
    losses = [float(run(trained, "train_step", inputs, state)[0]) for _ in range(STEPS)]
    module = networks.torch_module(
        model.network, program, torch.float64 if dtype is np.float64 else torch.float32
    )
    boxes = _boxes(trained)
    expected = _torch_steps(module, optimizer, boxes, x, labels)

    assert losses == pytest.approx(expected, rel=tolerance)
    tensors = networks.torch_parameters(module)
    assert set(boxes) <= set(state)
    for name, start in program.weights.items():
        after = networks.to_program_layout(tensors[name])
        wanted, got = after - start, state.get(name, start) - start
        if name not in boxes and "running_" not in name:
            assert name not in state
        # A bias in front of a batch norm has the gradient 0: only rounding moves it.
        rounding = 512 * np.finfo(dtype).eps * np.linalg.norm(start)
        assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted) + rounding, name


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name: str) -> None:
    _compare(MODELS["lenet"], OPTIMIZERS[name], Scheme.full(), np.float64, 1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_full_update_in_float64(model: str) -> None:
    _compare(MODELS[model], OPTIMIZERS["momentum"], Scheme.full(), np.float64, 1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_full_update_in_float32(model: str) -> None:
    _compare(MODELS[model], SGD(0.01, momentum=0.9), Scheme.full(), np.float32, 2e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(scheme: str) -> None:
    _compare(MODELS["mobilenet_v2"], OPTIMIZERS["momentum"], SCHEMES[scheme], np.float64, 1e-6)


@pytest.mark.parametrize("scheme", ["head", "bias"])
def test_schemes_with_batch_norm(scheme: str) -> None:
    _compare(MODELS["resnet18"], OPTIMIZERS["momentum"], SCHEMES[scheme], np.float64, 1e-6)
