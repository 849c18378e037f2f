"""niwaki: compiles, trains, reports and verifies models from the command line."""

import argparse
import os
import sys
import traceback
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from types import MappingProxyType

from niwaki.collector import rare_collections
from niwaki.ir.errors import NiwakiError

INTERNAL_ERROR = 70

COMMANDS: Mapping[str, str] = MappingProxyType(
    {
        "compile": "compile the training step of a model",
        "train": "train on this machine",
        "search": "search the update scheme that learns most within a budget",
        "report": "show where the memory of training goes, as a page and pictures",
        "profile": "show where the time of a training step goes on this machine",
        "verify": "compare the compiled step with the reference",
        "plan": "place the buffers of a file in one arena",
        "ops": "list the supported operations",
        "doctor": "show versions and toolchains",
    }
)
"""Name -> help. NAME_command.py has add_arguments(parser) and run(args) -> Result."""


def _parser(chosen: str) -> argparse.ArgumentParser:
    """Knows the arguments of the command `chosen` alone: the modules of all take a second."""
    parser = argparse.ArgumentParser(
        prog="niwaki", description="Compiles the training of neural networks for small devices."
    )
    parser.add_argument("--version", action="version", version=f"niwaki {version('niwaki')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, text in COMMANDS.items():
        command = commands.add_parser(name, help=text)
        if name != chosen:
            continue
        module = import_module(f"niwaki.tools.{name}_command")
        command.description = module.__doc__
        module.add_arguments(command)
        command.add_argument(
            "--json", action="store_true", help="print one JSON object on stdout, nothing else"
        )
        command.add_argument(
            "--traceback", action="store_true", help="show where an internal error comes from"
        )
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code.

    0: fine; 2: usage; 3: unsupported operation; 4: does not fit; 5: mismatch; 6: bad model file;
    70: an error of Niwaki's own.
    """
    words = sys.argv[1:] if arguments is None else arguments
    args = _parser(next(iter(words), "")).parse_args(words)
    try:
        with rare_collections():
            result = args.run(args)
    except NiwakiError as error:
        print(f"niwaki: error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("niwaki: interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if args.traceback:
            traceback.print_exc()
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"niwaki: internal error: {line} (--traceback shows where)", file=sys.stderr)
        return INTERNAL_ERROR
    _print(result.json(args.command) if args.json else result.text)
    return 0


def _print(text: str) -> None:
    """Prints to a reader that may leave early, as `head` does."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        # What Python itself still flushes at exit goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
