"""Makes a step fit a memory limit at the least cost in time."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from niwaki.fitting_advice import advice
from niwaki.ir.errors import DoesNotFitError, UsageError
from niwaki.memory import Savings, too_large
from niwaki.passes.pipelines import Techniques
from niwaki.passes.planner import Planner, StepPlan

AIMS = 40
"""Parts of the arena that techniques aim at: the same for every limit."""
MOST_CALLS = 600
"""Of a step in micro-batches that is made smaller still: beyond, planning takes minutes."""
MOST_SPLIT_CALLS = 20_000
"""Of a step in micro-batches, which follow each other in one list of calls."""

_Aiming: TypeAlias = Callable[[Techniques, int], Techniques]


def fit(planner: Planner, limit: int) -> tuple[StepPlan, Savings | None]:
    """The plan of least estimated time within `limit` bytes of arena and state; what that saves.

    The choice is among plans that do not depend on the limit, so that more memory never makes a
    step slower, and the smallest plan that an error names can be had: the whole step, micro-batches
    of each divisor of the batch, and each of these aiming at parts of its arena, by recomputation
    or by strips of rows and recomputation. Lossy techniques are never chosen.

    Raises DoesNotFitError, about the smallest plan found and what would help, if none fits, and
    what `Planner.plan` raises.
    """
    plain = planner.plan(planner.techniques)
    if plain.bytes <= limit:
        return plain, None
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
            for plan in _aiming(planner, split, aiming, limit):
                smallest = min(smallest, plan, key=lambda plan: plan.bytes)
                if plan.bytes <= limit and (best is None or plan.cost < best.cost):
                    best = plan
                if plan.bytes <= limit or (best is not None and best.cost <= plan.cost):
                    break
    if best is None:
        no_split = f"No micro-batches: {refusal}." if refusal else ""
        lines = [too_large(smallest.program, limit), _LEAST, no_split]
        raise DoesNotFitError("\n".join(filter(None, [*lines, *advice(planner, limit)])))
    return best, _savings(plain, best)


_LEAST = "That is the least that strips of rows, recomputation and micro-batches reach."


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


def _aiming(planner: Planner, split: StepPlan, make: _Aiming, limit: int) -> Iterator[StepPlan]:
    """Plans that aim at no more than the limit, from most to fewest bytes.

    The last one is the first that keeps more bytes than it aims at: it has as few as possible.
    """
    whole = split.program.arena_bytes
    allowed = limit - split.program.state_bytes
    aims = [whole * part // AIMS for part in reversed(range(AIMS))]
    for aim in [aim for aim in aims if aim <= allowed] or [0]:
        plan = planner.plan(make(split.techniques, aim))
        yield plan
        if plan.live_bytes > aim:
            return


def _savings(plain: StepPlan, plan: StepPlan) -> Savings:
    extra_time = 100.0 * (plan.cost / plain.cost - 1.0)
    return Savings(applied(plan.techniques), plain.bytes - plan.bytes, extra_time)


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
