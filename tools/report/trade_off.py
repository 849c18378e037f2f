"""Time against memory: the plans that are chosen for budgets from plenty to the least."""

from dataclasses import dataclass

from niwaki.fitting import applied, fit, smallest_plan
from niwaki.passes.planner import Planner


@dataclass(frozen=True)
class Point:
    """A plan, as one choice among others."""

    bytes: int
    """Of arena and state: the least budget that this plan keeps."""
    time: float
    """Estimated, of a step, over that of the step without any technique."""
    techniques: tuple[str, ...]


def trade_off(planner: Planner, budgets: int) -> tuple[Point, ...]:
    """The plans for `budgets` budgets, from the smallest to the one without any technique.

    Each budget is the same part of the next larger one. A plan that is neither smaller nor faster
    than another one is left out.
    """
    plain, smallest = planner.plan(planner.techniques), smallest_plan(planner)
    whole = plain.bytes / smallest.bytes
    sizes = [int(smallest.bytes * whole ** (n / budgets)) for n in range(1, budgets)]
    found = [fit(planner, size)[0] for size in sizes]
    points: list[Point] = []
    for plan in sorted((smallest, *found, plain), key=lambda plan: (plan.bytes, plan.cost)):
        time = plan.cost / plain.cost
        if not points or time < points[-1].time:
            points.append(Point(plan.bytes, time, applied(plan.techniques)))
    return tuple(points)
