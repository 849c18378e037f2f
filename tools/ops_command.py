"""Lists the operations that Niwaki knows, and what they come from."""

import argparse
from dataclasses import asdict

from niwaki.tools.ops_table import FAMILIES, Row, markdown, rows
from niwaki.tools.result import Result


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the flags."""
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables of docs/ops.md instead"
    )


def run(args: argparse.Namespace) -> Result:
    """One row per operation, with what becomes it, its gradient and its kernel."""
    table = [row for family in FAMILIES for row in rows(family)]
    text = markdown() if args.markdown else "\n".join(line for row in table for line in _lines(row))
    return Result(text, {"ops": [asdict(row) for row in table]})


def _lines(row: Row) -> list[str]:
    details = {
        "torch": ", ".join(row.torch),
        "onnx": ", ".join(row.onnx),
        "made by": row.origin,
        "gradient": row.gradient,
        "kernel": row.kernel,
    }
    return [
        f"{row.op:<22}{row.summary}",
        *(f"{'':<22}{name}: {text}" for name, text in details.items() if text),
    ]
