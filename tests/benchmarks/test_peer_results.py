"""Rows, tables and the journal of comparisons that are made up here."""

import json
from pathlib import Path

import pytest

from benchmarks.common import Row, read_rows
from benchmarks.peers.comparison import Case, Comparison, Outcome
from benchmarks.peers.journal import Journal
from benchmarks.peers.markdown import tables
from benchmarks.peers.rows import loss_difference, peak_ratio, ratio_of_rounds, rows_of
from benchmarks.peers.worker import Start

CASE = Case("mlp", "full", 8, 1)
NAME = "mlp/full/host/b8/t1"


def outcome(times: list[float], losses: tuple[float, ...] = (1.0, 0.5), peak: int = 10) -> Outcome:
    return Outcome(Start("1.0", 2.0, list(losses), peak * 10**6), times)


def refusal(reason: str) -> Outcome:
    return Outcome(None, [], reason)


def test_ratio_is_of_the_same_round() -> None:
    # A busy machine in the second round slows both: medians of times alone would say 2.
    ours, theirs = outcome([1.0, 10.0, 1.0]), outcome([3.0, 30.0, 2.0])
    assert ratio_of_rounds(theirs, ours) == pytest.approx(3.0)


def test_ratio_of_what_stopped() -> None:
    assert ratio_of_rounds(outcome([4.0]), outcome([2.0, 1.0])) == pytest.approx(2.0)
    assert ratio_of_rounds(refusal("no"), outcome([1.0])) is None


def test_peak_ratio() -> None:
    assert peak_ratio(outcome([1.0], peak=30), outcome([1.0])) == pytest.approx(3.0)
    assert peak_ratio(outcome([1.0]), refusal("no")) is None


def test_loss_difference_is_the_largest() -> None:
    difference = loss_difference(outcome([1.0], (1.0, 0.8)), outcome([1.0], (1.1, 0.5)))
    assert difference == pytest.approx(0.3 / 1.5)


def test_rows() -> None:
    comparison = Comparison(
        CASE, {"niwaki": outcome([2.0]), "torch": outcome([8.0], peak=40), "mnn": refusal("no")}
    )
    assert rows_of([comparison]) == [
        Row(NAME, "ms.step", 2.0, "ms"),
        Row(NAME, "rss.bytes", 10_000_000, "bytes"),
        Row(NAME, "s.build", 2.0, "s"),
        Row(NAME, "ms.step.torch", 8.0, "ms"),
        Row(NAME, "rss.bytes.torch", 40_000_000, "bytes"),
        Row(NAME, "s.build.torch", 2.0, "s"),
        Row(NAME, "ms.step", 2.0, "ms", "torch", 4.0),
        Row(NAME, "rss.bytes", 10_000_000, "bytes", "torch", 4.0),
        Row(NAME, "loss.difference", 0.0, "of 1 + loss", "torch"),
        Row(NAME, "unsupported.mnn", 1, "count", "mnn"),
    ]


def test_losses_of_our_full_update_are_not_compared() -> None:
    outcomes = {"niwaki": outcome([2.0]), "niwaki-full": outcome([6.0])}
    metrics = {row.metric for row in rows_of([Comparison(CASE, outcomes)])}
    assert "ms.step.niwaki-full" in metrics
    assert "loss.difference" not in metrics


def test_rows_without_ours() -> None:
    rows = rows_of([Comparison(CASE, {"niwaki": refusal("no"), "torch": outcome([8.0])})])
    assert [row.metric for row in rows] == [
        "unsupported",
        "ms.step.torch",
        "rss.bytes.torch",
        "s.build.torch",
    ]


def test_tables() -> None:
    comparison = Comparison(
        CASE,
        {
            "niwaki": outcome([0.5]),
            "torch": outcome([8.0], peak=40),
            "iree": outcome([1.0], losses=(3.0, 0.5), peak=5),
            "mnn": refusal("no gradient"),
            "niwaki-full": outcome([0.1]),
        },
    )
    text = tables([comparison])
    assert (
        "| model | batch | niwaki | torch | iree | mnn | niwaki-full | best peer / ours |" in text
    )
    assert "| mlp | 8 | 0.500 | 8.00 (16.00) | 1.00 (2.00) | – | 0.100 (0.20) | 2.00 |" in text
    assert "| mlp | 8 | 10.0 | 40.0 (4.00) | 5.0 (0.50) | – | 10.0 (1.00) | 0.50 |" in text
    assert "- mnn, mlp, full: no gradient\n" in text
    assert f"- iree, {NAME}: 1.0e+00 of 1 + loss\n" in text
    assert "torch, mlp" not in text


def test_tables_of_a_case_that_was_completed_later() -> None:
    first = Comparison(CASE, {"niwaki": outcome([1.0]), "torch": outcome([2.0])})
    later = Comparison(CASE, {"niwaki": outcome([3.0]), "jax": outcome([12.0])})
    assert "| mlp | 8 | 1.00 | 2.00 (2.00) | 12.0 (4.00) | 2.00 |" in tables([first, later])


def test_journal_resumes(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    comparison = Comparison(CASE, {"niwaki": outcome([1.0]), "mnn": refusal("no gradient")})
    Journal(path).add(comparison)
    journal = Journal(path)
    assert journal.comparisons == [comparison]
    assert journal.missing(CASE, ["niwaki", "mnn"]) == []
    assert journal.missing(CASE, ["niwaki", "torch", "mnn"]) == ["niwaki", "torch"]
    other = Case("mlp", "full", 8, 2)
    assert journal.missing(other, ["niwaki", "mnn"]) == ["niwaki", "mnn"]


def test_journal_is_a_benchmark_file(tmp_path: Path) -> None:
    path = tmp_path / "peers.json"
    comparison = Comparison(CASE, {"niwaki": outcome([1.0]), "torch": outcome([2.0])})
    Journal(path).add(comparison)
    document = json.loads(path.read_text())
    assert document["schema"] == 1
    assert document["versions"]["torch"] == "1.0"
    assert read_rows(path) == rows_of([comparison])
