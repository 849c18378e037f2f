"""The same program gives the same bytes: in one process, and whatever Python's hashes are."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import niwaki
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, AdamW, Optimizer, Scheme
from tests.networks import lenet, mobilenet_v2, resnet18
from tests.random_networks import LAYERS, build

CASES: Mapping[str, tuple[Callable[[], Program], Optimizer, Scheme]] = {
    "lenet": (lambda: lenet(2), Adam(1e-3, clip_norm=1.0), Scheme.full()),
    "mobilenet_v2": (
        lambda: mobilenet_v2(1, 32),
        SGD(0.1, momentum=0.9),
        Scheme.channels({"blocks.15.dw.weight": 0.5, "blocks.16.pw2.weight": 0.25}, biases=6),
    ),
    "resnet18": (
        lambda: resnet18(2, 32, batch_norm="training", width=8),
        SGD(0.1, momentum=0.9, nesterov=True),
        Scheme.last_layers(6),
    ),
    "every layer": (
        lambda: build([(kind, 1) for kind in range(len(LAYERS))]),
        AdamW(1e-3),
        Scheme.full(),
    ),
}


def digests(name: str) -> dict[str, str]:
    """Hashes of everything that compilation gives."""
    program, optimizer, scheme = CASES[name]
    step = niwaki.compile(program(), optimizer=optimizer, update=scheme, target="x86-64")
    contents = {
        "plan": str(step.lowered.module).encode(),
        "LLVM IR": step.llvm_text().encode(),
        "state": bytes(step.lowered.state_image),
        "constants": bytes(step.lowered.constants_image),
        "memory": repr(step.lowered.entries).encode(),
    }
    with tempfile.TemporaryDirectory() as folder:
        package = step.write_c(Path(folder) / "package", package="cmake")
        for path in sorted(p for p in package.rglob("*") if p.is_file()):
            contents[path.relative_to(package).as_posix()] = path.read_bytes()
    return {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}


def digests_elsewhere() -> dict[str, dict[str, str]]:
    """`digests` of all cases by another process, whose hashes of text are others."""
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(paths)}
    text = subprocess.run(
        [sys.executable, __file__], env=environment, check=True, capture_output=True, text=True
    ).stdout
    return json.loads(text)


def test_compiling_twice_gives_the_same_bytes() -> None:
    first = digests("lenet")
    assert {"LLVM IR", "state", "model.c", "model_data.c", "CMakeLists.txt"} <= first.keys()
    assert digests("lenet") == first


def test_another_process_gives_the_same_bytes() -> None:
    assert digests_elsewhere() == {name: digests(name) for name in CASES}


if __name__ == "__main__":
    print(json.dumps({name: digests(name) for name in CASES}))
