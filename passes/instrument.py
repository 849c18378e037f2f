"""Watches passes at work: prints, dumps, times and verifies the IR around each of them."""

import shlex
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from niwaki.ir.effects import verify
from niwaki.ir.errors import NiwakiError


class PassObserver:
    """Sees the module before and after each pass; passes are numbered from 1."""

    def before(self, number: int, name: str, module: ModuleOp) -> None:
        """Called before pass `name`."""

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        """Called after pass `name`, unless it raised."""


@dataclass
class PrintIr(PassObserver):
    """Prints the module before and after the named passes."""

    stream: IO[str]
    names_before: Collection[str] = ()
    names_after: Collection[str] = ()

    def before(self, number: int, name: str, module: ModuleOp) -> None:
        if name in self.names_before:
            _print_titled(self.stream, f"IR before {name} ({number})", str(module))

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        if name in self.names_after:
            _print_titled(self.stream, f"IR after {name} ({number})", str(module))


@dataclass
class PrintIrAfterChange(PassObserver):
    """Prints the module after each pass that changed it; one line for the others."""

    stream: IO[str]
    _text: str = field(default="", init=False)

    def before(self, number: int, name: str, module: ModuleOp) -> None:
        self._text = str(module)

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        text = str(module)
        if text == self._text:
            self.stream.write(f"// ----- IR after {name} ({number}): no change ----- //\n")
        else:
            _print_titled(self.stream, f"IR after {name} ({number})", text)


@dataclass
class DumpIr(PassObserver):
    """Writes 00-input.mlir, then one file per pass: 01-canonicalize.mlir, ..."""

    folder: Path

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)

    def before(self, number: int, name: str, module: ModuleOp) -> None:
        if number == 1:
            self._dump("00-input.mlir", module)

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        self._dump(f"{number:02}-{name}.mlir", module)

    def _dump(self, file_name: str, module: ModuleOp) -> None:
        (self.folder / file_name).write_text(str(module) + "\n", encoding="utf-8")


@dataclass
class Timing(PassObserver):
    """Measures each pass; `seconds` holds (name, wall-clock seconds) in order of execution."""

    seconds: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]], init=False)
    _start: float = field(default=0.0, init=False)

    def before(self, number: int, name: str, module: ModuleOp) -> None:
        self._start = time.perf_counter()

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        self.seconds.append((name, time.perf_counter() - self._start))


class VerifyEach(PassObserver):
    """Verifies operations, types, dominance and effect order after each pass."""

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        verify(module)


class PassCrashError(Exception):
    """A pass, or the verifier after it, raised what is no error of the user's."""

    def __init__(self, number: int, name: str, cause: Exception, reproducer: Path | None):
        self.reproducer = reproducer
        hint = "" if reproducer is None else f"; reproducer: {reproducer}"
        super().__init__(
            f"pass '{name}' (number {number}) failed: {type(cause).__name__}: {cause}{hint}"
        )


@dataclass(frozen=True)
class PassRunner:
    """Applies passes in order under observation."""

    observers: Sequence[PassObserver] = ()
    """Called in this order around each pass."""
    reproducer: Path | None = None
    """Where a crash writes the module before the failing pass and the remaining pipeline."""

    def run(self, ctx: Context, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
        """Applies `passes` to `module`.

        Raises NiwakiError as a pass raised it, and PassCrashError for everything else.
        """
        original = None if self.reproducer is None else module.clone()
        for i, step in enumerate(passes):
            try:
                for observer in self.observers:
                    observer.before(i + 1, step.name, module)
                step.apply(ctx, module)
                for observer in self.observers:
                    observer.after(i + 1, step.name, module)
            except NiwakiError:
                raise
            except Exception as cause:
                if self.reproducer is not None and original is not None:
                    # Replaying is cheaper than keeping a copy of the module before every pass.
                    _replay(ctx, original, passes[:i])
                    _write_reproducer(self.reproducer, original, passes[i:])
                raise PassCrashError(i + 1, step.name, cause, self.reproducer) from cause


def _print_titled(stream: IO[str], title: str, text: str) -> None:
    stream.write(f"// ----- {title} ----- //\n{text}\n\n")


def _replay(ctx: Context, module: ModuleOp, passes: Sequence[ModulePass]) -> None:
    for step in passes:
        step.apply(ctx, module)


def _write_reproducer(path: Path, module: ModuleOp, remaining: Sequence[ModulePass]) -> None:
    pipeline = shlex.quote(",".join(str(step) for step in remaining))
    command = f"// RUN: niwaki-opt %s --verify-each -p {pipeline}"
    path.write_text(f"{command}\n\n{module!s}\n", encoding="utf-8")
