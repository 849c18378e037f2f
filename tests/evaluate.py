"""Runs a few operations on arrays, for tests of semantics."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from xdsl.dialects.builtin import f32, f64, i1, i8, i32
from xdsl.ir import Attribute

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.interpreter import run

Array = np.ndarray[Any, np.dtype[Any]]

ELEMENTS: dict[str, Attribute] = {
    "float32": f32,
    "float64": f64,
    "bool": i1,
    "int8": i8,
    "int32": i32,
}


def evaluate_all(build: Callable[..., Sequence[Value]], *arrays: Array) -> list[Array]:
    """What `build(builder, *values)` computes from `arrays`, which also give the input types."""
    builder = ProgramBuilder()
    values = [builder.input(a.shape, ELEMENTS[a.dtype.name]) for a in arrays]
    return run(builder.finish(*build(builder, *values)), "forward", arrays)


def evaluate(build: Callable[..., Value], *arrays: Array) -> Array:
    """The only result of `evaluate_all`."""
    (result,) = evaluate_all(lambda *args: [build(*args)], *arrays)
    return result
