"""The interpreter: completeness, checks of inputs and weights, fused groups, dtypes."""

from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import f64, f80
from xdsl.ir import Block, Operation, Region
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.builder import Builder, ProgramBuilder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.nn import NN
from niwaki.ir.dialects.tensor_op import f32, i32, tensor
from niwaki.ir.dialects.train import TRAIN
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.errors import UsageError
from niwaki.ir.interpreter import STATELESS, run
from niwaki.ir.program import Program
from niwaki.ir.semantics.train import TrainFunctions


def _implemented() -> set[type[Operation]]:
    """The operations whose implementation xDSL's registry finds."""
    found: set[type[Operation]] = set()
    for functions in (*STATELESS, TrainFunctions):
        for member in vars(functions).values():
            op_type = getattr(member, "__impl_op_type", None)
            if op_type is not None:
                found.add(op_type)
    return found


@pytest.mark.parametrize("op", [*NN.operations, *TRAIN.operations], ids=lambda op: op.name)
def test_every_operation_is_implemented(op: type[Operation]):
    assert op in _implemented()


def _relu_program() -> Program:
    b = ProgramBuilder()
    return b.finish(b.relu(b.input([2, 3])))


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], r"'forward' takes 1 input\(s\), got 0"),
        ([np.zeros((3, 2), "f4")], r"input 0 .* float32 \[2, 3\], got float32 \[3, 2\]"),
        ([np.zeros((2, 3), "c8")], r"got complex64"),
        ([np.full((2, 3), "a")], r"must be float32 \[2, 3\]"),
    ],
)
def test_inputs_are_checked(inputs: list[Any], message: str):
    with pytest.raises(UsageError, match=message):
        run(_relu_program(), "forward", inputs)


def test_labels_may_not_be_floats():
    b = ProgramBuilder()
    program = b.finish(b.one_hot(b.input([2], i32), 3))
    with pytest.raises(UsageError, match="must be int32"):
        run(program, "forward", [np.zeros(2)])
    (y,) = run(program, "forward", [np.array([1, 2], np.int64)])
    np.testing.assert_array_equal(y, [[0, 1, 0], [0, 0, 1]])


def test_unknown_function():
    with pytest.raises(UsageError, match="no function 'train_step'"):
        run(_relu_program(), "train_step", [])


def test_missing_and_misshapen_parameters():
    b = ProgramBuilder()
    program = b.finish(b.weight("w", np.ones(2, np.float32)))
    with pytest.raises(UsageError, match=r"'w' must be float32 \[2\], got float32 \[3\]"):
        run(program, "forward", [], {"w": np.ones(3, np.float32)})
    with pytest.raises(UsageError, match="parameter 'w' has no array"):
        run(Program(program.module), "forward", [])


def test_state_goes_before_weights():
    b = ProgramBuilder()
    program = b.finish(b.weight("w", np.ones(2, np.float32)))
    (y,) = run(program, "forward", [], {"w": np.full(2, 5, np.float32)})
    np.testing.assert_array_equal(y, [5, 5])


def test_float64_ir_casts_float32_weights():
    b = ProgramBuilder()
    x = b.input([2], f64)
    parameter = b.weight("w", np.array([0.1, 0.2], np.float32))
    wide = train.ParameterOp.create(
        properties=dict(parameter.owner.properties),  # pyright: ignore[reportAttributeAccessIssue]
        result_types=[tensor([2], f64)],
    )
    b.insert(wide)
    program = b.finish(b.add(x, wide.results[0]))
    (y,) = run(program, "forward", [np.zeros(2)])
    assert y.dtype == np.float64
    np.testing.assert_array_equal(y, np.array([0.1, 0.2], np.float32).astype(np.float64))


def test_fused_runs_its_body():
    body = Block(arg_types=[tensor([2]), tensor([2])])
    inner = Builder.at_end(body)
    total = inner.add(*body.args)
    inner.insert(nn.YieldOp(inner.relu(total), total))
    b = ProgramBuilder()
    x, y = b.input([2]), b.input([2])
    fused = b.insert(
        nn.FusedOp.create(
            operands=[x, y], result_types=[tensor([2]), tensor([2])], regions=[Region(body)]
        )
    )
    relu, added = run(b.finish(*fused.results), "forward", [[1, -5], [2, 3]])
    np.testing.assert_array_equal(relu, [3, 0])
    np.testing.assert_array_equal(added, [3, -2])


def test_ten_thousand_operations_in_a_row():
    b = ProgramBuilder()
    value = b.input([])
    for _ in range(10_000):
        value = b.neg(value)
    (y,) = run(b.finish(value), "forward", [3.0])
    assert y == 3.0


def test_a_function_may_return_its_argument():
    b = ProgramBuilder()
    (y,) = run(b.finish(b.input([], f32)), "forward", [2])
    assert y.dtype == np.float32
    assert y == 2


def test_no_arrays_of_f80():
    with pytest.raises(VerifyException, match="no arrays of element type f80"):
        dtype_of(f80)
