"""Whole networks, compiled for this machine, train as torch does: loss and every parameter.

The reference is torch in float64, and both run freely for STEPS steps. Errors of a parameter are
norms of the difference, relative to the norm of the parameter, and must stay below RTOL; the error
of what the steps changed is bounded too, relative to the change.

The learning rates are small because gradients of ReLU networks are discontinuous: one of a million
activations within rounding of 0 falls on the other side now and then, which moves single gradients
by a percent, and at larger rates training amplifies that. torch in float32 leaves torch in float64
in the same way. Hence also CHANGE_RTOL.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.compiled import HOST, Compiled
from tests.networks import (
    Network,
    lenet,
    lenet_network,
    mobilenet_v2,
    mobilenet_v2_network,
    resnet18,
    resnet18_network,
    to_program_layout,
    torch_module,
    torch_parameters,
)

STEPS = 10
RTOL = 1e-4
"""Of the loss, and of a parameter: |ours - torch's| / |torch's|."""
CHANGE_RTOL = 0.1
"""Of a parameter's change since the first step."""
ROUNDING = 1e-6
"""Of a parameter: what float32 loses by storing it ten times, however little it changes."""

Array = NDArray[Any]
Masks = Mapping[str, Array]
"""Parameter -> 1 where a step updates it, 0 where it is frozen; in the program's layout."""


@dataclass(frozen=True)
class Case:
    """A network, how it is stated twice, and how fast it learns."""

    network: Network
    program: Callable[[], Program]
    lr: float
    ratios: Mapping[str, float]
    """Weight -> ratio of input channels that the sparse scheme updates."""


CASES = {
    "lenet": Case(lenet_network, lambda: lenet(4), 1e-2, {"conv2.weight": 0.5, "fc1.weight": 0.25}),
    "mobilenet_v2": Case(
        mobilenet_v2_network(),
        lambda: mobilenet_v2(2, 128),
        1e-5,
        {
            "blocks.13.pw2.weight": 1.0,
            "blocks.14.pw1.weight": 0.5,
            "blocks.15.dw.weight": 0.25,
            "blocks.16.pw2.weight": 0.125,
        },
    ),
    "resnet18": Case(
        resnet18_network(),
        lambda: resnet18(2, 64),
        1e-5,
        {"layer3.1.conv2.weight": 0.5, "layer4.0.conv1.weight": 0.25},
    ),
    "resnet18_bn": Case(
        resnet18_network(batch_norm="training"),
        lambda: resnet18(8, 64, batch_norm="training"),
        3e-5,
        {},
    ),
}
SCHEMES: Mapping[str, Callable[[Case], Scheme]] = {
    "full": lambda case: Scheme.full(),
    "bias": lambda case: Scheme.bias(),
    "last_layers": lambda case: Scheme.last_layers(3),
    "channels": lambda case: Scheme.channels(dict(case.ratios), biases=4),
}
RUNS = [(n, s) for n in ("lenet", "mobilenet_v2", "resnet18") for s in SCHEMES]
RUNS.append(("resnet18_bn", "full"))


def masks_of(program: Program, scheme: str, case: Case) -> Masks:
    """What `scheme` means, said without the compiler: parameters stand in execution order."""
    weights = [n for n in program.weights if n.endswith(".weight")]
    biases = [n for n in program.weights if n.endswith(".bias")]
    statistics = [n for n in program.weights if "running_" in n]
    ratios = {
        "full": dict.fromkeys([*weights, *biases], 1.0),
        "bias": dict.fromkeys([*biases, weights[-1]], 1.0),
        "last_layers": dict.fromkeys([*weights[-3:], *biases[-3:]], 1.0),
        "channels": {**dict.fromkeys([*biases[-4:], weights[-1]], 1.0), **case.ratios},
    }[scheme]
    ratios |= dict.fromkeys(statistics, 1.0)
    masks: dict[str, Array] = {}
    for name, array in program.weights.items():
        masks[name] = np.zeros(array.shape, bool)
        depthwise = array.ndim == 4 and array.shape[3] == 1 and ".dw." in name
        axis = 0 if depthwise else array.ndim - 1
        kept = round(ratios.get(name, 0.0) * array.shape[axis])
        masks[name][(slice(None),) * axis + (slice(kept),)] = True
    return masks


class Torch:
    """The reference: a twin in float64 whose frozen elements get no gradient."""

    def __init__(
        self, network: Network, program: Program, masks: Masks, optimizer: Optimizer
    ) -> None:
        self.module = torch_module(network, program, torch.float64)
        self.parameters = torch_parameters(self.module)
        self.masks: dict[str, torch.Tensor] = {}
        for name, tensor in self.parameters.items():
            if "running_" in name:
                continue
            tensor.requires_grad_(bool(masks[name].any()))
            mask = masks[name].transpose(0, 3, 1, 2) if tensor.ndim == 4 else masks[name]
            self.masks[name] = torch.tensor(mask.astype(np.float64))
        self.optimizer = torch_optimizer(optimizer, self.module)

    def step(self, x: Array, y: Array) -> float:
        images = torch.tensor(x.transpose(0, 3, 1, 2).astype(np.float64))
        self.optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(self.module(images), torch.tensor(y).long())
        loss.backward()
        for name, mask in self.masks.items():
            tensor = self.parameters[name]
            if tensor.grad is not None:
                tensor.grad *= mask
        self.optimizer.step()
        return loss.item()


def torch_optimizer(optimizer: Optimizer, module: torch.nn.Module) -> torch.optim.Optimizer:
    parameters = [p for p in module.parameters() if p.requires_grad]
    if isinstance(optimizer, SGD):
        return torch.optim.SGD(
            parameters,
            optimizer.lr,
            optimizer.momentum,
            nesterov=optimizer.nesterov,
            weight_decay=optimizer.weight_decay,
        )
    kind = torch.optim.AdamW if isinstance(optimizer, AdamW) else torch.optim.Adam
    return kind(
        parameters, optimizer.lr, optimizer.betas, optimizer.epsilon, optimizer.weight_decay
    )


def parameters_of(compiled: Compiled) -> Mapping[str, Array]:
    """All parameters, updated and frozen, as they are in the session's memory."""
    session, lowered = compiled.session, compiled.lowered
    entries = [(e, session.state) for e in lowered.state]
    entries += [(e, session.constants) for e in lowered.constants]
    views = [(e, e.view(space)) for e, space in entries]
    return {e.name: v if e.packing is None else e.packing.plain(v) for e, v in views}


def train_both(
    network: Network, program: Program, masks: Masks, options: TrainingOptions
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """Our parameters and torch's after STEPS steps; losses are compared on the way."""
    torch.set_num_threads(1)
    reference = Torch(network, program, masks, options.optimizer)
    compiled = Compiled(compile_program(program, options, HOST))
    images, labels, _ = compiled.lowered.entries["train_step"].inputs
    random = np.random.default_rng(1)
    for number in range(STEPS):
        x = random.standard_normal(images.shape).astype(np.float32)
        y = random.integers(0, 10, labels.shape).astype(np.int32)
        (loss,) = compiled.run("train_step", [x, y, np.float32(options.optimizer.lr)])
        assert float(loss) == pytest.approx(reference.step(x, y), rel=RTOL), f"step {number}"
    expected = {name: to_program_layout(p) for name, p in reference.parameters.items()}
    return parameters_of(compiled), expected


def check(ours: Mapping[str, Array], torchs: Mapping[str, Array], start: Program) -> None:
    """Both error bounds for every parameter; `start` has the values before the first step."""
    norm = np.linalg.norm
    for name, expected in torchs.items():
        error, size = norm(ours[name] - expected), norm(expected)
        change = norm(expected - start.weights[name])
        assert error <= RTOL * size, f"{name}: relative error {error / size:.2g}"
        assert error <= CHANGE_RTOL * change + ROUNDING * size, (
            f"{name}: error {error / size:.2g} where the steps changed {change / size:.2g}"
        )


@pytest.mark.parametrize(("name", "scheme"), RUNS)
def test_training_steps_are_those_of_torch(name: str, scheme: str) -> None:
    case = CASES[name]
    program = case.program()
    masks = masks_of(program, scheme, case)
    options = TrainingOptions(optimizer=SGD(case.lr), scheme=SCHEMES[scheme](case))
    ours, torchs = train_both(case.network, program, masks, options)
    check(ours, torchs, program)
    for parameter, mask in masks.items():
        frozen, before = ours[parameter][~mask], program.weights[parameter][~mask]
        assert frozen.tobytes() == before.tobytes(), f"{parameter} changed where it is frozen"


@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(1e-2, momentum=0.9, weight_decay=1e-2),
        SGD(1e-2, momentum=0.9, nesterov=True),
        # A large epsilon: Adam divides by the gradient's size, which makes noise of tiny gradients.
        Adam(1e-3, epsilon=1e-3, weight_decay=1e-2),
        AdamW(1e-3, epsilon=1e-3),
    ],
    ids=["momentum", "nesterov", "adam", "adamw"],
)
def test_optimizers_are_those_of_torch(optimizer: Optimizer) -> None:
    case = CASES["lenet"]
    program = case.program()
    masks = masks_of(program, "full", case)
    ours, torchs = train_both(case.network, program, masks, TrainingOptions(optimizer=optimizer))
    check(ours, torchs, program)


def test_a_change_that_is_a_fifth_too_large_is_found() -> None:
    case = CASES["lenet"]
    program = case.program()
    masks = masks_of(program, "full", case)
    ours, torchs = train_both(case.network, program, masks, TrainingOptions(optimizer=SGD(case.lr)))
    check(ours, torchs, program)
    for name, start in program.weights.items():
        with pytest.raises(AssertionError, match=name):
            check({**ours, name: ours[name] + 0.2 * (ours[name] - start)}, torchs, program)
