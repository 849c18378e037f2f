"""Training-step time against PyTorch eager on this machine, both in one run.

    python -m benchmarks.host [--quick] [--json PATH]

The same network, weights and data; plain SGD; torch updates the same parameters (for channel
ratios: whole weights of the same layers, since it cannot update a part). Niwaki runs on one
thread; the ratio for two threads is torch with two against Niwaki with one.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

import niwaki
from benchmarks.common import Row, interleaved, main
from benchmarks.networks import CASES, Case
from tests.networks import torch_module, torch_parameters

LR = 1e-3


def torch_step(
    case: Case, program: niwaki.Program, updated: set[str], x: np.ndarray, y: np.ndarray
) -> Callable[[], float]:
    """One eager training step on NCHW tensors."""
    module = torch_module(case.network, program)
    parameters = [
        p.requires_grad_(name in updated)
        for name, p in torch_parameters(module).items()
        if isinstance(p, torch.nn.Parameter)
    ]
    optimizer = torch.optim.SGD([p for p in parameters if p.requires_grad], lr=LR)
    images = torch.tensor(x.transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(y, dtype=torch.long)

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(module(images), labels)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def run(quick: bool) -> list[Row]:
    """Every network, batch 1 and 8, full and sparse, torch with one and two threads."""
    rows: list[Row] = []
    rng = np.random.default_rng(0)
    for name, case in CASES.items():
        for batch in (1,) if quick else (1, 8):
            for update in ("full", "channels"):
                program = case.program(batch)
                size = program.function("forward").function_type.inputs.data[0].get_shape()
                x = rng.standard_normal(size).astype(np.float32)
                y = rng.integers(0, 10, batch).astype(np.int32)
                step = niwaki.compile(
                    program, optimizer=niwaki.SGD(lr=LR), update=case.schemes[update], target="host"
                )
                updated = {e.name for e in step.lowered.state if e.kind == "parameter"}
                peer = torch_step(case, program, updated, x, y)
                for threads in (1, 2):
                    torch.set_num_threads(threads)
                    ours, theirs = interleaved(
                        [partial(step, x, y), peer], seconds=0.5 if quick else 3.0
                    )
                    label = f"{name}/{update}/host/b{batch}/torch-t{threads}"
                    rows += [
                        Row(label, "ms.step", ours, "ms", "torch", theirs / ours),
                        Row(label, "ms.step.torch", theirs, "ms"),
                    ]
    return rows


if __name__ == "__main__":
    main(__doc__, run)
