"""Memory of training steps: arena against its bound, techniques, footprint against PyTorch.

    python -m benchmarks.memory [--quick] [--json PATH]

Ratios: an arena to its live-byte bound; a peak to that without the technique; PyTorch's increase
of resident memory to ours. "change.largest" is the largest difference that a technique makes in
the losses and parameters of some steps, relative to the largest element of each array.
"""

from collections.abc import Mapping

import numpy as np

from benchmarks.common import Row, main
from benchmarks.footprint import STEPS, step_bytes, torch_bytes
from benchmarks.networks import CASES, PLANNED
from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import get_target
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.ir.weights import Array
from niwaki.passes.pipelines import Techniques, compile_program

HOST = get_target("host")
LR = 0.01
MOBILENET = "mobilenetv2-w0.35-128"


def run(quick: bool) -> list[Row]:
    """All questions; the quick run asks them of LeNet."""
    networks = ("lenet",) if quick else tuple(CASES)
    rows = [row for name in networks for row in _arenas(name, (1,) if quick else (1, 8))]
    if not quick:
        rows += [row for name in PLANNED for row in _planned(name)]
        rows += [row for scheme in CASES[MOBILENET].schemes for row in _strips(scheme)]
    rows += _footprint("lenet" if quick else MOBILENET, 8)
    if quick:
        return rows + _changes("lenet", _techniques(2))
    rows += _changes(MOBILENET, {**_techniques(2), "strips": Techniques(row_bytes=0)})
    return rows + _changes("resnet18-64", _techniques(2))


def _lower(program: Program, scheme: Scheme, techniques: Techniques | None = None) -> Lowered:
    options = TrainingOptions(optimizer=SGD(lr=LR), scheme=scheme)
    return compile_program(program, options, HOST, techniques=techniques)


def _arenas(name: str, batches: tuple[int, ...]) -> list[Row]:
    """Arena, bound, and what sparse update saves."""
    rows: list[Row] = []
    for batch in batches:
        full = 0
        for update, scheme in CASES[name].schemes.items():
            lowered = _lower(CASES[name].program(batch), scheme)
            label = f"{name}/{update}/host/b{batch}"
            arena = lowered.entries["train_step"].arena_bytes
            full = full or arena
            rows += _arena(label, lowered)
            rows += [
                Row(label, "saved.bytes", full - arena, "bytes", "full", full / arena),
                Row(label, "state.bytes", len(lowered.state_image), "bytes"),
            ]
    return rows


def _arena(label: str, lowered: Lowered) -> list[Row]:
    entry = lowered.entries["train_step"]
    arena, bound = entry.arena_bytes, entry.bound_bytes
    return [
        Row(label, "arena.bytes", arena, "bytes", "bound", arena / bound),
        Row(label, "bound.bytes", bound, "bytes"),
    ]


def _planned(name: str) -> list[Row]:
    """Networks that are planned, not run."""
    schemes = {"full": Scheme.full(), "bias": Scheme.bias(), "last5": Scheme.last_layers(5)}
    rows: list[Row] = []
    for update, scheme in schemes.items():
        rows += _arena(f"{name}/{update}/host/b1", _lower(PLANNED[name](), scheme))
    return rows


def _strips(update: str) -> list[Row]:
    """Least peaks with execution by strips of rows, MobileNetV2 at batch 1."""
    program, scheme = CASES[MOBILENET].program(1), CASES[MOBILENET].schemes[update]
    plain, tiled = _lower(program, scheme), _lower(program, scheme, Techniques(row_bytes=0))
    rows: list[Row] = []
    for entry in ("train_step", "infer"):
        before, after = plain.entries[entry], tiled.entries[entry]
        label = f"{MOBILENET}/{update}/host/b1/{entry}"
        part = after.arena_bytes / before.arena_bytes
        rows += [
            Row(label, "arena.bytes.strips", after.arena_bytes, "bytes", "whole", part),
            Row(label, "arena.bytes.whole", before.arena_bytes, "bytes"),
        ]
    return rows


def _techniques(batch: int) -> dict[str, Techniques]:
    return {
        "plain": Techniques(),
        "micro-batches": Techniques(batch),
        "recomputation": Techniques(recompute_bytes=0),
        "both": Techniques(batch, recompute_bytes=0),
    }


def _footprint(name: str, batch: int) -> list[Row]:
    """Everything that a step needs, against the increase of PyTorch's resident memory."""
    label = f"{name}/full/host/b{batch}"
    peers = {threads: torch_bytes(name, batch, threads) for threads in (1, 2)}
    rows = [Row(f"{label}/torch-t{t}", "rss.bytes", n, "bytes") for t, n in peers.items()]
    for technique, techniques in _techniques(batch).items():
        lowered = _lower(CASES[name].program(batch), Scheme.full(), techniques)
        code = object_code(lowered, HOST)
        data = lowered.arena_bytes + len(lowered.state_image) + len(lowered.constants_image)
        for metric, value in (
            ("footprint.bytes", data + len(code)),
            ("rss.bytes", step_bytes(lowered, code)),
        ):
            case = f"{label}/{technique}"
            rows.append(Row(case, metric, value, "bytes", "torch-t1", peers[1] / value))
    return rows


def _changes(name: str, tried: Mapping[str, Techniques]) -> list[Row]:
    """How far results with each technique are from those without."""
    batch = 2
    random = np.random.default_rng(0)
    program = CASES[name].program(batch)
    shape = program.function("forward").function_type.inputs.data[0].get_shape()
    x = random.standard_normal(shape).astype(np.float32)
    inputs = [x, random.integers(0, 10, batch).astype(np.int32), np.float32(1e-3)]
    rows: list[Row] = []
    plain: list[Array] = []
    for technique, techniques in tried.items():
        results = _train(_lower(program, Scheme.full(), techniques), inputs)
        plain = plain or results
        change = max(
            float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-30)
            for a, b in zip(results, plain, strict=True)
        )
        label = f"{name}/full/host/b{batch}/{technique}"
        rows.append(Row(label, "change.largest", change * 1e6, "1e-6"))
    return rows


def _train(lowered: Lowered, inputs: list[Array]) -> list[Array]:
    """Losses and parameters of some steps."""
    session = Session(lowered, object_code(lowered, HOST))
    losses = [session.run("train_step", inputs)[0] for _ in range(STEPS)]
    return [*losses, *(e.view(session.state) for e in lowered.state)]


if __name__ == "__main__":
    main(__doc__, run)
