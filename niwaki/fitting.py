"""Makes a step fit a memory limit at the least cost in time."""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered
from niwaki.memory import Savings, bytes_needed, check_limit
from niwaki.passes.pipelines import Techniques

ATTEMPTS = 3
"""Times that recomputation is tried, aiming lower where the plan came out above its aim."""


Lower: TypeAlias = Callable[[Techniques], Lowered]
"""Compiles the step with some techniques."""
_Plan: TypeAlias = tuple[Lowered, Techniques]


def fit(plain: Lowered, limit: int, lower: Lower) -> tuple[Lowered, Techniques, Savings | None]:
    """The plan with the fewest operations within `limit` bytes, how it is made, what that saves.

    `plain` is the plan without any technique, which is taken if it fits.

    Raises DoesNotFitError, about the smallest plan found, if none fits.
    """
    if bytes_needed(plain) <= limit:
        return plain, Techniques(), None
    plans: list[_Plan] = [(plain, Techniques())]
    refusal = ""
    for count in _divisors(_batch(plain)):
        try:
            split = plain if count == 1 else lower(Techniques(count))
        except UsageError as error:
            refusal = str(error)
            break
        plans.append((split, Techniques(count)))
        if bytes_needed(split) <= limit:
            break
        plans += _recomputing(split, count, limit, lower)
    fitting = [plan for plan in plans if bytes_needed(plan[0]) <= limit]
    if not fitting:
        smallest, _ = min(plans, key=lambda plan: bytes_needed(plan[0]))
        check_limit(smallest, limit, tried=True, refusal=refusal)
    lowered, techniques = min(fitting, key=lambda plan: _flops(plan[0]))
    return lowered, techniques, _savings(plain, lowered, techniques)


def _recomputing(split: Lowered, count: int, limit: int, lower: Lower) -> Iterator[_Plan]:
    """Plans that recompute; the last one fits if one does."""
    allowed = limit - len(split.state_image)
    others = [e.arena_bytes for name, e in split.entries.items() if name != "train_step"]
    if max(others, default=0) > allowed:
        return
    aim = allowed
    for _ in range(ATTEMPTS):
        techniques = Techniques(count, aim)
        plan = lower(techniques)
        yield plan, techniques
        if plan.arena_bytes <= allowed:
            return
        aim -= plan.arena_bytes - allowed


def _savings(plain: Lowered, lowered: Lowered, techniques: Techniques) -> Savings:
    applied: list[str] = []
    if techniques.micro_batches > 1:
        applied.append(f"{techniques.micro_batches} micro-batches")
    if techniques.recompute_bytes is not None:
        applied.append("recomputation")
    return Savings(
        tuple(applied),
        bytes_needed(plain) - bytes_needed(lowered),
        100.0 * (_flops(lowered) / max(_flops(plain), 1) - 1.0),
    )


def _flops(lowered: Lowered) -> int:
    return sum(call.flops for call in lowered.entries["train_step"].calls)


def _batch(lowered: Lowered) -> int:
    sizes = {port.shape[0] for port in lowered.entries["train_step"].inputs if port.shape}
    return sizes.pop() if len(sizes) == 1 else 1


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]
