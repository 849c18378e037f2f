"""Searches the update scheme that learns most within a memory budget."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np

from niwaki.contributions import search
from niwaki.files import write_atomically
from niwaki.fine_tuning import Dataset, FineTuning, Score
from niwaki.ir.errors import UsageError
from niwaki.measurements import Measurements
from niwaki.passes.scheme_search import Contributions, FoundScheme, SchemeSpace
from niwaki.printable import printable
from niwaki.tools.datasets import load_dataset
from niwaki.tools.model_flags import add_model_flags, load_model, size_in_bytes, training_arguments
from niwaki.tools.output_files import check_suffix
from niwaki.tools.progress import Progress
from niwaki.tools.result import Result

HELD_OUT = 0.25
"""Of the samples, where no data to test on is given."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the budget, the data, how long to measure, and where the results go."""
    add_model_flags(parser, target=False, update=False)
    parser.add_argument(
        "--budget",
        metavar="BYTES",
        type=size_in_bytes,
        required=True,
        help="most bytes that updating adds to inference, by the analytic model, e.g. 128K",
    )
    parser.add_argument(
        "--data", metavar="FILE", type=Path, required=True, help=".npz with the arrays x and y"
    )
    parser.add_argument(
        "--test-data",
        metavar="FILE",
        type=Path,
        help="what gains are measured on (default: a quarter of the data, which is not trained on)",
    )
    parser.add_argument("--steps", type=int, default=100, help="of each training (%(default)s)")
    parser.add_argument(
        "--repeats", type=int, default=3, help="trainings that a gain is the mean of (%(default)s)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="measurements at once (%(default)s)")
    parser.add_argument(
        "--state",
        metavar="FILE",
        type=Path,
        help="where measurements are kept as they come: the same search goes on from there, with "
        "another budget too (default: the output's name with .jsonl)",
    )
    parser.add_argument(
        "--picture", metavar="FILE", type=Path, help="draw the contributions to a .png file"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="a .toml scheme"
    )


def run(args: argparse.Namespace) -> Result:
    """Measures each part of a scheme, chooses the best ones, and measures these together.

    Raises UsageError if a flag or the data does not fit or training diverges, DoesNotFitError if
    not even the head is within the budget, and what loading and compiling raise.
    """
    _check(args)
    picture: Path | None = args.picture
    draw = None if picture is None else _picture()
    options = training_arguments(args)
    train, held_out = _data(args)
    program = load_model(args)
    effort = (args.steps, args.repeats, args.seed)
    tuning = FineTuning(program, train, held_out, *effort, options)
    space = SchemeSpace.of(tuning.forward(), args.budget)
    measurements = Measurements(args.state or args.output.with_suffix(".jsonl"), tuning)
    with Progress() as progress:

        def show(done: int, total: int) -> None:
            progress.show(f"{done} of {total} measurements")

        gains, found = search(tuning, space, measurements, args.jobs, show)
    head, score = measurements[space.head], measurements[found.scheme]
    write_atomically(args.output, _scheme_file(args, space, gains, found).encode())
    if draw is not None and picture is not None:
        write_atomically(picture, draw(space, gains, found, args.model.name))
    data = {
        "budget_bytes": args.budget,
        "update_bytes": found.bytes,
        "predicted_gain": found.gain,
        "head": vars(head),
        "scheme": vars(score),
        "biases": found.scheme.biases,
        "weights": found.scheme.weights,
        "output": str(args.output),
    }
    return Result(_text(args, found, head, score), data)


def _check(args: argparse.Namespace) -> None:
    for flag in ("steps", "repeats", "jobs"):
        if getattr(args, flag) < 1:
            raise UsageError(f"--{flag} must be >= 1, got {getattr(args, flag)}")
    if args.output.suffix != ".toml":
        raise UsageError(f"the output must be a .toml file, got '{args.output}'")
    if args.picture is not None:
        check_suffix("--picture", args.picture, ".png")


def _picture() -> Callable[[SchemeSpace, Contributions, FoundScheme, str], bytes]:
    try:
        # Matplotlib takes a second to load, and is an extra.
        from niwaki.tools.contribution_picture import contribution_picture
    except ModuleNotFoundError as error:
        raise UsageError(
            f"a picture needs {error.name}: install it with pip install 'niwaki[report]'"
        ) from None
    return contribution_picture


def _data(args: argparse.Namespace) -> tuple[Dataset, Dataset]:
    """To train with, and to measure on."""
    x, y = load_dataset(args.data)
    if args.test_data is not None:
        return (x, y), load_dataset(args.test_data)
    order = np.random.default_rng(args.seed).permutation(len(x))
    held_out, train = np.split(order, [round(HELD_OUT * len(x))])
    return (x[train], y[train]), (x[held_out], y[held_out])


def _scheme_file(
    args: argparse.Namespace, space: SchemeSpace, gains: Contributions, found: FoundScheme
) -> str:
    lines = [
        f"Found by niwaki search for {args.model.name}.",
        f"{found.bytes:,.0f} bytes by the analytic model, of a budget of {args.budget:,}.",
        f"Predicted decrease of the loss in {args.steps} steps: {found.gain:.4f}, of which",
        f"  biases of the last {found.scheme.biases} layer(s): "
        f"{gains.biases[found.scheme.biases or 0]:.4f}",
    ]
    for number, ratio in (found.scheme.weights or {}).items():
        part = (int(number), ratio)
        lines.append(
            f"  layer {number}, {space.layers[part[0]]}: {gains.weights[part]:.4f} "
            f"for {space.weight_bytes[part]:,.0f} bytes"
        )
    header = "".join(f"# {printable(line)}\n" for line in lines)
    return f"{header}{found.scheme.to_toml()}"


def _text(args: argparse.Namespace, found: FoundScheme, head: Score, score: Score) -> str:
    lines = [f"{found.bytes:,.0f} of {args.budget:,} bytes"]
    for name, figures in (("head alone", head), ("found scheme", score)):
        accuracy = "" if figures.accuracy is None else f", accuracy {figures.accuracy:.4f}"
        lines.append(f"{name}: loss {figures.loss:.4f}{accuracy}")
    lines.append(f"predicted: loss {head.loss - found.gain:.4f}")
    return "\n".join([*lines, f"written: {args.output}"])
