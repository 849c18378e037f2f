"""Colours and names of buffers."""

from dataclasses import replace

from niwaki.ir.lowered import Buffer
from niwaki.tools.report.drawing import OTHER, WORKSPACE, Canvas, groups, levels, shortened, unit_of
from tests.tools.report import cases


def test_every_buffer_is_in_one_group() -> None:
    entry = cases.large_entry(100)
    calls = tuple(replace(c, kernel=f"kind{i % 20}_0") for i, c in enumerate(entry.calls))
    entry = replace(entry, calls=calls)
    buffers = (*entry.buffers, Buffer("workspace of conv2d", 0, 8, 3, 3))
    found = groups(replace(entry, buffers=buffers))
    assert sorted(b.offset for g in found for b in g.buffers) == sorted(b.offset for b in buffers)
    assert [g.name for g in found][-2:] == [OTHER, WORKSPACE]
    assert len({g.colour for g in found}) == len(found)


def test_the_largest_area_comes_first() -> None:
    entry = cases.entry()
    calls = tuple(
        replace(c, kernel=k) for c, k in zip(entry.calls, ("a_0", "b_0", "c_0"), strict=True)
    )
    buffers = (Buffer("x", 0, 64, 0, 0), Buffer("y", 64, 64, 1, 2))
    assert [g.name for g in groups(replace(entry, calls=calls, buffers=buffers))] == ["b", "a"]


def test_captions_are_as_long_as_they_fit() -> None:
    entry = cases.entry()
    buffer = entry.buffers[0]

    def caption(width: float, height: float = 500) -> str:
        return Canvas(width, height, character=1).caption(entry, buffer)

    assert caption(1000) == "conv1 · conv1"
    assert caption(15) == "conv1"
    assert caption(3) == ""
    assert caption(1000, height=5) == ""


def test_shortened() -> None:
    assert shortened("abcdefghij", 10) == "abcdefghij"
    assert shortened("abcdefghijk", 10) == "abcd…ghijk"


def test_equal_levels_are_one_line() -> None:
    assert [size for _, size in levels(cases.entry())] == [160, 128]
    assert len(levels(replace(cases.entry(), bound_bytes=160))) == 1


def test_units() -> None:
    assert [unit_of(n)[0] for n in (0, 4000, 5000, 5 << 20)] == ["bytes", "bytes", "KiB", "MiB"]
