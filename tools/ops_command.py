"""Lists the operations that Niwaki knows, and what they come from."""

import argparse
from collections.abc import Mapping

from niwaki.frontends import aten, onnx_ops
from niwaki.ir.dialects import nn
from niwaki.tools.result import Result

NAME = "ops"
HELP = "list the supported operations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace) -> Result:
    """One row per operation of the nn dialect, and one per operation of each frontend."""
    frontends: dict[str, Mapping[str, tuple[str, ...]]] = {"torch": aten.OPS, "onnx": onnx_ops.OPS}
    rows = [
        {
            "op": op.name,
            "summary": (op.__doc__ or "").strip().splitlines()[0],
            **{name: _sources(ops, op.name) for name, ops in frontends.items()},
        }
        for op in sorted(nn.NN.operations, key=lambda op: op.name)
    ]
    lines: list[str] = []
    for row in rows:
        lines.append(f"{row['op']:<22}{row['summary']}")
        lines += [f"{'':<22}{name}: {', '.join(row[name])}" for name in frontends if row[name]]
    return Result("\n".join(lines), {"ops": rows})


def _sources(ops: Mapping[str, tuple[str, ...]], name: str) -> list[str]:
    """The operations of a frontend that become (among others) the operation `name`."""
    return sorted(source for source, becomes in ops.items() if name in becomes)
