"""Runs what a worker needs done before it measures, in a process of its own."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.peers.worker import Task


class AheadOfTimeError(RuntimeError):
    """A compiler or exporter has refused its input."""


def once(folder: Path, make: Callable[[], None]) -> None:
    """Makes the files of a step, unless an earlier run has made them all."""
    mark = folder / "made"
    if not mark.exists():
        make()
        mark.touch()


def run_script(environment: str, script: str, task: Task) -> None:
    """Runs a script of this folder for `task`, in the environment beside this process's."""
    run_python(Path(sys.prefix).parent / environment / "bin" / "python", script, task)


def run_python(python: Path, script: str, task: Task) -> str:
    """The same with an interpreter; returns what it printed."""
    module = f"benchmarks.peers.frameworks.{script}"
    return run_ahead([str(python), "-m", module, *task.arguments()])


def run_ahead(command: Sequence[str], folder: Path | None = None) -> str:
    """Runs a program of this environment in `folder`; returns what it printed.

    Raises AheadOfTimeError with its first error line.
    """
    program = Path(sys.prefix) / "bin" / command[0]
    done = subprocess.run([str(program), *command[1:]], cwd=folder, capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.strip().splitlines()
    errors = [line for line in lines if "rror" in line] or lines[-1:]
    raise AheadOfTimeError(errors[0] if errors else f"{command[0]} ended with {done.returncode}")
