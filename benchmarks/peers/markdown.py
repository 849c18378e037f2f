"""Comparisons as Markdown tables."""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from benchmarks.peers.comparison import Comparison, Outcome
from benchmarks.peers.contestants import CONTESTANTS, OURS, PEERS
from benchmarks.peers.rows import DIFFERENCE, loss_difference, peak_ratio, ratio_of_rounds

NOTHING = Outcome(None, [])


@dataclass(frozen=True)
class Quantity:
    """What a table shows of each contestant."""

    title: str
    value: Callable[[Outcome], str | None]
    """None if it has no number."""
    ratio: Callable[[Outcome, Outcome], float | None]
    """(theirs, ours)."""


def _time(outcome: Outcome) -> str | None:
    if not outcome.milliseconds:
        return None
    milliseconds = statistics.median(outcome.milliseconds)
    return f"{milliseconds:.{3 if milliseconds < 1 else 2 if milliseconds < 10 else 1}f}"


def _peak(outcome: Outcome) -> str | None:
    return None if outcome.start is None else f"{outcome.start.peak_bytes / 1e6:.1f}"


QUANTITIES = (
    Quantity("milliseconds per step (times ours)", _time, ratio_of_rounds),
    Quantity("MB of resident memory (times ours)", _peak, peak_ratio),
)


def tables(comparisons: Sequence[Comparison]) -> str:
    """For each update and number of threads the times and the memory; then who could not run."""
    groups: dict[tuple[str, int], list[Comparison]] = {}
    for comparison in comparisons:
        case = comparison.case
        groups.setdefault((case.update, case.threads), []).append(comparison)
    parts: list[str] = []
    for (update, threads), members in groups.items():
        title = f"### {update} update, {threads} thread{'s' if threads > 1 else ''}"
        for quantity in QUANTITIES:
            parts += [f"{title}: {quantity.title}\n", _table(members, quantity)]
    for title, lines in (
        ("### Without a number\n", _reasons(comparisons)),
        ("### Other losses than ours\n", _differing(comparisons)),
    ):
        if lines:
            parts += [title, lines]
    return "\n".join(parts)


def _table(comparisons: Sequence[Comparison], quantity: Quantity) -> str:
    """Rows: models and batches, of several comparisons of one case the first that has a name."""
    names = [n for n in CONTESTANTS if any(n in c.outcomes for c in comparisons)]
    cells: dict[tuple[str, int], dict[str, str]] = {}
    best: dict[tuple[str, int], float] = {}
    for comparison in comparisons:
        row = comparison.case.model, comparison.case.batch
        ours = comparison.outcomes.get(OURS, NOTHING)
        for name, outcome in comparison.outcomes.items():
            ratio = None if name == OURS else quantity.ratio(outcome, ours)
            text = _cell(quantity.value(outcome), ratio)
            cells.setdefault(row, {}).setdefault(name, text)
            if name in PEERS and ratio is not None:
                best[row] = min(ratio, best.get(row, ratio))
    lines = [["model", "batch", *names, "best peer / ours"], ["---"] * (len(names) + 3)]
    for row, texts in cells.items():
        leading = f"{best[row]:.2f}" if row in best else ""
        lines.append([row[0], str(row[1]), *(texts.get(name, "") for name in names), leading])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(value: str | None, ratio: float | None) -> str:
    if value is None:
        return "–"
    return value if ratio is None else f"{value} ({ratio:.2f})"


def _reasons(comparisons: Iterable[Comparison]) -> str:
    """Each reason once for each contestant, model and update."""
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
        ours = comparison.outcomes.get(OURS, NOTHING)
        for name in comparison.outcomes.keys() & set(PEERS):
            difference = loss_difference(comparison.outcomes[name], ours)
            if difference is not None and difference > DIFFERENCE:
                lines.append(f"- {name}, {comparison.case.name}: {difference:.1e} of 1 + loss\n")
    return "".join(sorted(lines))
