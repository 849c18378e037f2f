"""Single changes of a sequence of runs: one more repetition, or one less."""

from collections.abc import Iterator

import numpy as np

from niwaki.passes.recomputation.greedy import Candidates, Segment, with_segment
from niwaki.passes.recomputation.problem import Trace, lean_trace

PEAKS = 4
"""Runs, those where most bytes are live, whose idle values are made again."""


def keeping_more(trace: Trace, budget: int) -> Trace:
    """`trace` without repetitions that `budget` bytes need not have, the dearest ones first."""
    kept = 0
    repetitions = _repetitions(trace)
    while kept < len(repetitions):
        run = repetitions[kept]
        if _may_fit_without(trace, run, budget):
            shorter = lean_trace(trace.problem, np.delete(trace.runs, run))
            if shorter.peak <= budget:
                trace, repetitions = shorter, _repetitions(shorter)
                continue
        kept += 1
    return trace


def _repetitions(trace: Trace) -> list[int]:
    """Runs of nodes that have run before, the dearest first."""
    _, first_runs = np.unique(trace.runs, return_index=True)
    again = np.setdiff1d(np.arange(len(trace.runs)), first_runs, assume_unique=True)
    return again[np.argsort(-trace.problem.tables.costs[trace.runs[again]], kind="stable")].tolist()


def _may_fit_without(trace: Trace, run: int, budget: int) -> bool:
    """False if keeping what `run` makes again is too much even if its operands need not be."""
    node = trace.problem.schedule.nodes[int(trace.runs[run])]
    sizes = trace.problem.schedule.sizes
    slack = budget + sum(sizes[buffer] for buffer in node.reads)
    for buffer in node.writes:
        value = trace.latest(buffer, run + 1)
        if trace.last[value] > run:
            idle = trace.profile[trace.last[value - 1] + 1 : run]
            if int(idle.max(initial=0)) + sizes[buffer] > slack:
                return False
    return True


def neighbours(trace: Trace) -> Iterator[Trace]:
    """`trace` with one more repetition, the same without what that replaces, and with one less."""
    for segment in _segments(trace):
        more = with_segment(trace, segment)
        yield more
        yield keeping_more(more, max(more.peak, trace.peak))
    for run in _repetitions(trace):
        yield lean_trace(trace.problem, np.delete(trace.runs, run))


def _segments(trace: Trace) -> dict[Segment, None]:
    peaks = np.argsort(-trace.profile, kind="stable")[:PEAKS].tolist()
    return dict.fromkeys(s for peak in peaks for s in Candidates(trace, peak).segments())
