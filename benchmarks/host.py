"""Training-step time against PyTorch eager on this machine, both in one run.

    python -m benchmarks.host [--quick] [--json PATH]

The same network, weights and data; plain SGD; torch updates the same parameters (for channel
ratios: whole weights of the same layers, since it cannot update a part). Niwaki runs on one
thread; the ratio for two threads is torch with two against Niwaki with one.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import torch

import niwaki
from benchmarks.common import Row, interleaved, main
from benchmarks.networks import CASES, Case
from niwaki import Scheme
from niwaki.frontends import torch_export
from niwaki.ir.dialects.tensor_op import shape_of
from tests.exporting import export
from tests.networks import torch_module, torch_parameters
from tests.transformers import MINILM, SMALL_LLAMA, Decoder, Encoder, Sizes

LR = 1e-3
Step = Callable[[], float]
TRANSFORMERS: Mapping[str, tuple[type[Encoder | Decoder], Sizes]] = {
    "minilm-l6-s128": (Encoder, MINILM),
    "llama-l8-s128": (Decoder, SMALL_LLAMA),
}
TRANSFORMER_SCHEMES = {
    "full": Scheme.full(),
    "bias": Scheme.bias(),
    "last4": Scheme.last_layers(4),
}


def torch_step(
    module: torch.nn.Module,
    named: Mapping[str, torch.Tensor],
    updated: set[str],
    x: torch.Tensor,
    y: torch.Tensor,
) -> Step:
    """One eager training step of `module`; `named`: its parameters, by the program's names."""
    parameters = [
        p.requires_grad_(name in updated)
        for name, p in named.items()
        if isinstance(p, torch.nn.Parameter)
    ]
    optimizer = torch.optim.SGD([p for p in parameters if p.requires_grad], lr=LR)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        logits = module(x)
        rows = logits.reshape(-1, logits.shape[-1])
        loss = torch.nn.functional.cross_entropy(rows, y.flatten())
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def _compiled(
    program: niwaki.Program, scheme: Scheme, x: np.ndarray, y: np.ndarray
) -> tuple[Step, set[str]]:
    """Our step, and the names of what it updates."""
    optimizer = niwaki.SGD(lr=LR)
    step = niwaki.compile(program, optimizer=optimizer, update=scheme, target="host")
    updated = {e.name for e in step.lowered.state if e.kind == "parameter"}
    return partial(step, x, y), updated


def compare(label: str, ours: Step, theirs: Step, quick: bool) -> list[Row]:
    """Both steps in turn, torch with one and two threads.

    With one, by the clock of this process: what others take of the core does not count.
    """
    rows: list[Row] = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        clock = time.process_time if threads == 1 else time.perf_counter
        mine, peer = interleaved([ours, theirs], 0.5 if quick else 3.0, clock=clock)
        case = f"{label}/torch-t{threads}"
        rows += [
            Row(case, "ms.step", mine, "ms", "torch", peer / mine),
            Row(case, "ms.step.torch", peer, "ms"),
        ]
    return rows


def image_network(name: str, case: Case, batch: int, update: str, quick: bool) -> list[Row]:
    """A network on images, stated for both sides by `tests.networks`."""
    program, rng = case.program(batch), np.random.default_rng(0)
    size = shape_of(program.function("forward").body.block.args[0])
    x = rng.standard_normal(size).astype(np.float32)
    y = rng.integers(0, 10, batch).astype(np.int32)
    ours, updated = _compiled(program, case.schemes[update], x, y)
    module = torch_module(case.network, program)
    images = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    peer = torch_step(module, torch_parameters(module), updated, images, torch.tensor(y).long())
    return compare(f"{name}/{update}/host/b{batch}", ours, peer, quick)


def transformer(name: str, batch: int, update: str, quick: bool) -> list[Row]:
    """A transformer on random tokens, exported by torch.export; `quick`: two layers of it."""
    kind, sizes = TRANSFORMERS[name]
    sizes = replace(sizes, layers=2, vocabulary=1024) if quick else sizes
    model, rng = kind(sizes).train(), np.random.default_rng(0)
    x = rng.integers(0, sizes.vocabulary, (batch, sizes.sequence)).astype(np.int32)
    classes, shape = (sizes.classes, (batch,)) if kind is Encoder else (sizes.vocabulary, x.shape)
    y = rng.integers(0, classes, shape).astype(np.int32)
    tokens, labels = torch.tensor(x).long(), torch.tensor(y).long()
    program = torch_export.from_exported_program(export(model, (tokens,)))
    ours, updated = _compiled(program, TRANSFORMER_SCHEMES[update], x, y)
    peer = torch_step(model, dict(model.named_parameters()), updated, tokens, labels)
    return compare(f"{name}/{update}/host/b{batch}", ours, peer, quick)


def run(quick: bool) -> list[Row]:
    """Every network, batch 1 and 8, full and sparse, torch with one and two threads."""
    rows: list[Row] = []
    for batch in (1,) if quick else (1, 8):
        for name, case in CASES.items():
            for update in ("full", "channels"):
                rows += image_network(name, case, batch, update, quick)
        for name in TRANSFORMERS:
            for update in ("full",) if quick else TRANSFORMER_SCHEMES:
                rows += transformer(name, batch, update, quick)
    return rows


if __name__ == "__main__":
    main(__doc__, run)
