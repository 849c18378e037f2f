"""Compares the compiled step with the reference interpreter: as JIT, and as C of this machine."""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from xdsl.ir import Operation

from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import build_linux, missing_tools, run_program
from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import Target, get_target, portable_c
from niwaki.ir import interpreter
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import type_of
from niwaki.ir.errors import MismatchError, UsageError
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.weights import Array
from niwaki.passes.autodiff import AutodiffPass
from niwaki.passes.instrument import PassRunner
from niwaki.passes.integer_backward import IntegerBackwardPass
from niwaki.passes.narrow_stash import NarrowStashPass
from niwaki.passes.pipelines import compile_program, training_pipeline
from niwaki.tools.model_flags import add_model_flags, load_model, options_of, techniques_of
from niwaki.tools.random_batch import random_batch
from niwaki.tools.result import Result

C_TIMEOUT = 300.0
POISON = 0xFF
"""Fills the arena before each step: as floats not a number, as integers -1."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and how long and how strictly to compare."""
    add_model_flags(parser, target=False)
    parser.add_argument("--steps", type=int, default=3, help="training steps (%(default)s)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=1e-4,
        help="largest error allowed, relative to the largest element of an array (%(default)s)",
    )


def run(args: argparse.Namespace) -> Result:
    """Trains interpreter, JIT and (where there is a compiler) C on one random batch.

    Raises MismatchError with everything that differs.
    """
    if args.steps < 1:
        raise UsageError(f"--steps must be >= 1, got {args.steps}")
    program, target = load_model(args), get_target("host")
    lowered = _lowered(program, args, target)
    batch = random_batch(lowered, args.loss, args.seed)
    losses, reference = _train_reference(program, args, batch)

    errors = _jit_errors(lowered, target, args, batch, losses, reference)
    wrong = {name: error for name, error in errors.items() if not error <= args.tolerance}
    if wrong:
        lines = "\n".join(f"  {name}: {error:.3g}" for name, error in wrong.items())
        raise MismatchError(
            f"the JIT and the interpreter differ by more than {args.tolerance:g} in "
            f"{len(wrong)} of {len(errors)} values:\n{lines}"
        )
    largest = max(errors.values())
    missing = missing_tools(target)
    if missing:
        c = f"not checked, {', '.join(missing)} is not installed"
    else:
        _check_c(_lowered(program, args, portable_c(target)), target, args, batch, losses)
        c = "agrees"
    text = f"JIT: agrees in {len(errors)} values, largest error {largest:.3g}\nC: {c}"
    return Result(text, {"values": len(errors), "largest_error": largest, "c": c})


def _lowered(program: Program, args: argparse.Namespace, target: Target) -> Lowered:
    how = (options_of(args), target, args.batch, args.batch_norm)
    return compile_program(program, *how, techniques=techniques_of(args))


def _train_reference(
    program: Program, args: argparse.Namespace, batch: Sequence[Array]
) -> tuple[list[float], dict[str, Array]]:
    """Losses and final state of the interpreter, on the IR as autodiff leaves it.

    Codes are updated in whole numbers, exactly as later passes write that out: of a program of
    codes the IR behind those is run.
    """
    program = program.clone()
    passes = training_pipeline(
        options_of(args), get_target("host"), args.batch, args.batch_norm, techniques_of(args)
    )
    last = AutodiffPass if args.stash is None else NarrowStashPass
    if any(_is_of_codes(op) for op in program.module.walk()):
        last = IntegerBackwardPass
    end = [p.name for p in passes].index(last.name) + 1
    PassRunner().run(NiwakiContext(program.weights), program.module, passes[:end])
    state: dict[str, interpreter.Array] = {}
    losses: list[float] = []
    for _ in range(args.steps):
        (loss,) = interpreter.run(program, "train_step", [*batch, np.float32(args.lr)], state)
        losses.append(float(loss))
    return losses, state


def _is_of_codes(op: Operation) -> bool:
    return any(isinstance(type_of(r).element_type, QuantizedType) for r in op.results)


def _jit_errors(
    lowered: Lowered,
    target: Target,
    args: argparse.Namespace,
    batch: Sequence[Array],
    losses: Sequence[float],
    reference: dict[str, Array],
) -> dict[str, float]:
    """Relative errors of every loss and of every array of the state."""
    session = Session(lowered, object_code(lowered, target))
    lr = np.array(args.lr, np.float32)
    errors: dict[str, float] = {}
    for number, expected in enumerate(losses, start=1):
        session.arena[:] = POISON
        (loss,) = session.run("train_step", [*batch, lr])
        errors[f"loss of step {number}"] = _error(loss, np.array(expected))
    for entry in lowered.state:
        errors[entry.name] = _error(entry.view(session.state), reference[entry.name])
    return errors


def _error(value: Array, expected: Array) -> float:
    """Largest difference, relative to the largest element; infinite where only one is finite."""
    exact = np.asarray(expected, np.float64)
    if not np.isfinite(exact).all():
        raise UsageError("the reference is not finite: choose a smaller --lr")
    if value.size == 0:
        return 0.0
    difference = np.abs(np.asarray(value, np.float64) - exact).max()
    return float(np.nan_to_num(difference, nan=np.inf)) / max(float(np.abs(exact).max()), 1e-6)


def _check_c(
    lowered: Lowered,
    target: Target,
    args: argparse.Namespace,
    batch: Sequence[Array],
    losses: Sequence[float],
) -> None:
    """Builds and runs the example of the C package, which compares the losses itself."""
    vectors = TestVectors(batch, losses, args.tolerance)
    with tempfile.TemporaryDirectory() as folder:
        package = write_c(lowered, Path(folder) / "c", learning_rate=args.lr, vectors=vectors)
        sources = [package / name for name in ("model.c", "model_data.c", "main.c")]
        done = run_program(build_linux(sources, package / "model", target), C_TIMEOUT)
    if done.code != 0:
        raise MismatchError(
            f"the C and the interpreter differ; losses {done.floats.get('loss')}, "
            f"expected {list(losses)}"
        )
