"""Makes a step fit a memory limit at the least cost in time."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from niwaki.fitting_advice import advice
from niwaki.ir.errors import DoesNotFitError, UsageError
from niwaki.memory import Savings, too_large
from niwaki.passes.pipelines import Techniques
from niwaki.passes.planner import Planner, StepPlan

AIMS = 20
"""Parts of the arena that techniques aim at: the same for every limit."""
MOST_CALLS = 600
"""Of a step in micro-batches that is made smaller still: beyond, planning takes minutes."""
MOST_SPLIT_CALLS = 20_000
"""Of a step in micro-batches, which follow each other in one list of calls."""

_Aiming: TypeAlias = Callable[[Techniques, int], Techniques]


def fit(planner: Planner, limit: int) -> tuple[StepPlan, Savings | None]:
    """The plan of least estimated time within `limit` bytes of arena and state; what that saves.

    The choice is among plans that do not depend on the limit, so that more memory never makes a
    step slower, and the smallest plan that an error names can be had: the whole step, the same with
    kernels of little scratch, then micro-batches of each divisor of the batch, and each of these
    aiming at parts of its arena, by recomputation or by strips of rows and recomputation. Lossy
    techniques are never chosen.

    Raises DoesNotFitError, about the smallest plan found and what would help, if none fits, and
    what `Planner.plan` raises.
    """
    whole = planner.plan(planner.techniques)
    if whole.bytes <= limit:
        return whole, None
    sparing = planner.sparing
    plain = sparing.plan(planner.techniques)
    best, smallest, refusal = _search(sparing, plain, limit)
    if best is not None:
        return best, _savings(whole, best, plain.bytes < whole.bytes)
    no_split = f"No micro-batches: {refusal}." if refusal else ""
    lines = [too_large(smallest.program, limit), _LEAST, no_split]
    raise DoesNotFitError("\n".join(filter(None, [*lines, *advice(sparing, limit)])))


def smallest_plan(planner: Planner) -> StepPlan:
    """The plan that `fit` names if the limit is too low."""
    sparing = planner.sparing
    return _search(sparing, sparing.plan(planner.techniques), 0)[1]


_LEAST = "That is the least that strips of rows, recomputation and micro-batches reach."


def _search(planner: Planner, plain: StepPlan, limit: int) -> tuple[StepPlan | None, StepPlan, str]:
    """The best plan that fits, the smallest of all, and why the batch was not split, or ""."""
    splits, refusal = _splits(planner, plain, limit)
    best, smallest = None, min(splits, key=lambda plan: plan.bytes)
    if splits[-1].bytes <= limit:
        best = splits.pop()
    for split in splits:
        if split is not plain and split.calls > MOST_CALLS:
            continue
        for aiming in (_recomputed, _in_strips):
            if best is not None and best.cost <= split.cost:
                break
            plan = _aiming_at(planner, split, aiming, limit)
            if plan.bytes > limit:
                smallest = min(smallest, plan, key=lambda plan: plan.bytes)
            elif best is None or plan.cost < best.cost:
                best = plan
    return best, smallest, refusal


def _splits(planner: Planner, plain: StepPlan, limit: int) -> tuple[list[StepPlan], str]:
    """`plain` and its micro-batches up to the first that fit; why there are no more, or ""."""
    splits = [plain]
    batch = _batch(plain)
    for count in range(2, batch + 1):
        if batch % count or splits[-1].bytes <= limit or count * plain.calls > MOST_SPLIT_CALLS:
            continue
        try:
            splits.append(planner.plan(replace(planner.techniques, micro_batches=count)))
        except UsageError as error:
            return splits, str(error)
    return splits, ""


def _recomputed(techniques: Techniques, aim: int) -> Techniques:
    return replace(techniques, recompute_bytes=aim)


def _in_strips(techniques: Techniques, aim: int) -> Techniques:
    return replace(techniques, row_bytes=aim, recompute_bytes=aim)


def _aiming_at(planner: Planner, split: StepPlan, aiming: _Aiming, limit: int) -> StepPlan:
    """A plan that fits, aiming as high as the limit lets it; else the one that aims at 0 bytes."""
    whole = split.program.arena_bytes
    allowed = limit - split.program.state_bytes
    aims = [whole * part // AIMS for part in reversed(range(AIMS))]
    for aim in [aim for aim in aims if aim <= allowed]:
        plan = planner.plan(aiming(split.techniques, aim))
        if plan.bytes <= limit:
            return plan
        least = planner.plan(aiming(split.techniques, 0))
        if least.bytes > limit:
            return least
    return planner.plan(aiming(split.techniques, 0))


def _savings(whole: StepPlan, plan: StepPlan, spares: bool) -> Savings:
    names = (*(["less scratch"] if spares else []), *applied(plan.techniques))
    extra_time = 100.0 * (plan.cost / whole.cost - 1.0)
    return Savings(names, whole.bytes - plan.bytes, extra_time)


def applied(techniques: Techniques) -> tuple[str, ...]:
    """The names of those that are chosen to keep a limit."""
    names: list[str] = []
    if techniques.micro_batches > 1:
        names.append(f"{techniques.micro_batches} micro-batches")
    if techniques.row_bytes is not None:
        names.append("strips of rows")
    if techniques.recompute_bytes is not None:
        names.append("recomputation")
    return tuple(names)


def _batch(plan: StepPlan) -> int:
    inputs = plan.program.entries["train_step"].inputs
    sizes = {port.shape[0] for port in inputs if port.shape}
    return sizes.pop() if len(sizes) == 1 else 1
