"""Plans a model without one technique, to say what the technique saves."""

from dataclasses import replace

from niwaki.ir.context import NiwakiContext
from niwaki.ir.errors import NiwakiError
from niwaki.ir.training import Scheme
from niwaki.passes.instrument import PassRunner
from niwaki.passes.lower_to_plan import ProgramPlan
from niwaki.passes.pipelines import Techniques, training_pipeline
from niwaki.passes.planner import Planner
from niwaki.tools.report.savings import Ablation

_PASSES = (
    ("schedule", "order of least peak", "the operations in the order of the model and of autodiff"),
    ("fuse", "fusion", "one kernel for each operation"),
)
"""(pass to leave out, technique, what remains)."""


def ablations(planner: Planner, techniques: Techniques) -> list[Ablation]:
    """The plan with `techniques` without each that a pass or an option stands for."""
    found = [*_full_update(planner, techniques)]
    for name, without in _without_one(techniques):
        plan = planner.plan(without).program
        found.append(Ablation(name, "planned again, everything else alike", plan.entries))
    for name, technique, remains in _PASSES:
        how = f"planned again without the pass {name}: {remains}"
        found.append(Ablation(technique, how, _without_pass(planner, techniques, name).entries))
    return found


def _full_update(planner: Planner, techniques: Techniques) -> list[Ablation]:
    """Nothing if the update is full already, or the model cannot be trained fully."""
    if planner.options.scheme == Scheme.full():
        return []
    full = planner.other(options=replace(planner.options, scheme=Scheme.full()))
    try:
        plan = full.plan(techniques).program
    except NiwakiError:
        return []
    return [Ablation("sparse update", "planned again with update full", plan.entries)]


def _without_one(techniques: Techniques) -> list[tuple[str, Techniques]]:
    """The techniques in use, each with what remains without it."""
    found: list[tuple[str, Techniques]] = []
    if techniques.micro_batches > 1:
        name = f"{techniques.micro_batches} micro-batches"
        found.append((name, replace(techniques, micro_batches=1)))
    if techniques.row_bytes is not None:
        found.append(("strips of rows", replace(techniques, row_bytes=None)))
    if techniques.recompute_bytes is not None:
        found.append(("recomputation", replace(techniques, recompute_bytes=None)))
    if techniques.stash is not None:
        found.append((f"activations in {techniques.stash}", replace(techniques, stash=None)))
    return found


def _without_pass(planner: Planner, techniques: Techniques, name: str) -> ProgramPlan:
    program = planner.program.clone()
    passes = training_pipeline(
        planner.options, planner.target, planner.batch, planner.batch_norm, techniques
    )
    remaining = [p for p in passes if p.name != name]
    PassRunner().run(NiwakiContext(program.weights), program.module, remaining)
    return ProgramPlan(program, planner.target)
