"""Arena against its live-byte lower bound, and what sparse update saves.

python -m benchmarks.memory [--quick] [--json PATH]
"""

import niwaki
from benchmarks.common import Row, main
from benchmarks.networks import CASES


def run(quick: bool) -> list[Row]:
    """Rows for every network, batch 1 and 8, every update scheme."""
    rows: list[Row] = []
    for name, case in CASES.items():
        for batch in (1,) if quick else (1, 8):
            full = 0
            for update, scheme in case.schemes.items():
                step = niwaki.compile(
                    case.program(batch), optimizer=niwaki.SGD(lr=0.01), update=scheme,
                    target="cortex-m7" if quick else "host",
                )  # fmt: skip
                entry = step.lowered.entries["train_step"]
                label = f"{name}/{update}/{step.target.name}/b{batch}"
                arena, bound = entry.arena_bytes, entry.bound_bytes
                full = full or arena
                rows += [
                    Row(label, "arena.bytes", arena, "bytes", "bound", arena / bound),
                    Row(label, "bound.bytes", bound, "bytes"),
                    Row(label, "saved.bytes", full - arena, "bytes", "full", full / arena),
                    Row(label, "state.bytes", step.memory.state_bytes, "bytes"),
                ]
    return rows


if __name__ == "__main__":
    main(__doc__, run)
