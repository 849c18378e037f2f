"""From a program to a training step."""

import time
from dataclasses import replace
from functools import partial
from pathlib import Path

from niwaki.backends.llvm.host_code import host_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import Target, get_target, portable_c, with_threads
from niwaki.board_fitting import fit_board
from niwaki.collector import rare_collections
from niwaki.fitting import fit
from niwaki.frontends.load import load
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import get_ints
from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Optimizer, Scheme, TrainingOptions
from niwaki.memory import Savings
from niwaki.object_cache import default_cache
from niwaki.parameters import Layout, Layouts
from niwaki.passes.instrument import PassRunner, Timing
from niwaki.passes.pipelines import Techniques, compile_program
from niwaki.passes.planner import Planner, StepPlan
from niwaki.step import TrainingStep
from niwaki.tuning import Tuning


@rare_collections()
def compile(
    program: object,
    loss: str = "cross_entropy",
    optimizer: Optimizer | None = None,
    update: str | Scheme = "full",
    batch: int | None = None,
    target: str = "host",
    memory_limit: int | None = None,
    batch_norm: str = "as_is",
    instrument: PassRunner | None = None,
    stash: str | None = None,
    rounding: str = "stochastic",
    quantization_aware_scaling: bool = True,
    seed: int = 0,
    backward: str = "integer",
    threads: int = 1,
    tuning: Tuning | str | Path | None = None,
) -> TrainingStep:
    """Compiles forward, loss, backward and update of a program into one training step.

    `program`: a Program, or what `niwaki.load` takes. `loss`: "cross_entropy" (integer labels),
    "cross_entropy_soft" (probabilities), "mse", "bce" (logits) or "output" (the model's own).
    `optimizer`: SGD (default, lr 0.01), Adam or AdamW. `update`: a Scheme, "full", "bias", "head",
    "last_layers(N)" or the path of a .toml scheme. `batch`: samples per step (None: the model's).
    `target`: "host" runs in this process; for the others see `niwaki.backends.targets`; or the
    path of a .toml board, whose memories are a limit (see `niwaki.backends.regions`).
    `memory_limit`: most bytes of arena and state; where the plan needs more, the one of least
    estimated time that fits, with micro-batches, recomputation or strips of rows. `batch_norm`:
    "as_is", or "fold" frozen ones into the weights. `instrument`: watches the passes (without
    techniques).
    `stash`: "bf16" or "i8", to which activations kept for the backward pass are rounded: less
    memory, slightly other gradients (None: they stay exact).
    `rounding`: how updates of quantised parameters become whole codes: "stochastic", with noise
    of `seed`; "error_feedback", which keeps an i8 residual for each updated parameter; "nearest".
    `quantization_aware_scaling`: those parameters move as the real numbers that they stand for
    would ("On-Device Training Under 256KB Memory", section 3.1); without, the codes are trained.
    `backward`: gradients of quantised layers are sums of whole numbers, alike on every machine
    ("integer"), or of floats ("float").
    `threads`: how many a step runs on, on Linux; results are the same bits for every number. They
    start with the first step, sleep between steps, and end with `TrainingStep.close` or with it.
    C packages run on one thread.
    `tuning`: what `TrainingStep.tune` measured, or a file of it, which `niwaki compile --tune`
    writes: which kernels run on this machine. What other machines or versions measured is not used.

    Raises UsageError if an argument does not fit, DoesNotFitError if the memory limit is
    exceeded, UnsupportedOpsError if an operation has no kernel, and what `niwaki.load` raises.
    """
    start = time.perf_counter()
    program = program if isinstance(program, Program) else load(program)
    loaded = time.perf_counter()
    options = TrainingOptions(
        loss,
        SGD(lr=0.01) if optimizer is None else optimizer,
        update if isinstance(update, Scheme) else Scheme.parse(update),
        rounding,
        quantization_aware_scaling,
        seed,
        backward,
    )
    machine = _tuned(with_threads(get_target(target), threads), tuning)
    timing = Timing()
    watched = PassRunner() if instrument is None else instrument
    runner = PassRunner([*watched.observers, timing], watched.reproducer)

    planner = Planner(program, options, machine, batch, batch_norm, runner, Techniques(stash=stash))
    plan, savings = fitting_plan(planner, memory_limit)
    lowered = plan.program.lower()
    planned = time.perf_counter()
    session = _session(lowered, machine) if machine.jit else None
    passes = sum(seconds for _, seconds in timing.seconds)
    return TrainingStep(
        lowered=lowered,
        target=machine,
        lr=options.optimizer.lr,
        description=_describe(options),
        layouts=_layouts(program, plan.program.program, lowered),
        session=session,
        lower_portable=partial(
            compile_program,
            program,
            options,
            portable_c(machine),
            batch,
            batch_norm,
            techniques=plan.techniques,
        ),
        compile_seconds={
            "load": loaded - start,
            "passes": passes,
            "lower": planned - loaded - passes,
            "code": time.perf_counter() - planned,
        },
        savings=savings,
        choices=plan.program.choices(),
    )


def fitting_plan(planner: Planner, limit: int | None) -> tuple[StepPlan, Savings | None]:
    """The plan of least estimated time within `limit` bytes and the memories of the target.

    Raises DoesNotFitError if there is none.
    """
    if planner.target.regions:
        return fit_board(planner, limit)
    if limit is None:
        return planner.plan(planner.techniques), None
    return fit(planner, limit)


def _tuned(target: Target, tuning: Tuning | str | Path | None) -> Target:
    """`target` with the choices that were measured for it."""
    if tuning is None:
        return target
    if not target.jit:
        raise UsageError(f"tuning is of this machine, and the target is {target.name}")
    known = tuning if isinstance(tuning, Tuning) else Tuning.read(Path(tuning))
    return replace(target, choices=known.of(target))


def _session(lowered: Lowered, host: Target) -> Session:
    code = host_code(lowered, host, default_cache())
    return Session(lowered, code.program, code.kernels, host.threads)


def _layouts(program: Program, planned: Program, lowered: Lowered) -> Layouts:
    """Of the parameters of `program`, as the plan stores them: passes may change their orders."""
    found = {
        op.key: _layout(op) for op in program.module.walk() if isinstance(op, train.ParameterOp)
    }
    for op in planned.module.walk():
        if isinstance(op, train.ParameterOp) and op.key in found:
            found[op.key] = _layout(op)
    for entry in lowered.constants:
        if entry.packing is not None and entry.name in found:
            found[entry.name] = replace(found[entry.name], packing=entry.packing)
    return found


def _layout(op: train.ParameterOp) -> Layout:
    stored_as_is = op.source_permutation is None
    permutation = None if stored_as_is else tuple(get_ints(op.properties, "source_permutation"))
    return Layout(permutation, op.channel_orders)


def _describe(options: TrainingOptions) -> str:
    """One line for generated files."""
    return f"loss {options.loss}, {options.optimizer}, {options.scheme}"
