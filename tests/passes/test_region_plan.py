"""Programs divided among memories compute the same, and what does not fit is said clearly."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.regions import MemoryRegion
from niwaki.backends.targets import Target, get_target
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import Lowered
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem
from niwaki.passes.arenas.regions import Buffers, plan_regions
from niwaki.passes.arenas.verify import verify_arena
from niwaki.passes.lower_to_plan import ProgramPlan, lower
from niwaki.passes.pipelines import compile_program
from tests.boards import write_board
from tests.compiled import scheduled
from tests.networks import lenet

FAST = {"name": "fast", "bytes": 8_000, "cost": 1}
MIDDLE = {"name": "middle", "bytes": 24_000, "cost": 3}
SLOW = {"name": "slow", "bytes": 200_000, "cost": 8, "reserved": 1_000}
OPTIONS = TrainingOptions(optimizer=SGD(lr=0.02, momentum=0.9))
RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((2, 12, 12, 1)).astype(np.float32)
Y = np.array([3, 7], np.int32)


def board(folder: Path, *regions: Mapping[str, object]) -> Target:
    return get_target(str(write_board(folder / "board.toml", "host", *regions)))


def trained(lowered: Lowered, target: Target) -> list[bytes]:
    """The loss of each step, what infer says then, and the state by name."""
    session = Session(lowered, object_code(lowered, target))
    results: list[bytes] = []
    for _ in range(3):
        session.arena[:] = 0xFF
        results.append(session.run("train_step", [X, Y, np.array(0.02, np.float32)])[0].tobytes())
    session.arena[:] = 0xFF
    results.append(session.run("infer", [X])[0].tobytes())
    state = {e.name: e.view(session.state).tobytes() for e in lowered.state}
    return [*results, *(state[name] for name in sorted(state))]


def test_several_memories_compute_what_one_does(tmp_path: Path) -> None:
    host, several = get_target("host"), board(tmp_path, SLOW, FAST, MIDDLE)
    one = compile_program(lenet(2, 12), OPTIONS, host)
    divided = compile_program(lenet(2, 12), OPTIONS, several)
    assert trained(divided, several) == trained(one, host)
    assert one.regions == one.state_regions == ()
    assert [use.name for use in divided.regions] == ["slow", "fast", "middle"]
    for use in divided.regions:
        assert use.arena_bytes > 0
        assert use.state_bytes > 0
        assert use.arena_bytes + use.state_bytes <= use.capacity
    assert sum(use.state_bytes for use in divided.regions) == len(divided.state_image)
    for entry in divided.entries.values():
        for buffer in entry.buffers:
            (part,) = [r for r in entry.regions if r.region == buffer.region]
            assert part.start <= buffer.offset
            assert buffer.offset + buffer.bytes <= part.end


def test_the_fast_memory_is_used_well(tmp_path: Path) -> None:
    program, target = lenet(2, 12), board(tmp_path, SLOW, FAST)
    lowered = compile_program(program, OPTIONS, target)
    fast = next(use for use in lowered.regions if use.name == "fast")
    assert fast.arena_bytes + fast.state_bytes > 0.8 * fast.capacity
    b = ProgramBuilder()
    x = b.input([8, 64])
    tiny = scheduled(b.finish(b.tanh(b.dense(x, b.weight("w", np.ones((32, 64), np.float32))))))
    plan = ProgramPlan(tiny, target)
    (entry,) = plan.buffers()[1]
    assert plan.access_cost == sum(entry.traffic)


def test_a_memory_too_many_changes_nothing(tmp_path: Path) -> None:
    """One region is the same plan as no region, but for its name."""
    one = compile_program(lenet(2, 12), OPTIONS, get_target("host"))
    named = compile_program(lenet(2, 12), OPTIONS, board(tmp_path, SLOW))
    for name, entry in one.entries.items():
        places = [(b.label, b.offset, b.bytes) for b in entry.buffers]
        assert places == [(b.label, b.offset, b.bytes) for b in named.entries[name].buffers]
    assert one.state == named.state


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    target = board(tmp_path, FAST, {**MIDDLE, "bytes": 50_000})
    with pytest.raises(DoesNotFitError) as failure:
        compile_program(lenet(2, 12), OPTIONS, target)
    text = str(failure.value)
    assert "fast has 8,000 bytes, middle has 50,000 bytes" in text
    assert "fc2.weight, kept between steps" in text
    assert "Update fewer layers" in text


def test_frozen_weights_must_fit_into_flash(tmp_path: Path) -> None:
    b = ProgramBuilder()
    x = b.input([8, 64])
    program = b.finish(b.dense(x, b.weight("w", np.ones((32, 64), np.float32))))
    flash = {"name": "flash", "bytes": 10_000, "read_only": True, "cost": 4, "reserved": 1_000}
    lowered = lower(program, board(tmp_path, SLOW, flash))
    assert lowered.regions[1].constant_bytes == 32 * 64 * 4
    with pytest.raises(DoesNotFitError, match="8,192 bytes, the board leaves 7,000 in flash"):
        lower(program, board(tmp_path, SLOW, {**flash, "reserved": 3_000}))


NOTHING = Buffers(ArenaProblem(()), (), ())


def buffers(*rows: tuple[int, int, int, int]) -> Buffers:
    """Rows (size, start, end, traffic)."""
    return Buffers(
        ArenaProblem(tuple(ArenaBuffer(size, start, end) for size, start, end, _ in rows)),
        tuple(traffic for *_, traffic in rows),
        tuple(f"b{number}" for number in range(len(rows))),
    )


def without_reuse(problem: ArenaProblem) -> ArenaPlan:
    """A planner that leaves the widest gaps."""
    ends = np.cumsum([b.occupied for b in problem.buffers], dtype=np.int64).tolist()
    return ArenaPlan((0, *ends[:-1])[: len(ends)], ends[-1] if ends else 0)


def test_buffers_move_on_where_gaps_are_in_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = buffers(*((4, t, t + 1, 90 - t) for t in range(5)))
    regions = [MemoryRegion("fast", 10), MemoryRegion("slow", 100, 2)]
    (arena,) = plan_regions(NOTHING, [entry], regions).arenas
    assert [(r.region, r.size) for r in arena.regions] == [("fast", 4)]
    monkeypatch.setattr("niwaki.passes.arenas.regions.plan_arena", without_reuse)
    (arena,) = plan_regions(NOTHING, [entry], regions).arenas
    assert [(r.region, r.size) for r in arena.regions] == [("fast", 8), ("slow", 12)]
    check(entry, arena.plan, {r.region: (r.start, r.end) for r in arena.regions})
    with pytest.raises(DoesNotFitError, match="fast has 10 bytes, and buffers of 12 bytes find"):
        plan_regions(NOTHING, [entry], regions[:1])


def check(entry: Buffers, plan: ArenaPlan, ranges: Mapping[str, tuple[int, int]]) -> None:
    verify_arena(entry.problem, plan)
    for buffer, offset in zip(entry.problem.buffers, plan.offsets, strict=True):
        inside = [a <= offset and offset + buffer.size <= e for a, e in ranges.values()]
        assert sum(inside) == 1


def row(size: int, start: int, life: int, traffic: int) -> tuple[int, int, int, int]:
    return size, start, start + life, traffic


ROW = st.builds(
    row,
    st.integers(1, 9),
    st.integers(0, 6),
    st.integers(1, 4),
    st.integers(0, 50),
)


@settings(max_examples=50)
@given(st.lists(ROW, min_size=1, max_size=10), st.lists(ROW, min_size=1, max_size=10))
def test_every_plan_keeps_to_its_regions(
    first: list[tuple[int, int, int, int]], second: list[tuple[int, int, int, int]]
) -> None:
    state, entries = buffers((5, 0, 1, 10), (7, 0, 1, 90)), [buffers(*first), buffers(*second)]
    regions = [MemoryRegion("fast", 12), MemoryRegion("middle", 20, 2), MemoryRegion("slow", 99, 5)]
    plan = plan_regions(state, entries, regions)
    kept = [0, 0, 0]
    for place, buffer in zip(plan.state, state.problem.buffers, strict=True):
        kept[place] += buffer.size
    capacity = {r.name: r.bytes - k for r, k in zip(regions, kept, strict=True)}
    for entry, arena in zip(entries, plan.arenas, strict=True):
        check(entry, arena.plan, {r.region: (r.start, r.end) for r in arena.regions})
        assert all(part.size <= capacity[part.region] for part in arena.regions)
