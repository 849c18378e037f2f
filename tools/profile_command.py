"""Times every kernel call of a training step on this machine, against what the machine can do.

The batch is random. A call's roofline is the least time that this machine takes for its operations,
or to move its operands and results once, whichever is longer; both rates are measured by loops of
Niwaki's own.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from niwaki.backends.targets import get_target
from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError
from niwaki.profiling import CallProfile, Profile
from niwaki.tools.model_flags import (
    add_model_flags,
    add_threads_flag,
    add_tuning_flag,
    compile_model,
)
from niwaki.tools.output_files import check_suffix
from niwaki.tools.profile_trace import trace_json
from niwaki.tools.random_batch import random_batch
from niwaki.tools.result import Result

_COLUMNS = f"{'us':>10}{'% of step':>11}{'GFLOP/s':>9}{'GB/s':>8}{'roofline':>10}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, how long to measure, and the files to write."""
    add_model_flags(parser)
    add_threads_flag(parser)
    add_tuning_flag(parser)
    parser.add_argument(
        "--repetitions",
        metavar="N",
        type=int,
        default=30,
        help="steps that times are the medians of (%(default)s)",
    )
    parser.add_argument(
        "--top", metavar="N", type=int, default=20, help="slowest calls to list (%(default)s)"
    )
    parser.add_argument(
        "--trace",
        metavar="FILE",
        type=Path,
        help="also write the step as a .json file for chrome://tracing or ui.perfetto.dev",
    )
    parser.add_argument(
        "--picture", metavar="FILE", type=Path, help="also draw the roofline to a .png file"
    )


def run(args: argparse.Namespace) -> Result:
    """Compiles, runs on a random batch, and lists the slowest calls.

    Raises UsageError if a flag does not fit, the target is another machine or the extra `report`
    is missing, and what loading and compiling raise.
    """
    if args.top < 1:
        raise UsageError(f"--top must be >= 1, got {args.top}")
    if args.trace is not None:
        check_suffix("--trace", args.trace, ".json")
    picture: Path | None = args.picture
    draw = None
    if picture is not None:
        check_suffix("--picture", picture, ".png")
        draw = _picture()
    if not get_target(args.target).jit:
        raise UsageError(
            f"a profile is of this machine, and the target is {args.target}: leave --target out "
            "(what a step takes on a core, the example of its C package reports)"
        )
    step = compile_model(args)
    batch = random_batch(step.lowered, args.loss, args.seed)
    profile = step.profile(*batch, repetitions=args.repetitions)
    files: dict[Path, bytes] = {}
    if args.trace is not None:
        files[args.trace] = trace_json(profile, args.model.name)
    if draw is not None and picture is not None:
        files[picture] = draw(profile, args.model.name)
    for path, data in files.items():
        write_atomically(path, data)
    written = [f"written: {path}" for path in files]
    return Result("\n".join([*table(profile, args.top), *written]), figures(profile))


def _picture() -> Callable[[Profile, str], bytes]:
    try:
        # Matplotlib takes a second to load, and is an extra.
        from niwaki.tools.roofline_picture import roofline_picture
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a picture needs {error.name}: install it with pip install 'niwaki[report]'"
        ) from None
    return roofline_picture


def table(profile: Profile, top: int) -> list[str]:
    """Lines: the `top` slowest calls, all calls by operation, and what is left of the step."""
    slowest = sorted(profile.calls, key=lambda call: -call.seconds)[:top]
    by_op: dict[str, list[CallProfile]] = {}
    for call in profile.calls:
        by_op.setdefault(call.op, []).append(call)
    totals = sorted(by_op.items(), key=lambda item: -sum(c.seconds for c in item[1]))
    limits = profile.limits
    rates = [rate / 1e9 for rate in limits.bytes_per_second.values()]
    return [
        f"this machine: {limits.flops_per_second / 1e9:,.1f} GFLOP/s, "
        f"{rates[0]:,.1f} GB/s in the smallest cache, {rates[-1]:,.1f} GB/s in memory",
        f"{_COLUMNS}  slowest calls",
        *(
            f"{_row(profile, [call])}  {call.kernel}{f', {call.place}' if call.place else ''}"
            for call in slowest
        ),
        f"{_COLUMNS}  by operation",
        *(f"{_row(profile, calls)}  {op} x {len(calls)}" for op, calls in totals),
        f"{_row(profile, profile.calls)}  all calls",
        f"{_time(profile, profile.rest_seconds)}{'':27}  the rest: inputs, outputs, Python",
        f"{_time(profile, profile.step_seconds)}{'':27}  the step",
    ]


def _time(profile: Profile, seconds: float) -> str:
    return f"{1e6 * seconds:>10,.2f}{seconds / profile.step_seconds:>11.1%}"


def _row(profile: Profile, calls: Sequence[CallProfile]) -> str:
    seconds = sum(call.seconds for call in calls)
    flops, size = sum(call.flops for call in calls), sum(call.bytes for call in calls)
    share = sum(call.least_seconds for call in calls) / seconds
    rates = f"{flops / seconds / 1e9:>9,.1f}{size / seconds / 1e9:>8,.1f}"
    return f"{_time(profile, seconds)}{rates}{share:>10.0%}"


def figures(profile: Profile) -> dict[str, object]:
    """What --json prints: seconds, operations and bytes of each call, in the order of the step."""
    limits = profile.limits
    return {
        "repetitions": profile.repetitions,
        "step_seconds": profile.step_seconds,
        "call_seconds": profile.call_seconds,
        "rest_seconds": profile.rest_seconds,
        "roofline_share": profile.roofline_share,
        "machine": {
            "flops_per_second": limits.flops_per_second,
            "bytes_per_second": [
                {"bytes": size, "rate": rate} for size, rate in limits.bytes_per_second.items()
            ],
        },
        "calls": [
            {
                **asdict(call),
                "flops_per_second": call.flops_per_second,
                "bytes_per_second": call.bytes_per_second,
                "roofline_share": call.roofline_share,
            }
            for call in profile.calls
        ],
    }
