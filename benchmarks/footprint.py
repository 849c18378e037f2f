"""Resident memory of training steps, each measured in a process of its own (Linux).

Importing this module loads neither PyTorch nor Niwaki: a child has only what it measures.
"""

import json
import pickle
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from niwaki.ir.lowered import Lowered

STEPS = 3
SLACK = 2**20
LR = 1e-3
ROOT = Path(__file__).parent.parent


def torch_bytes(case: str, batch: int, threads: int) -> int:
    """Most bytes beyond those after import and construction of PyTorch's model, over eager steps.

    The network of `benchmarks.networks`, every parameter updated by plain SGD.
    """
    return _in_child(f"torch_child({case!r}, {batch}, {threads})")


def step_bytes(lowered: "Lowered", code: bytes) -> int:
    """Most bytes beyond those after import, from loading the compiled step on."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step"
        bare = replace(lowered, kernels=(), programs=())
        path.write_bytes(pickle.dumps((bare, code)))
        return _in_child(f"step_child({str(path)!r})")


def _in_child(call: str) -> int:
    code = f"from benchmarks.footprint import *; print(json.dumps({call}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def torch_child(case: str, batch: int, threads: int) -> int:
    """`torch_bytes`, in the process that is measured."""
    import torch

    from benchmarks.networks import CASES
    from tests.networks import torch_module

    torch.set_num_threads(threads)
    program = CASES[case].program(batch)
    module = torch_module(CASES[case].network, program)
    optimizer = torch.optim.SGD(module.parameters(), lr=LR)
    shape = program.function("forward").function_type.inputs.data[0].get_shape()
    images = torch.randn([shape[i] for i in (0, 3, 1, 2)])
    labels = torch.randint(0, 10, (batch,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(module(images), labels).backward()
        optimizer.step()

    return _peak_increase(lambda: [step() for _ in range(STEPS)])


def step_child(path: str) -> int:
    """`step_bytes`, in the process that is measured."""
    from niwaki.backends.llvm.compile import LoadedObject, compile_object
    from niwaki.backends.llvm.session import Session
    from niwaki.backends.targets import get_target

    # What LLVM loads once, as PyTorch does when it is imported.
    LoadedObject(compile_object("define void @f(ptr %p) { ret void }", get_target("host")), ["f"])
    lowered, code = pickle.loads(Path(path).read_bytes())
    x, y, _ = lowered.entries["train_step"].inputs
    random = np.random.default_rng(0)
    images = random.standard_normal(x.shape).astype(x.dtype)
    labels = random.integers(0, 10, y.shape).astype(y.dtype)

    def run() -> None:
        session = Session(lowered, code)
        for _ in range(STEPS):
            session.run("train_step", [images, labels, np.float32(LR)])

    return _peak_increase(run)


def _peak_increase(run: Callable[[], object]) -> int:
    """Most resident bytes during `run` over those before it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    run()
    peak = _status("VmHWM")
    # The kernel counts pages in batches: its two peaks agree to within those.
    assert peak <= 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss + SLACK
    return peak - before


def _status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(value)
