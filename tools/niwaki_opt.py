"""niwaki-opt: runs passes on IR text, for tests, for looking at passes and for bisecting them."""

import argparse
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import IO

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import PassPipeline
from xdsl.targets import get_all_targets
from xdsl.utils.exceptions import ArgSpecParseError, DiagnosticException, ParseError
from xdsl.xdsl_opt_main import xDSLOptMain

from niwaki.ir.context import NiwakiContext
from niwaki.ir.effects import verify
from niwaki.ir.errors import NiwakiError, UsageError
from niwaki.passes.instrument import PassCrashError, PassRunner, Timing
from niwaki.passes.universe import PASSES
from niwaki.tools.pass_flags import add_pass_flags, pass_observers, print_timing, selected_passes

INTERNAL_ERROR = 70


class NiwakiOpt(xDSLOptMain):
    """xDSL's opt tool with Niwaki's dialects, passes and instrumentation, and nothing else."""

    def register_all_dialects(self) -> None:
        self.ctx = NiwakiContext()

    def register_all_passes(self) -> None:
        self.available_passes = dict(PASSES)

    def register_all_targets(self) -> None:
        self.available_targets = {"mlir": get_all_targets()["mlir"]}

    def register_all_arguments(self, arg_parser: argparse.ArgumentParser) -> None:
        arg_parser.prog = "niwaki-opt"
        arg_parser.add_argument("input_file", nargs="?", help="IR text; stdin if absent")
        arg_parser.add_argument("-o", "--output-file", metavar="FILE", help="stdout if absent")
        arg_parser.add_argument(
            "-p",
            "--passes",
            metavar="PIPELINE",
            default="",
            help=f"passes to run, as in 'cse,set-batch{{batch=8}}': {', '.join(PASSES)}",
        )
        arg_parser.add_argument(
            "--split-input-file",
            action="store_true",
            help="treat the parts between '// -----' lines one by one",
        )
        arg_parser.add_argument(
            "--verify-diagnostics",
            action="store_true",
            help="print what is wrong with the input as the result, and exit with 0",
        )
        arg_parser.add_argument(
            "--parsing-diagnostics",
            action="store_true",
            help="print parse errors as the result, and exit with 0",
        )
        arg_parser.add_argument(
            "--print-op-generic", action="store_true", help="print the generic form"
        )
        arg_parser.add_argument("--print-debuginfo", action="store_true", help="print locations")
        arg_parser.add_argument(
            "--reproducer",
            metavar="FILE",
            type=Path,
            default=Path("niwaki-opt-reproducer.mlir"),
            help="what a crash of a pass writes (%(default)s)",
        )
        arg_parser.add_argument(
            "--version",
            action="version",
            version=f"niwaki-opt {version('niwaki')} (xDSL {version('xdsl')})",
        )
        add_pass_flags(arg_parser)
        # What xDSL's tool reads besides.
        arg_parser.set_defaults(
            frontend="mlir",
            target="mlir",
            no_implicit_module=False,
            allow_unregistered_dialect=False,
            disable_verify=False,
            syntax_highlight=False,
            print_no_properties=False,
            shrink=False,
        )

    def setup_pipeline(self) -> None:
        try:
            self.pipeline = PassPipeline.parse_spec(self.available_passes, self.args.passes)
        except (ArgSpecParseError, ValueError) as error:
            raise UsageError(f"bad pipeline '{self.args.passes}': {_last_line(error)}") from None
        self.selected = selected_passes(self.args, self.pipeline.passes)

    def parse_chunk(
        self, chunk: IO[bytes], file_extension: str, start_offset: int = 0
    ) -> ModuleOp | None:
        try:
            return super().parse_chunk(chunk, file_extension, start_offset)
        except (ParseError, DiagnosticException):
            raise
        except Exception as error:
            # xDSL's parser lets a few of Python's own errors through on malformed text.
            reason = f"{type(error).__name__}: {_last_line(error)}"
            raise UsageError(f"cannot parse {self.get_input_name()}: {reason}") from error

    def apply_passes(self, prog: ModuleOp) -> None:
        verify(prog)
        timing = Timing()
        observers = pass_observers(self.args, self.selected, sys.stderr, timing)
        try:
            PassRunner(observers, self.args.reproducer).run(self.ctx, prog, self.selected)
        except NiwakiError as error:
            if not self.args.verify_diagnostics:
                raise
            raise DiagnosticException(str(error)) from error
        finally:
            if self.args.timing:
                print_timing(timing, sys.stderr)
        _verify_result(prog)


def _verify_result(module: ModuleOp) -> None:
    try:
        verify(module)
    except DiagnosticException as error:
        raise RuntimeError(f"invalid IR after the last pass: {error}; try --verify-each") from error


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _message(error: Exception) -> str:
    if not isinstance(error, ParseError):
        return str(error)
    return f"{error.span.get_location()}: {error.msg}"


def main(args: Sequence[str] | None = None) -> int:
    """Runs niwaki-opt with the command line `args`; returns the exit code.

    0: fine; 2 (or the code of the NiwakiError): bad usage or input; 70: a pass crashed.
    """
    try:
        NiwakiOpt("Runs Niwaki's passes on IR text.", args).run()
    except NiwakiError as error:
        print(f"niwaki-opt: error: {error}", file=sys.stderr)
        return error.exit_code
    except (ParseError, DiagnosticException, OSError) as error:
        print(f"niwaki-opt: error: {_message(error)}", file=sys.stderr)
        return UsageError.exit_code
    except PassCrashError as crash:
        traceback.print_exception(crash.__cause__)
        print(f"niwaki-opt: internal error: {crash}", file=sys.stderr)
        return INTERNAL_ERROR
    except Exception as error:
        traceback.print_exception(error)
        print(f"niwaki-opt: internal error: {error}", file=sys.stderr)
        return INTERNAL_ERROR
    return 0


if __name__ == "__main__":
    sys.exit(main())
