"""A file of measured update schemes, so that a search can go on where it was interrupted."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from niwaki.files import write_atomically
from niwaki.fine_tuning import FineTuning, Score
from niwaki.ir.errors import UsageError
from niwaki.ir.training import Scheme

SCHEMA = 1


class Measurements:
    """Scores by scheme, as JSON lines: what was trained, then a line for each scheme.

    The file is whole at all times. Only one search at a time may write it.
    """

    def __init__(self, path: Path, tuning: FineTuning) -> None:
        """Reads the file if there is one.

        Raises UsageError if it is of another model, of other data or options, or damaged.
        """
        self._path = path
        self._header = {"schema": SCHEMA, **tuning.identity()}
        self._scores: dict[str, Score] = {}
        if path.exists():
            self._read()

    def __contains__(self, scheme: Scheme) -> bool:
        return _key(scheme) in self._scores

    def __getitem__(self, scheme: Scheme) -> Score:
        return self._scores[_key(scheme)]

    def add(self, scheme: Scheme, score: Score) -> None:
        """Adds a line to the file. Raises UsageError if it cannot be written."""
        self._scores[_key(scheme)] = score
        entries = [
            {"scheme": json.loads(key), "score": asdict(score)}
            for key, score in self._scores.items()
        ]
        lines = [json.dumps(line) for line in (self._header, *entries)]
        write_atomically(self._path, "".join(f"{line}\n" for line in lines).encode())

    def _read(self) -> None:
        try:
            header, *entries = map(json.loads, self._path.read_text(encoding="utf-8").splitlines())
            self._check(header)
            for entry in entries:
                self._scores[_key(Scheme(**entry["scheme"]))] = Score(**entry["score"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise UsageError(
                f"cannot read the measurements {self._path}: {error}; remove the file to start anew"
            ) from None

    def _check(self, header: dict[str, Any]) -> None:
        other = [key for key, value in self._header.items() if header.get(key) != value]
        if other:
            raise UsageError(
                f"{self._path} holds measurements with another {' and another '.join(other)}: "
                "remove it or choose another file"
            )


def _key(scheme: Scheme) -> str:
    return json.dumps(asdict(scheme))
