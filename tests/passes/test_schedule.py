"""The schedule pass: same results, reads before writes, never more memory than the source order."""

import numpy as np
import pytest

from niwaki.ir import interpreter
from niwaki.ir.builder import ProgramBuilder
from niwaki.ir.dialects import nn, train
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Adam, Optimizer, Scheme
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.expand_updates import ExpandUpdatesPass
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.lower_to_plan import lower
from niwaki.passes.orders.bound import lower_bound
from niwaki.passes.orders.greedy import best_greedy_order
from niwaki.passes.orders.problem import ScheduleProblem, check_order, live_bytes
from niwaki.passes.schedule import schedule, schedule_problem
from niwaki.passes.storage_layout import StorageLayout
from tests import networks
from tests.compiled import HOST, scheduled
from tests.training_programs import apply, training_program


def unfused_step(optimizer: Optimizer, scheme: Scheme) -> Program:
    """Updates last, as autodiff leaves them."""
    program = training_program(networks.lenet(2), optimizer, scheme)
    return apply(program, ExpandUpdatesPass(), DecomposePass())


def problem_of(program: Program) -> ScheduleProblem:
    library = KernelLibrary(HOST)
    layout = StorageLayout(program.module, library)
    return schedule_problem(program.function("train_step"), layout, library)[0]


RECIPES = [
    (SGD(0.1, momentum=0.9), Scheme.full()),
    (Adam(0.01, clip_norm=1.0), Scheme.channels({1: 0.5}, 2)),
]


@pytest.mark.parametrize(("optimizer", "scheme"), RECIPES, ids=["momentum", "adam"])
def test_training_steps_keep_their_results(optimizer: Optimizer, scheme: Scheme) -> None:
    program = unfused_step(optimizer, scheme)
    random = np.random.default_rng(1)
    inputs = (random.standard_normal((2, 28, 28, 1)).astype(np.float32), [3, 7], 0.1)
    states: list[dict[str, np.ndarray]] = [{}, {}]
    losses = [
        interpreter.run(p, "train_step", inputs, state)
        for p, state in zip((program, scheduled(program)), states, strict=True)
    ]
    assert losses[0] == losses[1]
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value)


def test_a_better_order_than_updates_last() -> None:
    program = unfused_step(SGD(0.1, momentum=0.9), Scheme.full())
    problem = problem_of(program)
    order = best_greedy_order(problem)
    check_order(problem, order)
    peak = live_bytes(problem, order).peak
    assert lower_bound(problem, order) <= peak < live_bytes(problem, range(len(order))).peak
    assert peak <= 1.05 * lower_bound(problem, order)
    again = problem_of(scheduled(program))
    assert live_bytes(again, range(len(again.nodes))).peak == peak


def test_the_exact_order_is_proven_and_reported() -> None:
    program = unfused_step(SGD(0.1, momentum=0.9), Scheme.full())
    greedy, exact = (lower(scheduled(program, o), HOST) for o in ("greedy", "exact"))
    for name, entry in exact.entries.items():
        assert entry.order_proven
        assert greedy.entries[name].order_bound_bytes <= entry.order_bound_bytes
        assert entry.bound_bytes <= greedy.entries[name].bound_bytes
    source = lower(scheduled(program, "source"), HOST).entries["train_step"]
    assert (source.order_bound_bytes, source.order_proven) == (0, False)


def test_updates_follow_their_gradients() -> None:
    block = scheduled(unfused_step(SGD(0.1), Scheme.full())).function("train_step").body.block
    ops = list(block.ops)
    position = {op: i for i, op in enumerate(ops)}
    for op in ops:
        if isinstance(op, train.AssignOp) and op.value.op is not None:
            between = ops[position[op.value.op] + 1 : position[op]]
            assert all(isinstance(other, nn.ReshapeOp) for other in between)


def test_source_order_stays() -> None:
    b = ProgramBuilder()
    x = b.input([4])
    y, z = b.exp(x), b.tanh(x)
    program = b.finish(b.add(b.neg(z), b.neg(y)))
    assert str(scheduled(program, "source").module) == str(program.module)


def test_scheduling_twice_changes_nothing() -> None:
    once = scheduled(unfused_step(SGD(0.1), Scheme.full()))
    assert str(scheduled(once).module) == str(once.module)


def test_negative_search_nodes() -> None:
    with pytest.raises(UsageError, match="nodes is -1"):
        schedule(networks.lenet(1).module, HOST, nodes=-1)


def test_unknown_order() -> None:
    with pytest.raises(UsageError, match="unknown order 'best': use exact, greedy or source"):
        schedule(networks.lenet(1).module, HOST, "best")
