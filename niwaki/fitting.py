"""Makes a step fit a memory limit at the least cost in time."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeAlias

from niwaki.ir.errors import UsageError
from niwaki.ir.lowered import Lowered
from niwaki.memory import Savings, bytes_needed, check_limit
from niwaki.passes.pipelines import Techniques

ATTEMPTS = 3
"""Times that a technique is tried, aiming lower where the plan came out above its aim."""


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
        for make in (_rows, _recomputed, _both):
            found = list(_aiming(split, limit, partial(make, count), lower))
            plans += found
            if make is not _rows and any(bytes_needed(plan) <= limit for plan, _ in found):
                break
    fitting = [plan for plan in plans if bytes_needed(plan[0]) <= limit]
    if not fitting:
        smallest, _ = min(plans, key=lambda plan: bytes_needed(plan[0]))
        check_limit(smallest, limit, tried=True, refusal=refusal)
    lowered, techniques = min(fitting, key=lambda plan: _flops(plan[0]))
    return lowered, techniques, _savings(plain, lowered, techniques)


def _rows(count: int, aim: int) -> Techniques:
    return Techniques(count, row_bytes=aim)


def _recomputed(count: int, aim: int) -> Techniques:
    return Techniques(count, recompute_bytes=aim)


def _both(count: int, aim: int) -> Techniques:
    return Techniques(count, aim, aim)


def _aiming(
    split: Lowered, limit: int, make: Callable[[int], Techniques], lower: Lower
) -> Iterator[_Plan]:
    """Plans that aim at the limit, lower where one came out above it; the last one may fit."""
    allowed = limit - len(split.state_image)
    others = [e.arena_bytes for name, e in split.entries.items() if name != "train_step"]
    only_training = make(0).row_bytes is None
    if allowed <= 0 or (only_training and max(others, default=0) > allowed):
        return
    aim, smallest = allowed, split.arena_bytes
    for _ in range(ATTEMPTS):
        techniques = make(aim)
        plan = lower(techniques)
        yield plan, techniques
        if plan.arena_bytes <= allowed or plan.arena_bytes >= smallest:
            return
        smallest = plan.arena_bytes
        aim = max(aim - (plan.arena_bytes - allowed), 0)


def _savings(plain: Lowered, lowered: Lowered, techniques: Techniques) -> Savings:
    applied: list[str] = []
    if techniques.micro_batches > 1:
        applied.append(f"{techniques.micro_batches} micro-batches")
    if techniques.row_bytes is not None:
        applied.append("strips of rows")
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
