"""Frozen weights stored as kernels read them, against packing them in every step.

    python -m benchmarks.frozen_weights [--quick] [--json PATH]

The networks and data of `benchmarks.peers`, each compiled both ways; one thread, by the clock of
this process, in turn. "infer" is inference of a program that trains only the head.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from unittest.mock import patch

import niwaki
from benchmarks.common import Row, interleaved, main
from benchmarks.peers.frameworks.niwaki_memory import LAYOUT
from benchmarks.peers.frameworks.niwaki_step import program, scheme
from benchmarks.peers.models import Model
from benchmarks.peers.networks import MODELS
from niwaki.passes import storage_layout

UPDATES: Mapping[str, tuple[str, ...]] = {
    "mobilenetv2-w0.35-128": ("scheme", "bias", "infer"),
    "mobilenetv2-w1.0-224": ("last", "bias", "infer"),
    "resnet18-224": ("bias", "infer"),
    "encoder-6x384": ("bias", "infer"),
}


def _compiled(model: Model, batch: int, update: str) -> niwaki.TrainingStep:
    return niwaki.compile(
        program(model, batch),
        optimizer=niwaki.SGD(lr=model.lr),
        update=scheme(model, update) if update != "infer" else "last_layers(1)",
        target="host",
    )


def _plain(*_: object) -> dict[str, object]:
    """In place of `packed_parameters`."""
    return {}


def _call(step: niwaki.TrainingStep, model: Model, batch: int, update: str) -> Callable[[], object]:
    x, y = model.data(batch, LAYOUT)
    return partial(step.infer, x) if update == "infer" else partial(step, x, y)


def compare(name: str, batch: int, update: str, seconds: float) -> list[Row]:
    """One network both ways: time and memory."""
    model = MODELS[name]
    with patch.object(storage_layout, "packed_parameters", _plain):
        plain = _compiled(model, batch, update)
    packed = _compiled(model, batch, update)
    calls = [_call(step, model, batch, update) for step in (packed, plain)]
    ours, theirs = interleaved(calls, seconds, clock=time.process_time)
    case = f"{name}/{update}/b{batch}"
    rows = [Row(case, "ms", ours, "ms", "plain", theirs / ours)]
    for what in ("arena_bytes", "state_bytes", "constant_bytes"):
        mine, peer = getattr(packed.memory, what), getattr(plain.memory, what)
        rows.append(Row(case, what, mine, "bytes", "plain", peer / mine))
    return rows


def run(quick: bool) -> list[Row]:
    """Every network and update, batch 1 and 8; `quick`: the small one, batch 1."""
    rows: list[Row] = []
    for batch in (1,) if quick else (1, 8):
        for name in list(UPDATES)[: 1 if quick else None]:
            for update in UPDATES[name]:
                rows += compare(name, batch, update, 1.0 if quick else 5.0)
    return rows


if __name__ == "__main__":
    main(__doc__, run)
