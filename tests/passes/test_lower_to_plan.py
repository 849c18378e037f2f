"""Lowered programs compute what the interpreter says, through the JIT, on a poisoned arena."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from xdsl.dialects.builtin import StringAttr, i32

from niwaki.backends.targets import get_target
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects import plan
from niwaki.ir.errors import UnsupportedOpsError, UsageError
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.passes.decompose import DecomposePass
from niwaki.passes.lower_to_plan import lower
from tests.compiled import HOST, Compiled, check_against_interpreter, scheduled
from tests.random_programs import SPECS, Step, build, inputs
from tests.training_programs import apply

RANDOM = np.random.default_rng(3)


def array(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype(np.float32)


def calls(lowered: Lowered, name: str = "forward") -> list[str]:
    """The kernels that entry point `name` calls, without their numbers."""
    return [c.kernel.rsplit("_", 1)[0] for c in lowered.entries[name].calls]


def test_results_go_straight_into_outputs_and_state() -> None:
    b = ProgramBuilder()
    x, w = b.input([3, 4]), b.weight("w", array(5, 4))
    y = b.dense(x, w)
    b.assign(w, b.mul(w, b.constant(0.5)))
    compiled = check_against_interpreter(b.finish(y), "forward", [array(3, 4)])
    assert calls(compiled.lowered) == ["matmul", "elementwise"]
    buffers = compiled.lowered.entries["forward"].buffers
    assert all(buffer.label.startswith("workspace") for buffer in buffers)
    assert [e.name for e in compiled.lowered.state] == ["w"]


def test_an_update_of_a_box_leaves_the_rest_alone() -> None:
    b = ProgramBuilder()
    x, w = b.input([3, 4]), b.weight("w", array(5, 6))
    y = b.exp(x)
    b.assign(w, b.add(b.slice(w, [0, 0], [5, 4]), b.concat([y, b.slice(y, [0, 0], [2, 4])], 0)))
    compiled = check_against_interpreter(b.finish(y), "forward", [array(3, 4)])
    assert "copy" not in calls(compiled.lowered)
    assert compiled.lowered.state[0].updated == (5, 4)
    assert compiled.lowered.state[0].shape == (5, 6)


@pytest.mark.parametrize("use", ["assigned", "returned", "read"])
def test_rows_are_added_to_the_table_or_a_copy(use: str) -> None:
    b = ProgramBuilder()
    x, indices, table = b.input([2, 4]), b.input([2], i32), b.weight("w", array(5, 4))
    y = b.add_rows(table, x, indices)
    if use == "assigned":
        b.assign(table, y)
    output = {"assigned": b.exp(x), "returned": y, "read": b.softmax(y)}[use]
    program = b.finish(output)
    program = apply(program, DecomposePass())
    inputs = [array(2, 4), np.array([4, 4], np.int32)]
    compiled = check_against_interpreter(program, "forward", inputs)
    assert ("copy" in calls(compiled.lowered)) == (use != "assigned")


def swap(b: ProgramBuilder, x: Value) -> list[Value]:
    """Two parameters take each other's value: one copy must not see the other's write."""
    p, q = b.weight("p", array(4)), b.weight("q", array(4))
    new_p, new_q = b.mul(q, b.constant(2.0)), b.mul(p, b.constant(3.0))
    b.assign(p, new_p)
    b.assign(q, new_q)
    return [b.add(x, p)]


def cyclic_updates(b: ProgramBuilder, x: Value) -> list[Value]:
    """Each update reads the other's old and new value: not both can work in place."""
    p, q = b.weight("p", array(4)), b.weight("q", array(4))
    new_p, new_q = b.add(p, x), b.mul(q, x)
    b.assign(p, b.relu(new_p))
    b.assign(q, b.relu(new_q))
    return [b.add(new_p, q), b.add(new_q, p)]


def reader_behind_the_producer(b: ProgramBuilder, x: Value) -> list[Value]:
    """The old value is needed to compute something from the new one."""
    p = b.weight("p", array(4))
    new = b.add(p, x)
    b.assign(p, new)
    return [b.mul(new, p)]


def assigned_twice(b: ProgramBuilder, x: Value) -> list[Value]:
    p, q = b.weight("p", array(4)), b.weight("q", array(4))
    y = b.exp(x)
    b.assign(p, y)
    b.assign(q, y)
    return [y, y]


def assigned_from_storage(b: ProgramBuilder, x: Value) -> list[Value]:
    """No kernel computes the values: inputs, constants, other parameters, a part of itself."""
    p, q = b.weight("p", array(4)), b.weight("q", array(4))
    r, s = b.weight("r", array(4)), b.weight("s", array(6))
    y = b.add(p, x)
    b.assign(p, q)
    b.assign(q, x)
    b.assign(r, b.constant(2.0, [4]))
    b.assign(s, b.slice(s, [2], [4]))
    return [y]


def assigned_to_itself(b: ProgramBuilder, x: Value) -> list[Value]:
    p = b.weight("p", array(4))
    y = b.add(p, x)
    b.assign(p, p)
    return [y]


def returned_as_they_are(b: ProgramBuilder, x: Value) -> list[Value]:
    return [x, b.weight("p", array(4)), b.constant(3.0, [2, 2]), b.reshape(x, [2, 2])]


def returned_through_a_reshape(b: ProgramBuilder, x: Value) -> list[Value]:
    y = b.exp(x)
    return [b.reshape(y, [2, 2]), b.mul(y, y)]


def assigned_through_a_reshape(b: ProgramBuilder, x: Value) -> list[Value]:
    p = b.weight("p", array(4))
    sums = b.reduce_sum(b.reshape(b.mul(x, p), [1, 4]), [0])
    b.assign(p, b.reshape(sums, [4]))
    return [b.tanh(x)]


def reshape_of_a_strided_part(b: ProgramBuilder, x: Value) -> list[Value]:
    p = b.weight("p", array(4, 3))
    return [b.add(x, b.reshape(b.slice(p, [0, 1], [2, 2]), [4]))]


def strided_part_in_a_product(b: ProgramBuilder, x: Value) -> list[Value]:
    """Both products share one contiguous copy."""
    w = b.slice(b.weight("p", array(5, 6)), [0, 1], [5, 4])
    row = b.reshape(x, [1, 4])
    return [b.dense(row, w), b.dense(b.exp(row), w)]


def slices_with_steps(b: ProgramBuilder, x: Value) -> list[Value]:
    p = b.weight("p", array(8))
    return [b.add(b.slice(p, [1], [4], [2]), x), b.slice(b.exp(x), [1], [2])]


def one_operand_twice(b: ProgramBuilder, x: Value) -> list[Value]:
    y = b.exp(x)
    z = b.mul(y, y)
    return [b.add(b.reshape(z, [4, 1]), z)]


def an_unused_input(b: ProgramBuilder, x: Value) -> list[Value]:
    b.input([7])
    return [b.exp(x)]


def masks(b: ProgramBuilder, x: Value) -> list[Value]:
    y = b.exp(x)
    mask = b.compare(x, y, "gt")
    return [b.select(mask, x, y), b.select(mask, y, b.neg(y))]


CASES = (
    swap, cyclic_updates, reader_behind_the_producer, assigned_twice, assigned_from_storage,
    assigned_to_itself, returned_as_they_are, returned_through_a_reshape,
    assigned_through_a_reshape, reshape_of_a_strided_part, strided_part_in_a_product,
    slices_with_steps, one_operand_twice, an_unused_input, masks,
)  # fmt: skip


@pytest.mark.parametrize("order", ["exact", "source"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_where_values_lie(case: Callable[[ProgramBuilder, Value], list[Value]], order: str) -> None:
    b = ProgramBuilder()
    x = b.input([4])
    program = b.finish(*case(b, x))
    arguments = [array(*a.type.get_shape()) for a in program.function("forward").body.block.args]
    check_against_interpreter(program, "forward", arguments, order=order)


@settings(max_examples=25)
@given(SPECS)
def test_random_programs(steps: list[Step]) -> None:
    check_against_interpreter(build(steps), "forward", inputs(), steps=1)


def two_layers() -> Program:
    b = ProgramBuilder()
    x = b.input([2, 4])
    y = b.relu(b.dense(x, b.weight("a", array(4, 4))))
    z = b.relu(b.dense(y, b.weight("b", array(4, 4))))
    return b.finish(z)


def test_equal_operations_share_a_kernel() -> None:
    lowered = lower(two_layers(), HOST)
    kernels = [c.kernel for c in lowered.entries["forward"].calls]
    assert kernels == ["matmul_0", "elementwise_0"] * 2


def test_functions_share_kernels_and_storage() -> None:
    program = two_layers()
    second = program.function("forward").clone()
    second.properties["sym_name"] = StringAttr("infer")
    program.module.body.block.add_op(second)
    lowered = lower(program, HOST)
    assert [c.kernel for c in lowered.entries["forward"].calls] == [
        c.kernel for c in lowered.entries["infer"].calls
    ]
    assert [e.name for e in lowered.constants] == ["a", "b"]
    assert lowered.state == ()
    Compiled(lowered)


def test_lowering_is_deterministic_and_keeps_the_program() -> None:
    program = scheduled(two_layers())
    before = str(program.module)
    texts = {str(lower(p, HOST).module) for p in (program, program, program.clone())}
    assert len(texts) == 1
    assert str(program.module) == before


def test_the_bound_is_that_of_the_order() -> None:
    b = ProgramBuilder()
    x = b.input([16])
    y, z = b.exp(x), b.tanh(x)
    lowered = lower(b.finish(b.reduce_sum(b.mul(y, b.reduce_sum(z, [0])), [0])), HOST)
    entry = lowered.entries["forward"]
    assert entry.arena_bytes == entry.bound_bytes == 3 * 64  # both activations and the sum


def test_a_loss_of_zero_is_not_negative() -> None:
    b = ProgramBuilder()
    loss = b.cross_entropy(b.input([2, 3]), b.input([2], i32))
    program = apply(b.finish(loss), DecomposePass())
    certain = [200 * np.eye(2, 3, dtype=np.float32), np.array([0, 1], np.int32)]
    (ours,) = Compiled(lower(program, HOST)).run("forward", certain)
    assert (ours, np.signbit(ours)) == (0, False)


def test_every_operation_without_a_kernel_is_listed() -> None:
    b = ProgramBuilder()
    x = b.input([4, 4])
    program = b.finish(b.softmax(x), b.log_softmax(x))
    with pytest.raises(UnsupportedOpsError, match=r"2 operation.*not supported") as failure:
        lower(program, HOST)
    assert "nn.softmax" in str(failure.value)
    assert "nn.log_softmax" in str(failure.value)


def test_missing_arrays_are_named() -> None:
    program = two_layers()
    with pytest.raises(UsageError, match="'a' has no array"):
        lower(Program(program.module), HOST)


def test_alignment_follows_the_target() -> None:
    lowered = lower(two_layers(), get_target("cortex-m4"))
    program = lowered.module.body.block.last_op
    assert isinstance(program, plan.ProgramOp)
    assert lowered.constants[1].offset % 8 == 0
    assert lowered.target_name == "cortex-m4"
