"""Collects tests/**/*.mlir: each RUN line is a test, run inside this process.

    // RUN: niwaki-opt %s -p cse | filecheck %s

A RUN line is niwaki-opt one or more times, then filecheck, joined by pipes; %s is the file.
"""

import contextlib
import io
import shlex
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import TerminalRepr
from filecheck.finput import FInput
from filecheck.matcher import Matcher
from filecheck.options import parse_argv_options
from filecheck.parser import Parser

from niwaki.tools import niwaki_opt

RUN = "// RUN:"


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> "MlirFile | None":
    """Claims .mlir files."""
    if file_path.suffix != ".mlir":
        return None
    return MlirFile.from_parent(parent, path=file_path)


class MlirFile(pytest.File):
    """One test per RUN line."""

    def collect(self) -> Iterator["RunLine"]:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        commands = [line.removeprefix(RUN).strip() for line in lines if line.startswith(RUN)]
        if not commands:
            raise self.CollectError(f"{self.path} has no '{RUN}' line")
        for number, command in enumerate(commands, 1):
            yield RunLine.from_parent(self, name=f"RUN{number}", command=command)


class FileCheckError(Exception):
    """The RUN line failed; the message tells the whole story."""


class RunLine(pytest.Item):
    """Pipes niwaki-opt into filecheck."""

    def __init__(self, command: str, **kwargs: object) -> None:
        super().__init__(**kwargs)  # pyright: ignore[reportArgumentType]
        self.command = command

    def runtest(self) -> None:
        *stages, check = [shlex.split(stage) for stage in self.command.split("|")]
        text = ""
        for stage in stages:
            text = self._opt([str(self.path) if a == "%s" else a for a in stage], text)
        self._check([str(self.path) if a == "%s" else a for a in check], text)

    def _opt(self, command: list[str], stdin: str) -> str:
        if command[0] != "niwaki-opt":
            raise FileCheckError(f"only niwaki-opt may precede filecheck, not '{command[0]}'")
        out, err = io.StringIO(), io.StringIO()
        with _stdin(stdin), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = niwaki_opt.main(command[1:])
        if code != 0:
            raise FileCheckError(f"{self.command}\nexit code {code}\n{err.getvalue()}")
        return out.getvalue()

    def _check(self, command: list[str], text: str) -> None:
        if command[0] != "filecheck":
            raise FileCheckError(f"the last command must be filecheck, not '{command[0]}'")
        options = parse_argv_options(command)
        matcher = Matcher(options, FInput("<output>", text), Parser.from_opts(options))
        matcher.stderr = io.StringIO()
        if matcher.run() != 0:
            failure = matcher.stderr.getvalue()
            raise FileCheckError(f"{self.command}\n{failure}\n----- output -----\n{text}")

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None
    ) -> str | TerminalRepr:
        if isinstance(excinfo.value, FileCheckError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.name}: {self.command}"


@contextlib.contextmanager
def _stdin(text: str) -> Generator[None]:
    previous = sys.stdin
    sys.stdin = io.TextIOWrapper(io.BytesIO(text.encode("utf-8")), encoding="utf-8")
    try:
        yield
    finally:
        sys.stdin = previous
