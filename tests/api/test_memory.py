"""The memory figures, on a plan small enough to count by hand."""

from dataclasses import replace

import pytest

from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import Buffer, CallInfo, EntryPoint, Lowered
from niwaki.memory import Memory, check_limit, largest_at_peak, readable


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


LOWERED = Lowered((), (), (), (), bytes(24), bytes(40), {"train_step": _entry()}, "host")


def test_live_bytes() -> None:
    assert _entry().live_bytes == [100, 160, 180, 150]


def test_largest_at_peak() -> None:
    assert [b.label for b in largest_at_peak(_entry(), 2)] == ["d", "b"]


def test_an_entry_without_calls_has_no_peak() -> None:
    empty = EntryPoint("infer", (), (), 0, 0, (), ())
    assert empty.live_bytes == []
    assert list(largest_at_peak(empty, 3)) == []


def test_figures_and_table() -> None:
    memory = Memory.of(LOWERED)
    assert (memory.arena_bytes, memory.lower_bound_bytes) == (192, 180)
    assert (memory.state_bytes, memory.constant_bytes) == (24, 40)
    assert "train_step" in memory.table()
    assert "192" in memory.table()


@pytest.mark.parametrize(("bound", "verdict"), [(180, "proven"), (160, "+12.50%"), (0, "unknown")])
def test_table_says_how_good_the_order_is(bound: int, verdict: str) -> None:
    entry = replace(_entry(), order_bound_bytes=bound)
    lowered = replace(LOWERED, entries={"train_step": entry})
    assert verdict in Memory.of(lowered).table().splitlines()[1].split()


def test_limit_counts_arena_and_state_and_names_the_peak() -> None:
    check_limit(LOWERED, 216)
    with pytest.raises(DoesNotFitError, match="needs 216 bytes") as failure:
        check_limit(LOWERED, 215)
    text = str(failure.value)
    assert text.index("90  d, l2 (m.py:2)\n") < text.index("60  b") < text.index("30  c")


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ('loc("conv1"("model.py":31:0))', "conv1 (model.py:31)"),
        ('loc("model.py":34:0)', "model.py:34"),
        ('loc("a \\" b"("c.onnx":1:2))', 'a \\" b (c.onnx:1)'),
        ('loc("conv1")', '"conv1"'),
        ("", ""),
        ('loc("x\x1b"("m":1:0))', "x\\x1b (m:1)"),
    ],
)
def test_readable(location: str, text: str) -> None:
    assert readable(location) == text
