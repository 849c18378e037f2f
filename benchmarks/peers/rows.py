"""What comparisons say, as rows."""

import statistics
from collections.abc import Sequence

from benchmarks.common import Row
from benchmarks.peers.comparison import Comparison, Outcome
from benchmarks.peers.contestants import OURS, PEERS

DIFFERENCE = 1e-3
"""Losses that differ by more, of 1 + the loss, are not of the same computation."""


def ratio_of_rounds(theirs: Outcome, ours: Outcome) -> float | None:
    """Median over the rounds of their time by ours; None if they share no round."""
    rounds = list(zip(theirs.milliseconds, ours.milliseconds, strict=False))
    return statistics.median(t / o for t, o in rounds) if rounds else None


def peak_ratio(theirs: Outcome, ours: Outcome) -> float | None:
    """Their peak of resident memory by ours; None if one has none."""
    if theirs.start is None or ours.start is None:
        return None
    return theirs.start.peak_bytes / ours.start.peak_bytes


def loss_difference(theirs: Outcome, ours: Outcome) -> float | None:
    """The largest difference of their first losses, relative to 1 + ours; None if one has none."""
    if theirs.start is None or ours.start is None:
        return None
    pairs = zip(theirs.start.losses, ours.start.losses, strict=True)
    return max(abs(t - o) / (1 + abs(o)) for t, o in pairs)


def rows_of(comparisons: Sequence[Comparison]) -> list[Row]:
    """Of each contestant milliseconds and bytes; of each peer also ratios and loss difference.

    A peer's own figures are under its name ("ms.step.torch"). Ratios are their figure / ours. What
    could not run has the row "unsupported".
    """
    return [row for comparison in comparisons for row in _rows(comparison)]


def _rows(comparison: Comparison) -> list[Row]:
    case = comparison.case.name
    ours = comparison.outcomes.get(OURS, Outcome(None, []))
    rows: list[Row] = []
    for name, outcome in comparison.outcomes.items():
        peer = None if name == OURS else name
        suffix = "" if peer is None else f".{peer}"
        if outcome.start is None or not outcome.milliseconds:
            rows.append(Row(case, f"unsupported{suffix}", 1, "count", peer))
            continue
        milliseconds = statistics.median(outcome.milliseconds)
        rows += [
            Row(case, f"ms.step{suffix}", milliseconds, "ms"),
            Row(case, f"rss.bytes{suffix}", outcome.start.peak_bytes, "bytes"),
            Row(case, f"s.build{suffix}", outcome.start.seconds, "s"),
        ]
        if peer is not None:
            rows += _against_ours(case, peer, outcome, ours)
    return rows


def _against_ours(case: str, peer: str, theirs: Outcome, ours: Outcome) -> list[Row]:
    """Nothing if ours did not run; our own full update may have other losses."""
    time, difference = ratio_of_rounds(theirs, ours), loss_difference(theirs, ours)
    if ours.start is None or time is None or difference is None:
        return []
    milliseconds, peak = statistics.median(ours.milliseconds), ours.start.peak_bytes
    rows = [
        Row(case, "ms.step", milliseconds, "ms", peer, time),
        Row(case, "rss.bytes", peak, "bytes", peer, peak_ratio(theirs, ours)),
    ]
    if peer in PEERS:
        rows.append(Row(case, "loss.difference", difference, "of 1 + loss", peer))
    return rows
