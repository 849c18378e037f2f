"""Reports on the memory of a model: a page, a picture of each entry point, and a trace."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path

from niwaki.backends.targets import get_target
from niwaki.compilation import fitting_plan
from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError
from niwaki.memory import Memory, largest_at_peak
from niwaki.passes.planner import Planner
from niwaki.printable import printable
from niwaki.tools.model_flags import add_model_flags, load_model, options_of, techniques_of
from niwaki.tools.output_files import check_suffix
from niwaki.tools.plan_only import add_plan_flags, run_plan_only
from niwaki.tools.report.ablations import ablations
from niwaki.tools.report.contents import EntryReport, Report, report_on
from niwaki.tools.report.trace import trace_json
from niwaki.tools.report.trade_off import trade_off
from niwaki.tools.result import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and the files to write."""
    add_model_flags(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=Path,
        help="the page, a .html file; pictures go beside it as FILE-train_step.png, ... "
        "(default: the model's name in this folder, with -report.html)",
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        type=Path,
        help="also write the calls as a .json file for chrome://tracing or ui.perfetto.dev",
    )
    parser.add_argument(
        "--budgets",
        metavar="N",
        type=int,
        default=8,
        help="memory budgets to plan for, for the curve of time against memory; 0: no curve "
        "(%(default)s)",
    )
    add_plan_flags(parser)


def run(args: argparse.Namespace) -> Result:
    """Writes one self-contained page, a PNG of each entry point and of the curve of time against
    memory, and the trace if asked for.

    Only plans: no machine code is made. Raises UsageError if a file name does not fit or the
    extra `report` is missing, DoesNotFitError over the memory limit, and what compiling raises.
    """
    if args.plan_only:
        return run_plan_only(args)
    output = args.output or Path(f"{args.model.stem}-report.html")
    check_suffix("--output", output, ".html")
    if args.budgets < 0:
        raise UsageError(f"--budgets must be 0 or more, got {args.budgets}")
    if args.trace is not None:
        check_suffix("--trace", args.trace, ".json")
    try:
        # Plotly and matplotlib take a second to load, and are an extra.
        from niwaki.tools.report.page import html_page
        from niwaki.tools.report.picture import png_curve, png_picture
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a report needs {error.name}: install it with pip install 'niwaki[report]'"
        ) from None
    report, memory = _plan(args)
    files = {output: html_page(report).encode()}
    for entry in report.entries:
        picture = output.with_name(f"{output.stem}-{entry.entry.name}.png")
        files[picture] = png_picture(entry, f"{report.title}: {entry.entry.name}")
    if report.trade_off:
        picture = output.with_name(f"{output.stem}-trade_off.png")
        files[picture] = png_curve(report.trade_off, f"{report.title}: time against memory")
    if args.trace is not None:
        files[args.trace] = trace_json(report)
    for path, data in files.items():
        write_atomically(path, data)
    figures = {
        "state_bytes": report.state_bytes,
        "constant_bytes": report.constant_bytes,
        "entries": {e.entry.name: _figures(e) for e in report.entries},
        "trade_off": [asdict(point) for point in report.trade_off],
        "output": [str(path) for path in files],
    }
    written = "\n".join(f"written: {path}" for path in files)
    return Result(f"{memory.table()}\n{written}", figures)


def _plan(args: argparse.Namespace) -> tuple[Report, Memory]:
    program, target = load_model(args), get_target(args.target)
    planner = Planner(
        program,
        options_of(args),
        target,
        args.batch,
        args.batch_norm,
        techniques=techniques_of(args),
    )
    plan, saved = fitting_plan(planner, args.memory_limit)
    facts = [
        ("update", args.update),
        ("optimizer", args.optimizer),
        ("loss", args.loss),
        ("batch", "the model's" if args.batch is None else str(args.batch)),
        ("activations kept", "exactly" if args.stash is None else f"in {args.stash}"),
        ("target", target.name),
        *([("to keep the memory limit", " and ".join(saved.techniques))] if saved else []),
    ]
    title = f"{args.model.name}: memory of training"
    lowered = plan.program.lower()
    without = ablations(planner, plan.techniques)
    report = report_on(lowered, target, printable(title), facts, without)
    if args.budgets > 0:
        if target.regions:  # the curve is about all of them together
            planner = planner.other(target=replace(target, regions=()))
        report = replace(report, trade_off=trade_off(planner, args.budgets))
    return report, Memory.of(lowered, saved)


def _figures(report: EntryReport) -> dict[str, object]:
    entry = report.entry
    return {
        "arena_bytes": entry.arena_bytes,
        "lower_bound_bytes": entry.bound_bytes,
        "calls": len(report.calls),
        "flops": report.flops,
        "peak_call": report.peak,
        "peak": [{"label": b.label, "bytes": b.bytes} for b in largest_at_peak(entry, 5)],
        "savings": {s.technique: s.bytes for s in report.savings},
    }
