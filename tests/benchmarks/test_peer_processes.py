"""Workers as processes: answers, errors, time limits, pauses; and what is run at all."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import cases
from benchmarks.peers.comparison import Case, Effort, compare
from benchmarks.peers.contestants import CONTESTANTS, ENVIRONMENTS, PEERS
from benchmarks.peers.install import environments_of, is_installed
from benchmarks.peers.processes import ROOT, Worker, WorkerError, idle_processors
from benchmarks.peers.worker import step_milliseconds

ECHO = """
import os, sys
print("a greeting on the standard output", flush=True)
answers = os.fdopen(os.dup(0), "w")
for line in sys.stdin:
    print('{"said": %s, "threads": %s}' % (line.strip(), os.environ["THREADS"]), file=answers)
    answers.flush()
"""


@pytest.fixture
def started(tmp_path: Path) -> Iterator[list[Worker]]:
    workers: list[Worker] = []
    yield workers
    for worker in workers:
        worker.close()


def start(code: str, started: list[Worker], folder: Path) -> Worker:
    command = [sys.executable, "-c", code]
    worker = Worker(command, {"THREADS": "3"}, idle_processors(1, 0.01), folder / "log")
    started.append(worker)
    return worker


def test_answers_come_apart_from_what_is_printed(started: list[Worker], tmp_path: Path) -> None:
    worker = start(ECHO, started, tmp_path)
    assert worker.ask("1.5", 30) == {"said": 1.5, "threads": 3}
    assert worker.ask("2", 30)["said"] == 2
    worker.close()
    assert (tmp_path / "log").read_text().startswith("a greeting")


def test_processors_are_those_of_the_worker_alone(started: list[Worker], tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    code = f"{ECHO}".replace('os.environ["THREADS"]', "len(os.sched_getaffinity(0))")
    assert start(code, started, tmp_path).ask("0", 30)["threads"] == 1
    assert os.sched_getaffinity(0) == mine


def test_error_answer(started: list[Worker], tmp_path: Path) -> None:
    worker = start('import os; os.write(0, b\'{"error": "no gradient"}\\n\')', started, tmp_path)
    with pytest.raises(WorkerError, match=r"^no gradient$"):
        worker.answer(30)


def test_end_without_an_answer(started: list[Worker], tmp_path: Path) -> None:
    worker = start("raise SystemExit('out of luck')", started, tmp_path)
    with pytest.raises(WorkerError, match="ended with 1: out of luck"):
        worker.answer(30)
    with pytest.raises(WorkerError, match="ended with 1"):
        worker.ask("1", 30)


def test_time_limit(started: list[Worker], tmp_path: Path) -> None:
    worker = start("import time; time.sleep(60)", started, tmp_path)
    with pytest.raises(WorkerError, match="no answer within 0 s"):
        worker.answer(0.05)


def test_pause(started: list[Worker], tmp_path: Path) -> None:
    worker = start(ECHO, started, tmp_path)
    worker.ask("1", 30)
    worker.pause()
    pid = worker._process.pid  # pyright: ignore[reportPrivateUsage]
    state = ""
    for _ in range(200):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        if state == "T":
            break
        time.sleep(0.01)
    assert state == "T"
    assert worker.ask("2", 30)["said"] == 2


def test_a_paused_worker_ends_with_its_parent(tmp_path: Path) -> None:
    code = f"""
import os, signal, sys
from pathlib import Path
from benchmarks.peers.processes import Worker
worker = Worker([sys.executable, "-c", {ECHO!r}], {{"THREADS": "3"}}, os.sched_getaffinity(0), Path({str(tmp_path)!r}) / "log")
worker.ask("1", 30)
worker.pause()
print(worker._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    path = Path("/proc") / done.stdout.strip()
    for _ in range(200):
        if not path.exists() or path.joinpath("stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the worker is still there")


class Steps:
    """Steps of which each takes a stated time by a clock of their own."""

    def __init__(self, *durations: float) -> None:
        self.durations = durations
        self.count = 0
        self.clock = 0.0

    def __call__(self) -> None:
        self.clock += self.durations[min(self.count, len(self.durations) - 1)]
        self.count += 1


def test_first_step_is_left_out() -> None:
    steps = Steps(9.0, 0.001, 0.003, 0.002)
    milliseconds = step_milliseconds(steps, 0.3, lambda: steps.clock)
    assert milliseconds == pytest.approx(2.0)
    assert steps.count >= 4


def test_a_long_first_step_counts() -> None:
    steps = Steps(9.0)
    assert step_milliseconds(steps, 0.0, lambda: steps.clock) == pytest.approx(9000.0)
    assert steps.count == 1


def test_cases() -> None:
    found = list(cases(["mlp", "mobilenetv2-w0.35-128"], ["full", "scheme"], None, [1, 2]))
    assert [case.name for case in found if case.threads == 1] == [
        "mlp/full/host/b1/t1",
        "mlp/full/host/b8/t1",
        "mlp/full/host/b32/t1",
        "mobilenetv2-w0.35-128/full/host/b1/t1",
        "mobilenetv2-w0.35-128/full/host/b8/t1",
        "mobilenetv2-w0.35-128/scheme/host/b1/t1",
        "mobilenetv2-w0.35-128/scheme/host/b8/t1",
    ]
    assert len(found) == 14
    assert list(cases(["encoder-6x384"], ["full"], [32], [1])) == []


def test_every_contestant_has_its_worker_and_environments() -> None:
    folder = Path(__file__).parents[2] / "benchmarks" / "peers" / "frameworks"
    for contestant in CONTESTANTS.values():
        assert (folder / f"{contestant.script}.py").exists()
    assert set(environments_of(PEERS)) == set(ENVIRONMENTS)
    assert environments_of(["iree", "jax"]) == ["iree", "jax"]


def test_an_environment_is_installed_if_its_requirements_are(tmp_path: Path) -> None:
    assert not is_installed(tmp_path, "mnn")
    (tmp_path / "mnn").mkdir()
    (tmp_path / "mnn" / "installed.txt").write_text("MNN==0.1\n")
    assert not is_installed(tmp_path, "mnn")
    (tmp_path / "mnn" / "installed.txt").write_text("\n".join([*ENVIRONMENTS["mnn"], ""]))
    assert is_installed(tmp_path, "mnn")


@pytest.mark.slow
def test_comparison_of_ours_with_what_is_not_installed(tmp_path: Path) -> None:
    effort = Effort(rounds=2, seconds=0.01, limit=120)
    names = ["niwaki", "torch"]
    comparison = compare(Case("mlp", "last", 1, 1), names, effort, tmp_path, tmp_path)
    ours, torch = (comparison.outcomes[name] for name in names)
    assert ours.error is None
    assert len(ours.milliseconds) == 2
    assert ours.start is not None
    assert ours.start.losses[-1] < ours.start.losses[0]
    assert ours.start.peak_bytes > 100_000
    assert torch.error == "not installed: python -m benchmarks.peers.install torch"
