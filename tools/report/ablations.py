"""Compiles a model without one technique, to say what the technique saves."""

from dataclasses import replace

from niwaki.backends.targets import Target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.errors import NiwakiError
from niwaki.ir.lowered import Lowered
from niwaki.ir.program import Program
from niwaki.ir.training import Scheme, TrainingOptions
from niwaki.passes.instrument import PassRunner
from niwaki.passes.lower_to_plan import lower
from niwaki.passes.pipelines import Techniques, compile_program, training_pipeline
from niwaki.tools.report.savings import Ablation

_PASSES = (
    ("schedule", "order of least peak", "the operations in the order of the model and of autodiff"),
    ("fuse", "fusion", "one kernel for each operation"),
)
"""(pass to leave out, technique, what remains)."""


def ablations(
    program: Program,
    options: TrainingOptions,
    target: Target,
    batch: int | None,
    batch_norm: str,
    techniques: Techniques | None = None,
) -> list[Ablation]:
    """`program` without each technique that a pass or an option stands for.

    The arguments are those of `niwaki.passes.pipelines.compile_program`.
    """
    found: list[Ablation] = []
    techniques = Techniques() if techniques is None else techniques
    full = _full_update(program, options, target, batch, batch_norm, techniques)
    if full is not None:
        found.append(Ablation("sparse update", "compiled again with update full", full))
    if techniques.stash is not None:
        how = "compiled again with activations kept as they are"
        exact = replace(techniques, stash=None)
        lowered = compile_program(program, options, target, batch, batch_norm, techniques=exact)
        found.append(Ablation(f"activations in {techniques.stash}", how, lowered))
    for name, technique, remains in _PASSES:
        changed = program.clone()
        passes = training_pipeline(options, target, batch, batch_norm, techniques)
        remaining = [p for p in passes if p.name != name]
        PassRunner().run(NiwakiContext(changed.weights), changed.module, remaining)
        how = f"compiled again without the pass {name}: {remains}"
        found.append(Ablation(technique, how, lower(changed, target)))
    return found


def _full_update(
    program: Program,
    options: TrainingOptions,
    target: Target,
    batch: int | None,
    batch_norm: str,
    techniques: Techniques,
) -> Lowered | None:
    """None if the update is full already, or the model cannot be trained fully."""
    if options.scheme == Scheme.full():
        return None
    options = replace(options, scheme=Scheme.full())
    try:
        return compile_program(program, options, target, batch, batch_norm, techniques=techniques)
    except NiwakiError:
        return None
