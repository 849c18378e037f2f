"""The command-line flags that watch and cut a pipeline, for every tool that runs one."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from xdsl.passes import ModulePass

from niwaki.ir.errors import UsageError
from niwaki.passes.instrument import (
    DumpIr,
    PassObserver,
    PrintIr,
    PrintIrAfterChange,
    Timing,
    VerifyEach,
)


def add_pass_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that `selected_passes`, `pass_observers` and `print_timing` read."""
    group = parser.add_argument_group("watching the passes (output goes to stderr)")
    for when in ("before", "after"):
        group.add_argument(
            f"--print-ir-{when}",
            metavar="PASS",
            action="append",
            default=[],
            help=f"print the IR {when} this pass; may be repeated",
        )
        group.add_argument(
            f"--print-ir-{when}-all", action="store_true", help=f"print the IR {when} each pass"
        )
    group.add_argument(
        "--print-ir-after-change",
        action="store_true",
        help="print the IR after each pass that changed it",
    )
    group.add_argument(
        "--dump-dir", metavar="DIR", type=Path, help="write the IR after each pass to a file here"
    )
    group.add_argument(
        "--timing", action="store_true", help="print the seconds of each pass as one JSON object"
    )
    group.add_argument(
        "--verify-each", action="store_true", help="verify the IR after each pass, not only last"
    )
    group.add_argument("--stop-after", metavar="PASS", help="run no pass after this one")
    group.add_argument(
        "--pass-limit", metavar="N", type=int, help="run only the first N passes (for bisecting)"
    )


def selected_passes(args: argparse.Namespace, passes: Sequence[ModulePass]) -> Sequence[ModulePass]:
    """The passes that --stop-after and --pass-limit leave.

    Raises UsageError if a flag names a pass that is not in the pipeline.
    """
    names = [p.name for p in passes]
    stops: list[str] = [] if args.stop_after is None else [args.stop_after]
    for name in (*args.print_ir_before, *args.print_ir_after, *stops):
        if name not in names:
            raise UsageError(f"pass '{name}' is not in the pipeline '{','.join(names)}'")
    if args.pass_limit is not None and args.pass_limit < 0:
        raise UsageError(f"--pass-limit must be >= 0, got {args.pass_limit}")
    end = len(passes) if args.stop_after is None else names.index(args.stop_after) + 1
    return passes[:end] if args.pass_limit is None else passes[: min(end, args.pass_limit)]


def pass_observers(
    args: argparse.Namespace, passes: Sequence[ModulePass], log: IO[str], timing: Timing
) -> list[PassObserver]:
    """The observers that the flags ask for; printed IR goes to `log`, times into `timing`."""
    names = {p.name for p in passes}
    before = names if args.print_ir_before_all else args.print_ir_before
    after = names if args.print_ir_after_all else args.print_ir_after
    # Timing is innermost, so it measures the pass and none of the printing.
    observers: list[PassObserver] = []
    if before or after:
        observers.append(PrintIr(log, before, after))
    if args.print_ir_after_change:
        observers.append(PrintIrAfterChange(log))
    if args.dump_dir is not None:
        observers.append(DumpIr(args.dump_dir))
    if args.verify_each:
        observers.append(VerifyEach())
    if args.timing:
        observers.append(timing)
    return observers


def print_timing(timing: Timing, log: IO[str]) -> None:
    """One JSON object: {"schema": 1, "passes": [{"name": ..., "seconds": ...}, ...]}."""
    passes = [{"name": name, "seconds": seconds} for name, seconds in timing.seconds]
    log.write(json.dumps({"schema": 1, "passes": passes}) + "\n")
