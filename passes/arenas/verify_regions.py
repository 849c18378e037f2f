"""Checks that a plan keeps to the memories of a board, sharing no code with what placed it."""

from collections.abc import Sequence

from niwaki.backends.kernels.spec import buffer_bytes
from niwaki.backends.targets import MemoryRegion
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.plan import RegionRange
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.passes.arenas.problem import PlanError


def verify_regions(
    program: plan.ProgramOp, regions: Sequence[MemoryRegion], state_bytes: int
) -> None:
    """PlanError unless arena and state lie in writable `regions`, within the capacity of each.

    Every view must lie in one region. That no two live views overlap there is for `verify_plan`:
    ranges of one space never overlap. Without `regions` the program must not name any.
    """
    arena = get_int(program.properties, "arena")
    ranges = {"arena": program.ranges("arena"), "state": program.ranges("state")}
    for space, size in (("arena", arena), ("state", state_bytes)):
        covered = ranges[space][-1].end if ranges[space] else 0
        if bool(regions) and covered != size:
            raise PlanError(f"the regions hold {covered} of the {size} bytes of the {space}")
    _check_capacities([*ranges["arena"], *ranges["state"]], regions)
    for op in program.body.block.ops:
        if isinstance(op, plan.ViewOp) and ranges.get(op.space.data):
            _check_view(op, ranges[op.space.data])


def _check_capacities(ranges: Sequence[RegionRange], regions: Sequence[MemoryRegion]) -> None:
    known = {region.name: region for region in regions}
    used: dict[str, int] = {}
    for part in ranges:
        if part.region not in known:
            raise PlanError(f"the board has no region '{part.region}'")
        if known[part.region].read_only:
            raise PlanError(f"the region '{part.region}' is read-only")
        used[part.region] = used.get(part.region, 0) + part.size
    for name, size in used.items():
        if size > known[name].capacity:
            raise PlanError(f"{size} bytes in '{name}', which has {known[name].capacity}")


def _check_view(op: plan.ViewOp, ranges: Sequence[RegionRange]) -> None:
    start = get_int(op.properties, "offset")
    end = start + buffer_bytes(op.view.type)
    if not any(part.start <= start and end <= part.end for part in ranges):
        raise PlanError(f"[{start}, {end}) of the {op.space.data} lies in more than one region")
