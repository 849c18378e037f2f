"""What strips save: the arena of a training step by limit, and the extra arithmetic.

python -m benchmarks.strips [--quick] [--json PATH]
"""

from benchmarks.common import Row, main
from benchmarks.networks import CASES
from niwaki.backends.targets import get_target
from niwaki.ir.lowered import EntryPoint
from niwaki.ir.training import TrainingOptions
from niwaki.passes.pipelines import Techniques, compile_program

NETWORK = "mobilenetv2-w0.35-128"
STEPS = (("full", "train_step"), ("bias", "train_step"), ("channels", "train_step"))
PERCENTS = (70, 50, 35, 25)


def run(quick: bool) -> list[Row]:
    """Rows for MobileNetV2: every update scheme, and inference; batch 1 and 8."""
    rows: list[Row] = []
    for batch in (1,) if quick else (1, 8):
        for scheme, entry in STEPS[:1] if quick else (*STEPS, ("full", "infer")):
            rows += _curve(scheme, entry, batch, (35,) if quick else PERCENTS)
    return rows


def _curve(scheme: str, entry: str, batch: int, percents: tuple[int, ...]) -> list[Row]:
    """The arena that comes out and the floating-point operations added, by the aim."""
    plain = _compiled(scheme, entry, batch, None)
    case = f"{NETWORK}/{scheme if entry == 'train_step' else entry}/b{batch}"
    rows = [Row(case, "arena.bytes", plain.arena_bytes, "bytes")]
    for percent in percents:
        strips = _compiled(scheme, entry, batch, plain.arena_bytes * percent // 100)
        part = strips.arena_bytes / plain.arena_bytes
        extra = 100 * (_flops(strips) / _flops(plain) - 1)
        rows += [
            Row(f"{case}/{percent}%", "arena.bytes", strips.arena_bytes, "bytes", "plain", part),
            Row(f"{case}/{percent}%", "extra.flops", extra, "%"),
        ]
    return rows


def _compiled(scheme: str, entry: str, batch: int, row_bytes: int | None) -> EntryPoint:
    case = CASES[NETWORK]
    lowered = compile_program(
        case.program(batch),
        TrainingOptions(scheme=case.schemes[scheme]),
        get_target("x86-64"),
        techniques=Techniques(row_bytes=row_bytes),
    )
    return lowered.entries[entry]


def _flops(entry: EntryPoint) -> int:
    return sum(call.flops for call in entry.calls)


if __name__ == "__main__":
    main(__doc__, run)
