"""Random small programs from plain specifications, which shrink well and print small."""

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.program import Program

Step: TypeAlias = tuple[int, int, int]
"""Operation, first operand, second operand; each modulo what there is."""

SPECS = st.lists(st.tuples(*[st.integers(0, 60)] * 3), min_size=1, max_size=24)

_SHAPE = (2, 3, 4)

_Rule: TypeAlias = Callable[[ProgramBuilder, Value, Value], Value]


def _times_w(b: ProgramBuilder, x: Value, w: Value) -> Value:
    rows = b.reshape(x, [6, 4])
    square = b.matmul(b.reshape(w, [6, 4]), rows, transpose_a=True)
    return b.reshape(b.matmul(rows, square), _SHAPE)


_RULES: tuple[_Rule, ...] = (
    lambda b, x, y: b.add(x, y),
    lambda b, x, y: b.sub(x, y),
    lambda b, x, y: b.mul(x, y),
    lambda b, x, y: b.max(x, y),
    lambda b, x, y: b.select(b.compare(x, y, "gt"), x, b.constant(0.5)),
    lambda b, x, y: b.relu(x),
    lambda b, x, y: b.relu6(x),
    lambda b, x, y: b.neg(x),
    lambda b, x, y: b.tanh(x),
    lambda b, x, y: b.mul(b.constant(0.5), x),
    lambda b, x, y: b.mul(x, b.constant(1.0)),
    lambda b, x, y: b.add(x, b.constant(0.0, _SHAPE)),
    lambda b, x, y: b.min(x, b.constant(0.75, [4])),
    lambda b, x, y: b.sub(x, b.reduce_mean(y, [1])),
    lambda b, x, y: b.mul(x, b.reduce_sum(y, [0, 2])),
    lambda b, x, y: b.add(x, b.broadcast(b.reduce_max(y, [2]), _SHAPE)),
    lambda b, x, y: b.reshape(b.reshape(x, [4, 6]), _SHAPE),
    lambda b, x, y: b.transpose(b.reshape(x, [3, 2, 4]), [1, 0, 2]),
    lambda b, x, y: b.concat(
        [b.slice(x, [0, 0, 0], [1, 3, 4]), b.slice(y, [1, 0, 0], [1, 3, 4])], 0
    ),
    lambda b, x, y: b.slice(
        b.pad(b.pad(x, [1, 0, 0], [0, 0, 1]), [0, 1, 0], [0, 0, 0]), [1, 1, 0], _SHAPE
    ),
    lambda b, x, y: b.slice(b.slice(b.concat([x, y], 1), [0, 1, 0], [2, 4, 4]), [0, 1, 0], _SHAPE),
    _times_w,
)


def build(steps: list[Step]) -> Program:
    """x, y and two parameters go in; the last two values and a reduction of each come out."""
    b = ProgramBuilder()
    random = np.random.default_rng(len(steps))
    values: list[Value] = [b.input(_SHAPE), b.input(_SHAPE)]
    for name in ("w", "v"):
        values.append(b.weight(name, random.standard_normal(_SHAPE).astype(np.float32)))
    for kind, first, second in steps:
        rule = _RULES[kind % len(_RULES)]
        values.append(rule(b, values[-1 - first % len(values)], values[-1 - second % len(values)]))
    return b.finish(values[-1], values[-2], b.reduce_sum(b.tanh(values[-1]), [0, 1]))


def inputs() -> list[NDArray[np.float32]]:
    """Arguments for a built program."""
    random = np.random.default_rng(7)
    return [random.standard_normal(_SHAPE).astype(np.float32) for _ in range(2)]
