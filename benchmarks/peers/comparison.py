"""Contestants on one case: built one after the other, then timed in turn, round by round."""

import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers.contestants import CONTESTANTS
from benchmarks.peers.processes import Worker, WorkerError, idle_processors
from benchmarks.peers.worker import Start, Task


@dataclass(frozen=True)
class Case:
    """What the contestants run."""

    model: str
    update: str
    batch: int
    threads: int

    @property
    def step(self) -> str:
        """What is made ahead of time, for any number of threads."""
        return f"{self.model}-{self.update}-b{self.batch}"

    @property
    def name(self) -> str:
        """As in the rows of all benchmarks."""
        return f"{self.model}/{self.update}/host/b{self.batch}/t{self.threads}"


@dataclass(frozen=True)
class Effort:
    """How long is measured."""

    rounds: int = 5
    seconds: float = 1.0
    """Of each contestant in each round (at least one step)."""
    limit: float = 600.0
    """Most seconds for building a step, and for a round."""


@dataclass(frozen=True)
class Outcome:
    """What one contestant did."""

    start: Start | None
    milliseconds: list[float]
    """Per step, by round."""
    error: str | None = None
    """Why it did nothing, or stopped."""


@dataclass(frozen=True)
class Comparison:
    """A case with its contestants' outcomes, from the same rounds."""

    case: Case
    outcomes: Mapping[str, Outcome]


def compare(
    case: Case, names: Sequence[str], effort: Effort, environments: Path, folder: Path
) -> Comparison:
    """Runs the case on the processors that are least busy; `folder` takes files and logs."""
    processors = idle_processors(case.threads)
    starts: dict[str, Start] = {}
    errors: dict[str, str] = {}
    times: dict[str, list[float]] = {name: [] for name in names}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            _progress(f"{case.name}: {name} builds")
            if not CONTESTANTS[name].python(environments).exists():
                errors[name] = f"not installed: python -m benchmarks.peers.install {name}"
                continue
            worker = _started(case, name, processors, environments, folder)
            stack.callback(worker.close)
            try:
                starts[name] = Start(**worker.answer(effort.limit))
                workers[name] = worker
            except WorkerError as error:
                errors[name] = str(error)
            worker.pause()
        for number in range(effort.rounds):
            _progress(f"{case.name}: round {number + 1} of {effort.rounds}")
            for name in [name for name in workers if name not in errors]:
                try:
                    answer = workers[name].ask(repr(effort.seconds), effort.limit)
                    times[name].append(answer["ms"])
                except WorkerError as error:
                    errors[name] = str(error)
                workers[name].pause()
    return Comparison(
        case, {name: Outcome(starts.get(name), times[name], errors.get(name)) for name in names}
    )


def _started(
    case: Case, name: str, processors: Sequence[int], environments: Path, folder: Path
) -> Worker:
    contestant = CONTESTANTS[name]
    files = folder / name
    files.mkdir(exist_ok=True)
    task = Task(case.model, case.batch, case.threads, case.update, files)
    module = f"benchmarks.peers.frameworks.{contestant.script}"
    single = contestant.single_thread_variables if case.threads == 1 else {}
    return Worker(
        [str(contestant.python(environments)), "-m", module, *task.arguments()],
        {"OMP_NUM_THREADS": str(case.threads), **contestant.variables, **single},
        processors,
        folder / f"{name}-t{case.threads}.log",
    )


def _progress(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
