"""`memory_limit`: the fastest plan that fits, or an error that helps."""

import numpy as np
import pytest

import niwaki
from tests.conv_chains import conv_chain

X = np.random.default_rng(0).standard_normal((2, 16, 16, 4)).astype(np.float32)
Y = np.array([1, 3], np.int32)


def _need(step: niwaki.TrainingStep) -> int:
    return step.memory.arena_bytes + step.memory.state_bytes


def test_a_limit_is_kept_and_the_losses_stay() -> None:
    program = conv_chain(2, 8)
    plain = niwaki.compile(program)
    assert plain.memory.savings is None
    limit = plain.memory.state_bytes + plain.memory.arena_bytes * 7 // 10
    step = niwaki.compile(program, memory_limit=limit)
    assert _need(step) <= limit
    savings = step.memory.savings
    assert savings is not None
    assert savings.bytes == _need(plain) - _need(step)
    assert savings.extra_flops < 20
    assert " and ".join(savings.techniques) in step.memory.table()
    for _ in range(2):
        assert step(X, Y) == pytest.approx(plain(X, Y), rel=1e-5)


def test_the_error_says_what_helps() -> None:
    program = conv_chain(2, 8, batch_norm=True)
    plain = niwaki.compile(program, target="cortex-m7")
    limit = plain.memory.state_bytes + plain.memory.arena_bytes // 10
    with pytest.raises(niwaki.DoesNotFitError) as failure:
        niwaki.compile(program, target="cortex-m7", memory_limit=limit)
    text = str(failure.value)
    assert f"the limit is {limit:,}" in text
    assert "the least that strips of rows, recomputation and micro-batches reach" in text
    assert "No micro-batches: the batch norm at" in text
    assert "The largest buffers at the peak of train_step" in text
    assert "Freezing the layers up to" in text
    assert "use a smaller batch" in text
