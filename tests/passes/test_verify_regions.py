"""The verifier of regions sees every way in which a plan can leave them."""

import pytest
from xdsl.dialects.builtin import IntegerAttr, MemRefType, StringAttr, f32, i64
from xdsl.ir import Attribute, Block, Region
from xdsl.utils.exceptions import VerifyException

from niwaki.backends.regions import MemoryRegion
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.plan import RegionRange, regions_attribute
from niwaki.passes.arenas.problem import PlanError
from niwaki.passes.arenas.verify_regions import verify_regions

DTCM, SRAM = MemoryRegion("dtcm", 64, reserved=16), MemoryRegion("sram", 128, 2.0)
FLASH = MemoryRegion("flash", 1024, 4.0, read_only=True)
ARENA = (RegionRange("dtcm", 0, 32), RegionRange("sram", 32, 96))
STATE = (RegionRange("dtcm", 0, 16), RegionRange("sram", 16, 80))


def program(
    arena: tuple[RegionRange, ...] = ARENA,
    state: tuple[RegionRange, ...] = STATE,
    views: tuple[tuple[str, int, int], ...] = (
        ("arena", 16, 4),
        ("arena", 32, 16),
        ("state", 0, 4),
    ),
) -> plan.ProgramOp:
    """Views (space, offset, elements)."""
    block = Block()
    for space, offset, elements in views:
        properties = {"space": StringAttr(space), "offset": IntegerAttr(offset, i64)}
        kind = MemRefType(f32, [elements])
        block.add_op(plan.ViewOp.create(properties=properties, result_types=[kind]))
    facts: dict[str, Attribute] = {
        "sym_name": StringAttr("step"),
        "arena": IntegerAttr(96, i64),
        "bound": IntegerAttr(96, i64),
    }
    if arena:
        facts["arena_regions"] = regions_attribute(arena)
    if state:
        facts["state_regions"] = regions_attribute(state)
    return plan.ProgramOp.create(properties=facts, regions=[Region(block)])


def test_a_good_plan_and_one_memory() -> None:
    verify_regions(program(), (SRAM, DTCM, FLASH), 80)
    verify_regions(program(arena=(), state=()), (), 80)


@pytest.mark.parametrize(
    ("changed", "regions", "message"),
    [
        (program(views=(("arena", 28, 2),)), (SRAM, DTCM), r"\[28, 36\) of the arena lies in more"),
        (program(views=(("state", 0, 8),)), (SRAM, DTCM), r"\[0, 32\) of the state lies in more"),
        (program(views=(("arena", 96, 1),)), (SRAM, DTCM), "more than one region"),
        (program(), (SRAM,), "the board has no region 'dtcm'"),
        (program(), (), "the board has no region 'dtcm'"),
        (program(), (SRAM, MemoryRegion("dtcm", 64, read_only=True)), "'dtcm' is read-only"),
        (program(), (SRAM, MemoryRegion("dtcm", 47)), "48 bytes in 'dtcm', which has 47"),
        (program(state=STATE[:1]), (SRAM, DTCM), "hold 16 of the 80 bytes of the state"),
        (program(arena=()), (SRAM, DTCM), "hold 0 of the 96 bytes of the arena"),
    ],
)
def test_faults(changed: plan.ProgramOp, regions: tuple[MemoryRegion, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        verify_regions(changed, regions, 80)


@pytest.mark.parametrize(
    ("arena", "message"),
    [
        ((RegionRange("a", 0, 40), RegionRange("b", 32, 96)), "'b' of the arena must start at 40"),
        ((RegionRange("a", 0, 40), RegionRange("b", 44, 96)), "'b' of the arena must start at 40"),
        ((RegionRange("a", 0, 40),), "must cover it"),
    ],
)
def test_ranges_that_overlap_or_leave_gaps(arena: tuple[RegionRange, ...], message: str) -> None:
    with pytest.raises(VerifyException, match=message):
        program(arena=arena).verify()
