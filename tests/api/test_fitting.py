"""`memory_limit`: the fastest plan that fits, or an error that helps."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import niwaki
from niwaki.backends.targets import get_target
from niwaki.fitting import fit, smallest_plan
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.training import TrainingOptions
from niwaki.passes.pipelines import Techniques
from niwaki.passes.planner import Planner
from tests.conv_chains import conv_chain

X = np.random.default_rng(0).standard_normal((2, 16, 16, 4)).astype(np.float32)
Y = np.array([1, 3], np.int32)
PLANNERS = {
    norm: Planner(conv_chain(2, 3, batch_norm=norm), TrainingOptions(), get_target("x86-64"))
    for norm in (False, True)
}
"""Without and with a batch norm that refuses micro-batches; each plans everything once."""


def _need(step: niwaki.TrainingStep) -> int:
    return step.memory.arena_bytes + step.memory.state_bytes


def test_a_limit_is_kept_and_the_losses_stay() -> None:
    program = conv_chain(2, 4)
    plain = niwaki.compile(program)
    assert plain.memory.savings is None
    limit = plain.memory.state_bytes + plain.memory.arena_bytes * 7 // 10
    step = niwaki.compile(program, memory_limit=limit)
    assert _need(step) <= limit
    savings = step.memory.savings
    assert savings is not None
    assert savings.bytes == _need(plain) - _need(step)
    assert 0 < savings.extra_time < 20
    assert " and ".join(savings.techniques) in step.memory.table()
    for _ in range(2):
        assert step(X, Y) == pytest.approx(plain(X, Y), rel=1e-5)


def test_scratch_is_spared_before_anything_is_computed_again() -> None:
    b = ProgramBuilder()
    x, w = b.input([1, 32, 32, 32]), b.weight("w", np.ones((64, 3, 3, 32), np.float32))
    program = b.finish(b.conv2d(x, w, padding=1))
    plain = niwaki.compile(program, loss="mse")
    step = niwaki.compile(program, loss="mse", memory_limit=_need(plain) - 1)
    assert step.memory.savings is not None
    assert step.memory.savings.techniques == ("less scratch",)
    assert step.memory.savings.bytes == _need(plain) - _need(step) > 0


@pytest.mark.parametrize("norm", [False, True])
def test_the_smallest_plan_can_be_had(norm: bool) -> None:
    planner = PLANNERS[norm]
    smallest = smallest_plan(planner).bytes
    plan, _ = fit(planner, smallest)
    assert plan.bytes == smallest
    with pytest.raises(niwaki.DoesNotFitError, match=f"needs {smallest:,} bytes"):
        fit(planner, smallest - 1)


@given(st.booleans(), st.integers(0, 8), st.integers(0, 8))
@settings(max_examples=20, deadline=None)
def test_more_memory_is_never_slower(norm: bool, a: int, b: int) -> None:
    planner = PLANNERS[norm]
    smallest, most = smallest_plan(planner).bytes, planner.plan(Techniques()).bytes
    less, more = sorted(smallest + part * (most - smallest) // 8 for part in (a, b))
    tight, roomy = fit(planner, less)[0], fit(planner, more)[0]
    assert tight.bytes <= less
    assert roomy.bytes <= more
    assert roomy.cost <= tight.cost


def test_the_plan_that_fits_is_compiled() -> None:
    """Nothing is planned anew: bytes, calls and their cost are those that were compared."""
    planner = PLANNERS[False]
    plan, savings = fit(planner, planner.plan(Techniques()).bytes // 2)
    assert savings is not None
    lowered = plan.program.lower()
    assert lowered.arena_bytes + lowered.state_bytes == plan.bytes
    assert lowered.entries == plan.program.entries


def test_techniques_without_effect_are_not_named() -> None:
    planner = PLANNERS[False]
    plain = planner.plan(Techniques())
    aim = plain.program.arena_bytes
    aimed = planner.plan(Techniques(row_bytes=aim, recompute_bytes=aim))
    assert aimed.techniques == Techniques()
    assert aimed.program.entries == plain.program.entries


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
    assert _planned(text, r"With a batch of 1 it needs ([\d,]+)") == _need(
        niwaki.compile(program, target="cortex-m7", batch=1)
    )
    frozen = r"With everything before conv7.weight frozen \(the last 1 of 8 .*\) it needs ([\d,]+)"
    assert _planned(text, frozen) == _need(
        niwaki.compile(program, target="cortex-m7", update="last_layers(1)")
    )


def _planned(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    assert found is not None
    return int(found[1].replace(",", ""))
