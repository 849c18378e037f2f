"""The flags of `niwaki compile` that measure which kernels are fastest, and what they do."""

import argparse
from pathlib import Path

import niwaki
from niwaki.backends.targets import get_target
from niwaki.ir.errors import UsageError
from niwaki.tools.model_flags import add_tuning_flag, compile_model
from niwaki.tools.progress import Progress

_BESIDE_MODEL = Path()
"""Stands for a file that is named after the model."""


def add_tune_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `tune` reads, and --tuning."""
    add_tuning_flag(parser)
    parser.add_argument(
        "--tune",
        metavar="FILE",
        type=Path,
        nargs="?",
        const=_BESIDE_MODEL,
        help="first measure which kernels are fastest on this machine, and keep that in FILE "
        "(default: MODEL with the suffix .tuning.json)",
    )
    parser.add_argument(
        "--tune-seconds",
        metavar="N",
        type=float,
        default=60.0,
        help="about how long --tune measures at most (%(default)s)",
    )


def check_tune_flags(args: argparse.Namespace) -> None:
    """Raises UsageError if the flags fit neither each other nor the target."""
    if args.tune is not None and args.tuning is not None:
        raise UsageError("--tune measures, --tuning uses what was measured: leave one out")
    if args.tune is not None and not get_target(args.target).jit:
        raise UsageError(f"--tune measures this machine, and the target is {args.target}")
    if args.tune_seconds <= 0:
        raise UsageError(f"--tune-seconds must be > 0, got {args.tune_seconds}")
    if args.tune is None and args.tuning is None:
        return
    if args.output is not None and args.emit == "c":
        raise UsageError("tuning is of no use to a C package: --emit object, or leave -o out")


def tune(args: argparse.Namespace) -> niwaki.Tuning:
    """Measures, writes the file, and returns all that is in it.

    What the file held for other machines, and for other kernels, stays there. Raises UsageError if
    it is damaged.
    """
    file = args.model.with_suffix(".tuning.json") if args.tune == _BESIDE_MODEL else args.tune
    known = niwaki.Tuning.read(file) if file.exists() else niwaki.Tuning()
    step = compile_model(args)
    with Progress() as progress:

        def report(done: int, total: int) -> None:
            progress.show(f"{done} of {total} kernels measured")

        found = step.tune(args.tune_seconds, report)
    tuning = known.updated(step.target, found.of(step.target))
    tuning.write(file)
    return tuning
