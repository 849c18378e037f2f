"""The comparisons that are finished, in the JSON file that holds the rows made of them."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.common import write_rows
from benchmarks.peers.comparison import Case, Comparison, Outcome
from benchmarks.peers.contestants import OURS
from benchmarks.peers.rows import rows_of
from benchmarks.peers.worker import Start


class Journal:
    """Comparisons in the order of finishing; a file, if there is one, keeps them."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.comparisons: list[Comparison] = []
        if path is not None and path.exists():
            document = json.loads(path.read_text())
            self.comparisons = [_comparison(entry) for entry in document["comparisons"]]

    def missing(self, case: Case, names: list[str]) -> list[str]:
        """Those of `names` that have not run the case; with ours, which their ratios need."""
        done = {
            name
            for comparison in self.comparisons
            if comparison.case == case
            for name in comparison.outcomes
        }
        missing = [name for name in names if name not in done]
        ours = [OURS] if OURS in names and missing and OURS not in missing else []
        return ours + missing

    def add(self, comparison: Comparison) -> None:
        """Keeps one that has just finished."""
        self.comparisons.append(comparison)
        if self._path is None:
            return
        versions = {
            name: outcome.start.version
            for c in self.comparisons
            for name, outcome in c.outcomes.items()
            if outcome.start is not None
        }
        write_rows(
            self._path,
            rows_of(self.comparisons),
            versions=versions,
            comparisons=[asdict(c) for c in self.comparisons],
        )


def _comparison(entry: dict[str, Any]) -> Comparison:
    return Comparison(
        Case(**entry["case"]),
        {name: _outcome(outcome) for name, outcome in entry["outcomes"].items()},
    )


def _outcome(entry: dict[str, Any]) -> Outcome:
    start = entry["start"]
    return Outcome(None if start is None else Start(**start), entry["milliseconds"], entry["error"])
