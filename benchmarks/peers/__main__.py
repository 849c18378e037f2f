"""Training steps of Niwaki and of other frameworks on the same models, weights and data.

    python -m benchmarks.peers [--json PATH] [--markdown PATH] [--models MODEL ...] ...

Plain SGD, f32. The frameworks are installed with `python -m benchmarks.peers.install`. For each
case every framework builds its step in a process of its own; then all are timed in turn, a short
measurement of each in every round, while the others are stopped. Times are medians over the rounds,
ratios medians of their time by ours of the same round. With --json finished cases are kept in the
file, and not measured again; with --artifacts, so is what other frameworks compile ahead of time.
"""

import argparse
import signal
import sys
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

from benchmarks.common import print_rows
from benchmarks.peers.comparison import Case, Effort, compare
from benchmarks.peers.contestants import CONTESTANTS, OURS, PEERS
from benchmarks.peers.install import DEFAULT
from benchmarks.peers.journal import Journal
from benchmarks.peers.markdown import tables
from benchmarks.peers.networks import MODELS
from benchmarks.peers.rows import rows_of

UPDATES = ("full", "bias", "last", "scheme")


def cases(
    models: Sequence[str],
    updates: Sequence[str],
    batches: Sequence[int] | None,
    threads: Sequence[int],
) -> Iterator[Case]:
    """Those that there are, the threads of one step next to each other.

    `batches`: None for those of each model; others are left out for models that do not have them.
    """
    for model in models:
        for update in updates:
            if update == "scheme" and MODELS[model].scheme is None:
                continue
            for batch in MODELS[model].batches:
                if batches is None or batch in batches:
                    yield from (Case(model, update, batch, count) for count in threads)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--peers", nargs="*", choices=list(CONTESTANTS), default=list(PEERS))
    parser.add_argument("--updates", nargs="+", choices=UPDATES, default=["full"])
    parser.add_argument("--batches", nargs="+", type=int, help="default: those of each model")
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    effort = Effort()
    parser.add_argument("--rounds", type=int, default=effort.rounds)
    parser.add_argument(
        "--seconds", type=float, default=effort.seconds, help="of a framework in a round"
    )
    parser.add_argument(
        "--limit", type=float, default=effort.limit, help="most seconds of building a step"
    )
    parser.add_argument("--environments", type=Path, default=DEFAULT, metavar="FOLDER")
    parser.add_argument(
        "--artifacts", type=Path, metavar="FOLDER", help="keeps what is made ahead of time"
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="rows, and what is finished")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="tables of all in the JSON")
    return parser.parse_args()


@contextmanager
def _folder(kept: Path | None, name: str) -> Generator[Path]:
    """For files of one step: in `kept`, or for as long as the context lasts."""
    if kept is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    folder = (kept / name).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    yield folder


def _end(*_: object) -> None:
    """As an exception: files and workers are cleared away."""
    sys.exit(1)


def main() -> None:
    """The command line."""
    given = _parse()
    signal.signal(signal.SIGTERM, _end)
    effort = Effort(given.rounds, given.seconds, given.limit)
    environments = given.environments.resolve()
    names = [name for name in CONTESTANTS if name == OURS or name in given.peers]
    journal = Journal(given.json)
    wanted = cases(given.models, given.updates, given.batches, given.threads)
    for step, group in groupby(wanted, key=lambda case: case.step):
        with _folder(given.artifacts, step) as folder:
            for case in group:
                missing = journal.missing(case, names)
                if missing:
                    journal.add(compare(case, missing, effort, environments, folder))
    print_rows(rows_of(journal.comparisons))
    if given.markdown is not None:
        given.markdown.write_text(tables(journal.comparisons))


if __name__ == "__main__":
    main()
