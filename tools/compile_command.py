"""Compiles a model's training step to C, an object file or LLVM IR."""

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from niwaki.backends.c.package import PACKAGES
from niwaki.backends.targets import get_target
from niwaki.files import write_atomically
from niwaki.ir.context import NiwakiContext
from niwaki.ir.errors import UsageError
from niwaki.passes.instrument import PassRunner, Timing
from niwaki.passes.pipelines import training_pipeline
from niwaki.step import TrainingStep
from niwaki.tools.model_flags import (
    add_model_flags,
    add_threads_flag,
    compile_model,
    load_model,
    options_of,
    techniques_of,
)
from niwaki.tools.pass_flags import add_pass_flags, pass_observers, print_timing, selected_passes
from niwaki.tools.result import Result
from niwaki.tools.tune_flags import add_tune_flags, check_tune_flags, tune


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the output and how to watch the passes."""
    add_model_flags(parser)
    add_threads_flag(parser)
    add_tune_flags(parser)
    parser.add_argument(
        "-o", "--output", metavar="OUT", type=Path, help="folder of the C package, or file"
    )
    parser.add_argument(
        "--emit", choices=("c", "object", "llvm"), default="c", help="what to write (%(default)s)"
    )
    parser.add_argument(
        "--package", choices=PACKAGES, default="plain", help="kind of C package (%(default)s)"
    )
    parser.add_argument(
        "--name", default="model", help="start of every name in the C package (%(default)s)"
    )
    add_pass_flags(parser)


def run(args: argparse.Namespace) -> Result:
    """Writes the output whole or not at all; with --stop-after or --pass-limit, prints the IR."""
    if args.threads > 1 and args.emit == "c":
        raise UsageError("C packages run on one thread: leave --threads out, or --emit object")
    check_tune_flags(args)
    options = options_of(args)
    passes = training_pipeline(
        options, get_target(args.target), args.batch, args.batch_norm, techniques_of(args)
    )
    selected = selected_passes(args, passes)
    timing = Timing()
    runner = PassRunner(pass_observers(args, passes, sys.stderr, timing))
    try:
        if len(selected) < len(passes):
            program = load_model(args).clone()
            runner.run(NiwakiContext(program.weights), program.module, selected)
            return Result(str(program.module), {"ir": str(program.module)})
        if args.output is None and args.tune is None:
            raise UsageError("say where the result goes: -o OUT")
        tuning = None if args.tune is None else tune(args)
        step = compile_model(args, runner, tuning)
    finally:
        if args.timing:
            print_timing(timing, sys.stderr)
    if args.output is not None:
        _write(step, args)
    memory = step.memory
    data = {
        "target": args.target,
        "output": None if args.output is None else str(args.output),
        "tuned_kernels": step.tuned_kernels,
        "arena_bytes": memory.arena_bytes,
        "lower_bound_bytes": memory.lower_bound_bytes,
        "state_bytes": memory.state_bytes,
        "constant_bytes": memory.constant_bytes,
        "regions": [asdict(region) for region in memory.regions],
        "compile_seconds": dict(step.compile_seconds),
    }
    lines = [memory.table()]
    if args.tune is not None or args.tuning is not None:
        lines.append(f"kernels by measurement: {step.tuned_kernels}")
    if args.output is not None:
        lines.append(f"written: {args.output}")
    return Result("\n".join(lines), data)


def _write(step: TrainingStep, args: argparse.Namespace) -> None:
    match args.emit:
        case "object":
            write_atomically(args.output, step.object_code())
        case "llvm":
            write_atomically(args.output, step.llvm_text().encode())
        case _:
            step.write_c(args.output, args.package, args.name)
