"""Scores of many update schemes, in several processes at once."""

import signal
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait

from niwaki.fine_tuning import FineTuning, Score
from niwaki.ir.errors import NiwakiError, UsageError
from niwaki.ir.training import Scheme


def scores(
    tuning: FineTuning, schemes: Sequence[Scheme], jobs: int
) -> Iterator[tuple[Scheme, Score]]:
    """(scheme, score) of each of `schemes` as they come; with one job, in order and right here.

    Raises what `FineTuning.score` raises (in other processes, always UsageError), and UsageError if
    a process is killed. Ends its processes when it is closed.
    """
    if jobs == 1 or len(schemes) < 2:
        yield from ((scheme, tuning.score(scheme)) for scheme in schemes)
        return
    context = get_context("spawn")
    waiting = dict(enumerate(schemes))
    processes, readers = [], []
    try:
        for first in range(min(jobs, len(schemes))):
            reader, writer = context.Pipe(duplex=False)
            share = list(waiting.items())[first::jobs]
            process = context.Process(target=_work, args=(tuning, share, writer), daemon=True)
            process.start()
            # The other end is the process's alone: reading ends when the process does.
            writer.close()
            processes.append(process)
            readers.append(reader)
        for number, result in _received(readers):
            if isinstance(result, str):
                raise UsageError(result)
            yield waiting.pop(number), result
    finally:
        for process in processes:
            process.terminate()
            process.join()
        for reader in readers:
            reader.close()
    if waiting:
        raise UsageError(
            "a process ended before its measurements, as for want of memory: use fewer jobs"
        )


def _received(readers: Sequence[Connection]) -> Iterator[tuple[int, Score | str]]:
    """What the processes send, until all have ended."""
    live = list(readers)
    while live:
        for reader in wait(live):
            assert isinstance(reader, Connection)
            try:
                yield reader.recv()
            except EOFError:
                live.remove(reader)


def _work(tuning: FineTuning, share: Sequence[tuple[int, Scheme]], writer: Connection) -> None:
    """Sends (number, score or the message of an error) of each (number, scheme)."""
    # Who interrupts the parent sees one message, the parent's.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number, scheme in share:
        try:
            writer.send((number, tuning.score(scheme)))
        except NiwakiError as error:
            writer.send((number, str(error)))
