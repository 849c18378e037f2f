"""The memory figures, on a plan small enough to count by hand."""

import pytest
from xdsl.dialects.builtin import ModuleOp

from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import Buffer, CallInfo, EntryPoint, Lowered
from niwaki.memory import Memory, check_limit, largest_at_peak, live_bytes


def _entry() -> EntryPoint:
    #      call  0    1    2    3
    #  a 100     x    x
    #  b  60          x    x    x
    #  c  30               x
    #  d  90               x    x
    buffers = (
        Buffer("a", 0, 100, 0, 1),
        Buffer("b", 104, 60, 1, 3),
        Buffer("c", 0, 30, 2, 2),
        Buffer("d", 32, 90, 2, 3),
    )
    calls = tuple(CallInfo(f"k{i}", f'loc("l{i}"("m.py":{i}:0))', 1) for i in range(4))
    return EntryPoint("train_step", (), (), 192, 180, buffers, calls)


LOWERED = Lowered(ModuleOp([]), (), (), bytes(24), bytes(40), {"train_step": _entry()}, "host")


def test_live_bytes() -> None:
    assert live_bytes(_entry()) == [100, 160, 180, 150]


def test_largest_at_peak() -> None:
    assert [b.label for b in largest_at_peak(_entry(), 2)] == ["d", "b"]


def test_an_entry_without_calls_has_no_peak() -> None:
    empty = EntryPoint("infer", (), (), 0, 0, (), ())
    assert live_bytes(empty) == []
    assert list(largest_at_peak(empty, 3)) == []


def test_figures_and_table() -> None:
    memory = Memory.of(LOWERED)
    assert (memory.arena_bytes, memory.lower_bound_bytes) == (192, 180)
    assert (memory.state_bytes, memory.constant_bytes) == (24, 40)
    assert "train_step" in memory.table()
    assert "192" in memory.table()


def test_limit_counts_arena_and_state_and_names_the_peak() -> None:
    check_limit(LOWERED, 216)
    with pytest.raises(DoesNotFitError, match="needs 216 bytes") as failure:
        check_limit(LOWERED, 215)
    text = str(failure.value)
    assert text.index('90  d, "l2"("m.py":2:0)\n') < text.index("60  b") < text.index("30  c")
