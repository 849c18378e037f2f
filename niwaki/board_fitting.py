"""Makes a step fit the memories of a board."""

from dataclasses import replace

from niwaki.fitting import fit
from niwaki.ir.errors import DoesNotFitError
from niwaki.memory import Savings, check_limit
from niwaki.passes.planner import Planner, StepPlan

AIMS = (1.0, 0.95, 0.85)
"""Parts of the limit to aim at: what fits all memories together may not fit each of them."""

_TRIED = "Strips of rows, recomputation and micro-batches do not make it fit."


def fit_board(planner: Planner, limit: int | None) -> tuple[StepPlan, Savings | None]:
    """As `niwaki.fitting.fit`, where also every memory of the planner's board is a limit.

    Raises DoesNotFitError if nothing fits.
    """
    capacity = sum(region.capacity for region in planner.target.writable)
    limit = capacity if limit is None else min(limit, capacity)
    try:
        plain = planner.plan(planner.techniques)
        check_limit(plain.program, limit)
        return plain, None
    except DoesNotFitError as error:
        failure = error
    unlimited = planner.other(target=replace(planner.target, regions=()))
    for aim in AIMS:
        try:
            whole, savings = fit(unlimited, int(aim * limit))
        except DoesNotFitError:
            break
        try:
            plan = planner.plan(whole.techniques)
        except DoesNotFitError:
            continue
        if plan.bytes <= limit:
            return plan, savings
    raise DoesNotFitError(f"{failure}\n{_TRIED}")
