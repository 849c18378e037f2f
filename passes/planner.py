"""Plans of one training step with different techniques, each from where it differs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass

from niwaki.backends.targets import Target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import train
from niwaki.ir.program import Program
from niwaki.ir.training import TrainingOptions
from niwaki.passes.autodiff import AutodiffPass
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.dce import DcePass
from niwaki.passes.functions import functions
from niwaki.passes.fuse import FusePass
from niwaki.passes.instrument import PassObserver, PassRunner
from niwaki.passes.lower_to_plan import ProgramPlan
from niwaki.passes.pipelines import Techniques, training_pipeline
from niwaki.passes.recompute import RecomputePass
from niwaki.passes.tile_rows import TileRowsPass

_KEPT_AFTER = (BuildTrainingPass.name, AutodiffPass.name, DcePass.name, FusePass.name)
"""Passes behind which techniques set in."""
_TECHNIQUE_OF = {TileRowsPass.name: "row_bytes", RecomputePass.name: "recompute_bytes"}
"""Passes that add operations, and the field of Techniques that asks for each."""


@dataclass(frozen=True)
class StepPlan:
    """A plan of a training step, and what it takes."""

    techniques: Techniques
    """Those that changed something."""
    program: ProgramPlan

    @property
    def bytes(self) -> int:
        """RAM: arena and state."""
        return self.program.arena_bytes + self.program.state_bytes

    @property
    def live_bytes(self) -> int:
        """Most bytes of the arena in use at once, over all entry points."""
        return max(entry.bound_bytes for entry in self.program.entries.values())

    @property
    def cost(self) -> int:
        """Estimated time of a step, to compare plans with."""
        return sum(call.cost for call in self.program.entries["train_step"].calls)

    @property
    def calls(self) -> int:
        """Kernel calls of a step."""
        return len(self.program.entries["train_step"].calls)


@dataclass(frozen=True)
class _Start:
    """What the first passes make of the program."""

    passes: tuple[ModulePass, ...]
    program: Program
    idle: tuple[str, ...]
    """The passes among them that stand for techniques and changed nothing."""


class Planner:
    """Makes plans of a program; passes that several of them begin with run once.

    A plan says how much memory and time a step takes; no kernel is built before its `lower`.
    """

    def __init__(
        self,
        program: Program,
        options: TrainingOptions,
        target: Target,
        batch: int | None = None,
        batch_norm: str = "as_is",
        instrument: PassRunner | None = None,
        techniques: Techniques | None = None,
    ) -> None:
        """`instrument` watches the first plan; `techniques`: those that every plan shall have.

        The other arguments are those of `niwaki.passes.pipelines.compile_program`.
        """
        self.program = program
        self.options = options
        self.target = target
        self.batch = batch
        self.batch_norm = batch_norm
        self.techniques = Techniques() if techniques is None else techniques
        self._instrument = PassRunner() if instrument is None else instrument
        self._starts = [_Start((), program, ())]
        self._plans: dict[Techniques, StepPlan] = {}

    def plan(self, techniques: Techniques) -> StepPlan:
        """The plan with `techniques`; raises what `compile_program` raises."""
        if techniques not in self._plans:
            self._plans[techniques] = self._smaller(techniques)
        return self._plans[techniques]

    def _smaller(self, techniques: Techniques) -> StepPlan:
        """With weights in parts or whole.

        Parts make the state smaller; joining them may make the arena larger.
        """
        plan = self._plan(techniques)
        if not self.target.has_flash or not _has_parts(plan.program.program.module):
            return plan
        whole = self._plan(replace(techniques, split_parameters=False))
        return min(whole, plan, key=lambda plan: plan.bytes)

    def other(
        self,
        options: TrainingOptions | None = None,
        target: Target | None = None,
        batch: int | None = None,
    ) -> "Planner":
        """Plans of the same program where what is given is another."""
        return Planner(
            self.program,
            self.options if options is None else options,
            self.target if target is None else target,
            self.batch if batch is None else batch,
            self.batch_norm,
            techniques=self.techniques,
        )

    @cached_property
    def sparing(self) -> "Planner":
        """Plans of the same program with kernels that take little scratch."""
        if not self.target.spends_scratch:
            return self
        return self.other(target=replace(self.target, spends_scratch=False))

    def _plan(self, techniques: Techniques) -> StepPlan:
        passes = training_pipeline(
            self.options, self.target, self.batch, self.batch_norm, techniques
        )
        starts = [s for s in self._starts if s.passes == passes[: len(s.passes)]]
        start = max(starts, key=lambda s: len(s.passes))
        program, remaining = start.program.clone(), passes[len(start.passes) :]
        # Most programs have one plan: copies pay from the second on.
        kept_after = _KEPT_AFTER if self._plans or self.target.has_flash else ()
        keeper = _Keeper(program, start, remaining, kept_after)
        runner = PassRunner([*self._instrument.observers, keeper], self._instrument.reproducer)
        runner.run(NiwakiContext(program.weights), program.module, remaining)
        self._starts += keeper.starts
        self._instrument = PassRunner()
        for name in keeper.idle:
            techniques = replace(techniques, **{_TECHNIQUE_OF[name]: None})
        return StepPlan(techniques, ProgramPlan(program, self.target))


class _Keeper(PassObserver):
    """Copies the program behind some passes, and sees which techniques change nothing."""

    def __init__(
        self,
        program: Program,
        start: _Start,
        remaining: Sequence[ModulePass],
        kept_after: Collection[str],
    ) -> None:
        self.program = program
        self.start = start
        self.remaining = tuple(remaining)
        self.kept_after = kept_after
        self.idle = list(start.idle)
        self.starts: list[_Start] = []
        self._size = 0

    def before(self, number: int, name: str, module: ModuleOp) -> None:
        self._size = _size(module)

    def after(self, number: int, name: str, module: ModuleOp) -> None:
        if name in _TECHNIQUE_OF and _size(module) == self._size:
            self.idle.append(name)
        if name in self.kept_after:
            passes = (*self.start.passes, *self.remaining[:number])
            self.starts.append(_Start(passes, self.program.clone(), tuple(self.idle)))


def _has_parts(module: ModuleOp) -> bool:
    """Whether a parameter is stored in parts."""
    return any(isinstance(op, train.ParameterOp) and op.whole is not None for op in module.walk())


def _size(module: ModuleOp) -> int:
    """Operations in the functions of `module`."""
    return sum(len(function.body.block.ops) for function in functions(module))
