"""Compiles what lowering delivers and runs it in this process, on a poisoned arena."""

from collections.abc import Mapping, MutableMapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import Target, get_target
from niwaki.ir import effects, interpreter
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.passes.lower_to_plan import lower
from niwaki.passes.schedule import schedule

HOST = get_target("host")


class Compiled:
    """A lowered program, loaded."""

    def __init__(self, lowered: Lowered, target: Target = HOST) -> None:
        self.lowered = lowered
        self.session = Session(lowered, object_code(lowered, target), threads=target.threads)

    def run(self, name: str, inputs: Sequence[ArrayLike]) -> list[NDArray[np.generic]]:
        """Runs entry point `name` with every byte of the arena set to make NaN of each float."""
        self.session.arena[:] = 0xFF
        return self.session.run(name, [np.asarray(x) for x in inputs])

    def state(self) -> Mapping[str, NDArray[np.generic]]:
        """Copies of all entries of the state."""
        return {e.name: e.view(self.session.state).copy() for e in self.lowered.state}


def scheduled(program: Program, order: str = "exact") -> Program:
    """A copy in the order that `schedule` finds for the host, verified."""
    program = program.clone()
    schedule(program.module, HOST, order)
    effects.verify(program.module)
    return program


def check_against_interpreter(
    program: Program, name: str, inputs: Sequence[ArrayLike], steps: int = 2, order: str = "exact"
) -> Compiled:
    """Runs `steps` steps of function `name` both ways: outputs and state must agree."""
    compiled = Compiled(lower(scheduled(program, order), HOST))
    state: MutableMapping[str, NDArray[np.generic]] = {}
    for _ in range(steps):
        expected = interpreter.run(program, name, inputs, state)
        actual = compiled.run(name, inputs)
        for a, e in zip(actual, expected, strict=True):
            np.testing.assert_allclose(a, e, rtol=1e-4, atol=1e-5)
        for key, value in compiled.state().items():
            if key in state:
                np.testing.assert_allclose(value, state[key], rtol=1e-4, atol=1e-5)
    return compiled
