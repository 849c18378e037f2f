"""Draws the memory of a compiled step: its buffers by address and life, and the bytes alive."""

import argparse
from pathlib import Path

from niwaki.files import write_atomically
from niwaki.ir.errors import UsageError
from niwaki.memory import largest_at_peak
from niwaki.printable import printable
from niwaki.tools.model_flags import add_model_flags, compile_model
from niwaki.tools.result import Result

NAME = "report"
HELP = "draw the memory of the training step"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model and the files to write."""
    add_model_flags(parser)
    parser.add_argument(
        "--entry",
        choices=("train_step", "infer", "evaluate"),
        default="train_step",
        help="which entry point (%(default)s)",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, required=True, help="a .html file"
    )
    parser.add_argument("--png", metavar="FILE", type=Path, help="the same as a picture")


def run(args: argparse.Namespace) -> Result:
    """Writes one self-contained page, and the PNG if asked for."""
    if args.output.suffix != ".html":
        raise UsageError(f"the output must be a .html file, got '{args.output}'")
    # Plotly and matplotlib take a second to load, and are an extra.
    from niwaki.tools import picture

    step = compile_model(args)
    entry = step.lowered.entries[args.entry]
    title = f"{printable(args.model.name)}: {args.entry}, update {args.update}, batch {args.batch}"
    page = picture.memory_html(entry, title).encode()
    files = {args.output: page}
    if args.png is not None:
        files[args.png] = picture.memory_png(entry, title)
    for path, data in files.items():
        write_atomically(path, data)
    memory = step.memory
    figures = {
        "entry": args.entry,
        "arena_bytes": entry.arena_bytes,
        "lower_bound_bytes": entry.bound_bytes,
        "state_bytes": memory.state_bytes,
        "constant_bytes": memory.constant_bytes,
        "peak": [{"label": b.label, "bytes": b.bytes} for b in largest_at_peak(entry, 5)],
        "output": str(args.output),
    }
    return Result(f"{memory.table()}\nwritten: {args.output}", figures)
