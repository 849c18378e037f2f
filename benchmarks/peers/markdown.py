"""Comparisons as Markdown tables."""

import statistics
from collections.abc import Callable, Iterable, Sequence

from benchmarks.peers.comparison import Comparison, Outcome
from benchmarks.peers.contestants import CONTESTANTS, OURS
from benchmarks.peers.rows import DIFFERENCE, loss_difference, ratio_of_rounds

MEGABYTE = 1e6


def tables(comparisons: Sequence[Comparison]) -> str:
    """For each update and number of threads the times and the memory; then who could not run."""
    groups: dict[tuple[str, int], list[Comparison]] = {}
    for comparison in comparisons:
        case = comparison.case
        groups.setdefault((case.update, case.threads), []).append(comparison)
    parts: list[str] = []
    for (update, threads), members in groups.items():
        title = f"{update} update, {threads} thread{'s' if threads > 1 else ''}"
        parts += [f"### {title}: milliseconds per step (times ours)\n", _table(members, _time)]
        parts += [f"### {title}: MB of resident memory (times ours)\n", _table(members, _memory)]
    reasons = _reasons(comparisons)
    if reasons:
        parts += ["### Without a number\n", reasons]
    differing = _differing(comparisons)
    if differing:
        parts += ["### Other losses than ours\n", differing]
    return "\n".join(parts)


def _table(comparisons: Sequence[Comparison], cell: Callable[[Outcome, Outcome], str]) -> str:
    names = [n for n in CONTESTANTS if any(n in c.outcomes for c in comparisons)]
    lines = [["model", "batch", *names], ["---"] * (2 + len(names))]
    merged: dict[tuple[str, int], list[str]] = {}
    for comparison in comparisons:
        case, outcomes = comparison.case, comparison.outcomes
        cells = merged.setdefault((case.model, case.batch), [""] * len(names))
        ours = outcomes.get(OURS, Outcome(None, []))
        for i, name in enumerate(names):
            if name in outcomes and not cells[i]:
                cells[i] = cell(outcomes[name], ours)
    lines += [[model, str(batch), *cells] for (model, batch), cells in merged.items()]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _time(outcome: Outcome, ours: Outcome) -> str:
    if not outcome.milliseconds:
        return "–"
    milliseconds = statistics.median(outcome.milliseconds)
    ratio = None if outcome is ours else ratio_of_rounds(outcome, ours)
    return _with_ratio(f"{milliseconds:.{_digits(milliseconds)}f}", ratio)


def _memory(outcome: Outcome, ours: Outcome) -> str:
    if outcome.start is None:
        return "–"
    peak, start = outcome.start.peak_bytes, ours.start
    ratio = None if outcome is ours or start is None else peak / start.peak_bytes
    return _with_ratio(f"{peak / MEGABYTE:.1f}", ratio)


def _digits(milliseconds: float) -> int:
    return 3 if milliseconds < 1 else 2 if milliseconds < 10 else 1


def _with_ratio(value: str, ratio: float | None) -> str:
    return value if ratio is None else f"{value} ({ratio:.2f})"


def _reasons(comparisons: Iterable[Comparison]) -> str:
    """Each reason once for each contestant and model."""
    found: dict[str, None] = {}
    for comparison in comparisons:
        case = comparison.case
        for name, outcome in comparison.outcomes.items():
            if outcome.error is not None:
                found[f"- {name}, {case.model}, {case.update}: {outcome.error}\n"] = None
    return "".join(found)


def _differing(comparisons: Iterable[Comparison]) -> str:
    lines: list[str] = []
    for comparison in comparisons:
        ours = comparison.outcomes.get(OURS, Outcome(None, []))
        for name, outcome in comparison.outcomes.items():
            difference = loss_difference(outcome, ours)
            if difference is not None and difference > DIFFERENCE:
                lines.append(f"- {name}, {comparison.case.name}: {difference:.1e} of 1 + loss\n")
    return "".join(lines)
