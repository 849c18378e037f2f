"""A board is a memory limit: what makes the step fit is done, or the error says what is missing."""

from pathlib import Path

import numpy as np
import pytest

import niwaki
from tests.boards import write_board
from tests.conv_chains import conv_chain

X = np.random.default_rng(0).standard_normal((2, 16, 16, 4)).astype(np.float32)
Y = np.array([1, 3], np.int32)


def board(folder: Path, fast: int, slow: int) -> str:
    regions = ({"name": "slow", "bytes": slow, "cost": 3}, {"name": "fast", "bytes": fast})
    return str(write_board(folder / "board.toml", "host", *regions))


def test_a_board_is_a_limit(tmp_path: Path) -> None:
    program = conv_chain(2, 8)
    plain = niwaki.compile(program)
    need = plain.memory.arena_bytes + plain.memory.state_bytes
    roomy = niwaki.compile(program, target=board(tmp_path, need // 4, need))
    assert roomy.memory.savings is None
    assert [use.name for use in roomy.memory.regions] == ["slow", "fast"]
    tight = niwaki.compile(program, target=board(tmp_path, need // 5, need // 2))
    savings = tight.memory.savings
    assert savings is not None
    for use in tight.memory.regions:
        assert use.arena_bytes + use.state_bytes <= use.capacity
        assert f"of {use.capacity:,}: {use.arena_bytes:,} arena" in tight.memory.table()
    for _ in range(2):
        loss = plain(X, Y)
        assert roomy(X, Y) == loss
        assert tight(X, Y) == pytest.approx(loss, rel=1e-5)


def test_a_limit_below_the_board(tmp_path: Path) -> None:
    program = conv_chain(2, 8)
    plain = niwaki.compile(program)
    need = plain.memory.arena_bytes + plain.memory.state_bytes
    target = board(tmp_path, need // 4, need)
    step = niwaki.compile(program, target=target, memory_limit=need * 7 // 10)
    assert sum(u.arena_bytes + u.state_bytes for u in step.memory.regions) <= need * 7 // 10


def test_too_small_a_board(tmp_path: Path) -> None:
    with pytest.raises(niwaki.DoesNotFitError) as failure:
        niwaki.compile(conv_chain(1, 2), target=board(tmp_path, 1000, 2000))
    text = str(failure.value)
    assert "fast has 1,000 bytes, slow has 2,000 bytes" in text
    assert "Strips of rows, recomputation and micro-batches do not make it fit" in text
