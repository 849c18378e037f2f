"""Runs tensor-level IR on NumPy arrays: the reference that every backend is compared with."""

from collections.abc import MutableMapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from xdsl.dialects.func import FuncOp
from xdsl.interpreter import Interpreter
from xdsl.interpreters.func import FuncFunctions

from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import Tensor, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.errors import UsageError
from niwaki.ir.program import Program
from niwaki.ir.semantics.composite import CompositeFunctions
from niwaki.ir.semantics.contraction import ContractionFunctions
from niwaki.ir.semantics.elementwise import ElementwiseFunctions
from niwaki.ir.semantics.fused import FusedFunctions
from niwaki.ir.semantics.pooling import PoolingFunctions
from niwaki.ir.semantics.quantized import QuantizedFunctions
from niwaki.ir.semantics.shape import ShapeFunctions
from niwaki.ir.semantics.train import TrainFunctions

Array = np.ndarray[Any, np.dtype[Any]]

STATELESS = (
    ElementwiseFunctions,
    ContractionFunctions,
    PoolingFunctions,
    ShapeFunctions,
    QuantizedFunctions,
    CompositeFunctions,
    FusedFunctions,
)
"""The semantics of the `nn` dialect."""


def run(
    program: Program,
    function: str,
    inputs: Sequence[ArrayLike],
    state: MutableMapping[str, Array] | None = None,
) -> list[Array]:
    """Runs `function` of `program` and returns its results.

    A parameter is read from `state` if it is there, else from the program's weights; a
    `train.state` from `state`, else it is full of its `init`. Every read sees the value at the
    start of the step. Writes put new arrays into `state`; the program's weights never change.
    Arithmetic follows IEEE 754 without warnings: overflow gives inf, 0/0 gives nan.

    Raises UsageError if there is no such function, the inputs do not fit its arguments, or a
    parameter has no array of its shape.
    """
    state = {} if state is None else state
    func = _function(program, function)
    arguments = _checked_inputs(func, inputs)
    _check_storage(program, func, state)

    interpreter = Interpreter(program.module)
    interpreter.register_implementations(FuncFunctions())
    for functions in STATELESS:
        interpreter.register_implementations(functions())
    interpreter.register_implementations(TrainFunctions(program.weights, state))
    with np.errstate(all="ignore"):
        results = interpreter.call_op(func, arguments)
    return [np.asarray(r) for r in results]


def _function(program: Program, name: str) -> FuncOp:
    try:
        return program.function(name)
    except KeyError:
        raise UsageError(f"the program has no function '{name}'") from None


def _checked_inputs(func: FuncOp, inputs: Sequence[ArrayLike]) -> tuple[Array, ...]:
    types = [type_of(a) for a in func.body.block.args]
    name = func.sym_name.data
    if len(inputs) != len(types):
        raise UsageError(f"'{name}' takes {len(types)} input(s), got {len(inputs)}")
    return tuple(
        _checked_array(np.asarray(value), declared, f"input {number} of '{name}'")
        for number, (value, declared) in enumerate(zip(inputs, types, strict=True))
    )


def _checked_array(array: Array, declared: Tensor, what: str) -> Array:
    dtype = dtype_of(declared.element_type)
    if array.shape != declared.get_shape() or not np.can_cast(array.dtype, dtype, "same_kind"):
        raise UsageError(
            f"{what} must be {dtype} {list(declared.get_shape())}, "
            f"got {array.dtype} {list(array.shape)}"
        )
    return array.astype(dtype, copy=False)


def _check_storage(program: Program, func: FuncOp, state: MutableMapping[str, Array]) -> None:
    for op in func.walk():
        if not isinstance(op, train.Storage):
            continue
        array = state.get(op.key, program.weights.get(op.key))
        if array is not None:
            _checked_array(array, type_of(op.value), f"'{op.key}'")
        elif isinstance(op, train.ParameterOp):
            raise UsageError(f"parameter '{op.key}' has no array in the weights of the program")
