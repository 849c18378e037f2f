"""A measured process: builds one training step, then times it whenever it is asked to.

A line of JSON leaves it when the step is built, one more for every line of seconds that comes in,
both through its standard input, a socket.
"""

import argparse
import gc
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from textwrap import shorten
from typing import TextIO

from benchmarks.peers.models import Model
from benchmarks.peers.networks import MODELS

FIRST_STEPS = 6
"""Whose losses are compared."""
LEAST_SAMPLES = 3


@dataclass(frozen=True)
class Task:
    """What is measured."""

    model_name: str
    batch: int
    threads: int
    update: str
    folder: Path
    """For files that are made ahead of time; shared by the tasks of one model, batch and update."""

    @property
    def model(self) -> Model:
        """The model of that name."""
        return MODELS[self.model_name]

    def arguments(self) -> list[str]:
        """A worker's command line."""
        return [
            f"--model={self.model_name}",
            f"--batch={self.batch}",
            f"--threads={self.threads}",
            f"--update={self.update}",
            f"--folder={self.folder}",
        ]

    @classmethod
    def parse(cls) -> "Task":
        """From this process's command line."""
        parser = argparse.ArgumentParser()
        parser.add_argument("--model", required=True)
        parser.add_argument("--batch", type=int, required=True)
        parser.add_argument("--threads", type=int, required=True)
        parser.add_argument("--update", required=True)
        parser.add_argument("--folder", type=Path, required=True)
        given = parser.parse_args()
        return cls(given.model, given.batch, given.threads, given.update, given.folder)


@dataclass(frozen=True)
class Built:
    """A step that is ready to run."""

    step: Callable[[], float]
    """Runs one training step; returns its loss."""
    peak_bytes: int | None = None
    """Of resident memory over the imports, where it was measured elsewhere."""


@dataclass(frozen=True)
class Start:
    """What a worker says once its step has run."""

    version: str
    seconds: float
    """From the imported framework to the end of the first step."""
    losses: list[float]
    """Of the first steps."""
    peak_bytes: int
    """Most resident memory while stepping, over that after the imports."""


def serve(version: str, build: Callable[[Task], Built]) -> None:
    """Runs the worker, whose imports are done. `build` may raise: that is the answer then."""
    task = Task.parse()
    imported = resident_bytes()
    # Standard input is a socket: frameworks print to the output what they like.
    with os.fdopen(os.dup(0), "w") as answers:
        try:
            start = _start(version, task, build, imported)
        except Exception as error:
            _answer(answers, {"error": _describe(error)})
            raise
        built, first = start
        _answer(answers, asdict(first))
        # Other programs on the processor would lengthen long steps, seldom short ones: on one
        # processor the process's own time is what a step takes without them.
        clock = time.process_time if task.threads == 1 else time.perf_counter
        for line in sys.stdin:
            _answer(answers, {"ms": step_milliseconds(built.step, float(line), clock)})


def _start(
    version: str, task: Task, build: Callable[[Task], Built], imported: int
) -> tuple[Built, Start]:
    start = time.perf_counter()
    built = build(task)
    losses = [built.step()]
    seconds = time.perf_counter() - start
    losses += [built.step() for _ in range(FIRST_STEPS - 1)]
    peak = built.peak_bytes
    if peak is None:
        peak = peak_over(imported, built.step)
    return built, Start(version, seconds, losses, peak)


def resident_bytes() -> int:
    """Of this process, now."""
    return _status_bytes("VmRSS")


def peak_over(before: int, step: Callable[[], object]) -> int:
    """Most resident bytes during two steps, over `before`."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step()
    step()
    return _status_bytes("VmHWM") - before


def step_milliseconds(
    step: Callable[[], object], seconds: float, clock: Callable[[], float]
) -> float:
    """Median, by `clock`, of the steps that fit into `seconds`.

    The first is left out unless it alone fills them.
    """

    def timed() -> float:
        start = clock()
        step()
        return 1e3 * (clock() - start)

    end = time.perf_counter() + seconds
    first = timed()
    if time.perf_counter() >= end:
        return first
    samples: list[float] = []
    while time.perf_counter() < end or len(samples) < LEAST_SAMPLES:
        samples.append(timed())
    return statistics.median(samples)


def _answer(answers: TextIO, message: object) -> None:
    print(json.dumps(message), file=answers, flush=True)


def _describe(error: Exception) -> str:
    return shorten(f"{type(error).__name__}: {error}", 400)


def _status_bytes(field: str) -> int:
    """Bytes, of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(value)
