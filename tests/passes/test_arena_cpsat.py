"""CP-SAT finds the plans of full arenas, and says what is impossible."""

import sys

import pytest

from niwaki.ir.errors import UsageError
from niwaki.passes.arenas.cpsat import cpsat_arena
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaProblem, plan_at
from niwaki.passes.arenas.verify import verify_arena

# Two full arenas one after the other, the second with alignments and a pinned buffer.
PROBLEM = ArenaProblem(
    (
        ArenaBuffer(3, 0, 2),
        ArenaBuffer(5, 0, 1),
        ArenaBuffer(5, 1, 3),
        ArenaBuffer(3, 2, 4),
        ArenaBuffer(5, 3, 4),
        ArenaBuffer(3, 5, 7, 4),
        ArenaBuffer(2, 6, 8, 2, pinned=4),
        ArenaBuffer(2, 5, 9, 2),
    )
)


def test_fills_the_arena() -> None:
    found = cpsat_arena(PROBLEM, 8, 1000)
    assert found.offsets is not None
    plan = plan_at(PROBLEM, found.offsets)
    verify_arena(PROBLEM, plan)
    assert plan.size == 8


def test_knows_what_is_impossible() -> None:
    """Six bytes fit only above the pinned two: 12 in all, though 8 are live at most."""
    problem = ArenaProblem((ArenaBuffer(2, 0, 1, pinned=4), ArenaBuffer(6, 0, 1)))
    found = cpsat_arena(problem, 11, 1)
    assert found.impossible
    assert cpsat_arena(problem, 12, 1).offsets == (4, 6)


def test_a_pinned_buffer_beyond_the_capacity() -> None:
    problem = ArenaProblem((ArenaBuffer(4, 0, 1, pinned=8),))
    assert cpsat_arena(problem, 10, 1).impossible


def test_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ortools.sat.python.cp_model", None)
    with pytest.raises(UsageError, match=r"pip install 'niwaki\[solver\]'"):
        cpsat_arena(PROBLEM, 8, 100)
