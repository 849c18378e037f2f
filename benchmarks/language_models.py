"""Memory of a LLaMA-2-7B training step by class, planned from its configuration alone.

python -m benchmarks.language_models [--quick] [--json PATH]

Peers are the figures of PockEngine (Zhu et al., MICRO 2023) on a Jetson Orin; their batch, sequence
and optimizer are not published with them, so ratios say how far the figures are apart, no more.
"""

import json
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import Row, main
from niwaki.backends.targets import get_target
from niwaki.frontends.decoder_config import LowRank, load
from niwaki.ir.training import SGD, Adam, Optimizer, Scheme, TrainingOptions
from niwaki.passes.memory_plan import CLASSES, plan_memory

EXAMPLES = Path(__file__).parents[1] / "examples"
CONFIG = EXAMPLES / "llama-2-7b.json"
MOMENTUM = SGD(lr=0.01, momentum=0.9)


@dataclass(frozen=True)
class Case:
    """What is trained, and the published bytes for it."""

    optimizer: Optimizer
    sequence: int = 512
    scheme: Scheme | None = None
    adapters: LowRank | None = None
    peers: tuple[tuple[str, float], ...] = ()


CASES = {
    "full/sgd": Case(SGD(lr=0.01)),
    "full/momentum": Case(MOMENTUM, peers=(("PyTorch", 45.1e9), ("PockEngine", 43.1e9))),
    "full/momentum-clip": Case(SGD(lr=0.01, momentum=0.9, clip_norm=1.0)),
    "full/adam": Case(Adam(lr=0.01)),
    "full/momentum/2048": Case(MOMENTUM, sequence=2048),
    "lora8/momentum": Case(MOMENTUM, adapters=LowRank(8), peers=(("PyTorch", 30.9e9),)),
    "sparse/momentum": Case(
        MOMENTUM,
        scheme=Scheme.from_toml(EXAMPLES / "llama-2-7b-sparse.toml"),
        peers=(("PockEngine", 31.2e9),),
    ),
}


def run(quick: bool) -> list[Row]:
    """Bytes by class, seconds and the compiler's own memory; quick: two blocks of 32, no scheme."""
    if not quick:
        return _rows(CONFIG, CASES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps({**json.loads(CONFIG.read_text()), "num_hidden_layers": 2}))
        return _rows(path, {k: c for k, c in CASES.items() if c.scheme is None})


def _rows(config: Path, cases: dict[str, Case]) -> list[Row]:
    rows: list[Row] = []
    for name, case in cases.items():
        start = time.perf_counter()
        program = load(config, sequence=case.sequence, adapters=case.adapters)
        options = TrainingOptions(
            optimizer=case.optimizer, scheme=Scheme() if case.scheme is None else case.scheme
        )
        plan = plan_memory(program, options, get_target("x86-64"))
        seconds = time.perf_counter() - start
        label = f"llama-2-7b/{name}"
        total = plan.total_bytes
        rows += [Row(label, f"{kind}.bytes", plan.bytes[kind], "bytes") for kind in CLASSES]
        rows += [
            Row(label, "arena.bytes", plan.arena_bytes, "bytes"),
            Row(label, "total.bytes", total, "bytes"),
            *(Row(label, "total.bytes", total, "bytes", p, b / total) for p, b in case.peers),
            Row(label, "calls", plan.calls, "calls"),
            Row(label, "s.plan", seconds, "s"),
        ]
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rows.append(Row("llama-2-7b", "rss.bytes", 1024 * kilobytes, "bytes"))
    return rows


if __name__ == "__main__":
    main(__doc__, run)
