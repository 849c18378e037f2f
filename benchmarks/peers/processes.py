"""A worker seen from outside: started, asked, stopped while others are measured (Linux)."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """A worker whose parent is killed must not stay, paused, with all its memory."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class WorkerError(Exception):
    """Why a worker has no number."""


class Worker:
    """A process, with its children, that answers in lines of JSON."""

    def __init__(
        self,
        command: Sequence[str],
        variables: Mapping[str, str],
        processors: Collection[int],
        log: Path,
    ) -> None:
        """Starts it on `processors`, its standard input a socket for questions and answers.

        What it prints goes to the file `log`.
        """
        self._log = log
        self._socket, theirs = socket.socketpair()
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, processors)  # a child starts with its parent's
        try:
            with theirs, log.open("wb") as printed:
                self._process = subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env={**os.environ, **variables},
                    stdin=theirs.fileno(),
                    stdout=printed,
                    stderr=subprocess.STDOUT,
                    process_group=0,
                    preexec_fn=_end_with_parent,
                )
        finally:
            os.sched_setaffinity(0, own)
        self._rest = b""

    def ask(self, question: str, seconds: float) -> dict[str, Any]:
        """The answer to a line. Raises WorkerError as `answer` does."""
        self.resume()
        try:
            self._socket.sendall(f"{question}\n".encode())
        except OSError:
            raise WorkerError(self._last_words()) from None
        return self.answer(seconds)

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next answer.

        Raises WorkerError if there is none within `seconds`, or it is an error.
        """
        message = json.loads(self._line(seconds))
        if "error" in message:
            raise WorkerError(message["error"])
        return message

    def pause(self) -> None:
        """No thread of it runs until it is asked again."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Ends a pause."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Ends it and its children."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._socket.close()

    def _line(self, seconds: float) -> bytes:
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            self._socket.settimeout(max(0.001, end - time.monotonic()))
            try:
                data = self._socket.recv(65536)
            except TimeoutError:
                raise WorkerError(f"no answer within {seconds:.0f} s") from None
            except OSError:
                data = b""
            if not data:
                raise WorkerError(self._last_words())
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _last_words(self) -> str:
        status = self._process.wait()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"ended with {status}" + (f": {lines[-1]}" if lines else "")

    def _signal(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            os.killpg(self._process.pid, number)


def idle_processors(count: int, seconds: float = 0.2) -> list[int]:
    """The `count` processors of this process that had least to do just now."""
    before = _busy_ticks()
    time.sleep(seconds)
    after = _busy_ticks()
    mine = sorted(os.sched_getaffinity(0), key=lambda p: after[p] - before[p])
    return sorted(mine[:count])


def _busy_ticks() -> dict[int, int]:
    """Of each processor, in any mode but idle and waiting; columns as in proc(5)."""
    ticks: dict[int, int] = {}
    for line in Path("/proc/stat").read_text().splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name != "cpu":
            numbers = [int(column) for column in columns]
            ticks[int(name[3:])] = sum(numbers) - numbers[3] - numbers[4]
    return ticks
