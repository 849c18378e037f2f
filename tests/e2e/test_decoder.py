"""A small decoder, compiled for this machine, trains as torch does: in full, sparsely, by LoRA."""

from pathlib import Path

import numpy as np
import pytest
import torch

import niwaki
from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.toolchain import build_linux, run_program
from niwaki.backends.targets import get_target
from niwaki.frontends.decoder_config import LowRank, decoder
from tests.c_programs import TIMEOUT, need_tools
from tests.decoders import CONFIG, CONFIGS, Decoder, tokens

BATCH, SEQUENCE, STEPS, LR = 2, 8, 3, 0.1
SPARSE = niwaki.Scheme(
    weights={"model.layers.1.self_attn.q_proj.weight": 1.0, "model.layers.1.mlp.up_proj.weight": 1},
    biases=0,
    head=False,
)


def _torch_steps(model: Decoder) -> list[float]:
    """The losses of STEPS steps of SGD with momentum on what has a gradient."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, LR, momentum=0.9)
    losses: list[float] = []
    for step in range(STEPS):
        x = torch.tensor(tokens(CONFIG, BATCH, SEQUENCE, step).astype(np.int64))
        logits = model(x[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("name", "adapters", "update"),
    [
        ("grouped", None, "full"),
        ("tied", None, "full"),
        ("grouped", LowRank(2, ("q", "v", "gate")), "full"),
        ("grouped", None, SPARSE),
    ],
    ids=["full", "tied", "lora", "sparse"],
)
def test_trains_as_torch(name: str, adapters: LowRank | None, update) -> None:
    model = Decoder(CONFIGS[name], adapters)
    before = model.arrays()
    program = decoder(CONFIGS[name], BATCH, SEQUENCE, before, adapters)
    step = niwaki.compile(program, optimizer=niwaki.SGD(lr=LR, momentum=0.9), update=update)
    if update is SPARSE:
        for parameter_name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter_name in SPARSE.weights)
    x = [tokens(CONFIG, BATCH, SEQUENCE, seed) for seed in range(STEPS)]
    losses = [step(x[i][:, :-1], x[i][:, 1:]) for i in range(STEPS)]
    np.testing.assert_allclose(losses, _torch_steps(model), rtol=1e-4)
    for parameter_name, expected in model.arrays().items():
        actual = step.parameters[parameter_name]
        moved = np.linalg.norm(expected - before[parameter_name])
        np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 + 1e-3 * moved)
        frozen = not dict(model.named_parameters())[parameter_name].requires_grad
        assert frozen == np.array_equal(actual, before[parameter_name])


def test_evaluates_every_token() -> None:
    model = Decoder(CONFIG)
    program = decoder(CONFIG, BATCH, SEQUENCE, model.arrays())
    step = niwaki.compile(program, update="head")
    x = tokens(CONFIG, BATCH, SEQUENCE)
    with torch.no_grad():
        logits = model(torch.tensor(x[:, :-1].astype(np.int64)))
    _, correct = step.evaluate(x[:, :-1], x[:, 1:])
    assert correct == int((logits.argmax(-1).numpy() == x[:, 1:]).sum())


def test_the_batch_can_be_set() -> None:
    model = Decoder(CONFIG)
    x = tokens(CONFIG, 4, SEQUENCE)
    programs = [decoder(CONFIG, batch, SEQUENCE, model.arrays()) for batch in (2, 4)]
    losses = [niwaki.compile(p, batch=4)(x[:, :-1], x[:, 1:]) for p in programs]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-6)


def test_trains_in_c(tmp_path: Path) -> None:
    host = get_target("host")
    need_tools(host)
    program = decoder(CONFIG, 1, SEQUENCE, Decoder(CONFIG).arrays())
    x = tokens(CONFIG, 1, SEQUENCE)
    batch = np.ascontiguousarray(x[:, :-1]), np.ascontiguousarray(x[:, 1:])
    step = niwaki.compile(program, optimizer=niwaki.SGD(lr=LR))
    losses = [step(*batch) for _ in range(STEPS)]
    step = niwaki.compile(program, optimizer=niwaki.SGD(lr=LR))
    folder = step.write_c(tmp_path / "c", vectors=TestVectors(batch, losses, 1e-5))
    sources = [folder / name for name in ("model.c", "model_data.c", "main.c")]
    flags = (f"-I{folder}", "-std=c99", "-Wall", "-Wextra", "-Werror")
    program_file = build_linux(sources, tmp_path / "decoder", host, flags, sanitize=True)
    result = run_program(program_file, TIMEOUT)
    assert result.code == 0, result.output
