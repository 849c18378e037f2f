"""The `plan` dialect: an ordered list of kernel calls on views at fixed addresses.

Memory is a few spaces: `arena` (scratch of one step), `state` (what a step changes: updated
parameters, optimizer state, counters), `constants` (frozen weights), `input` and `output` (the
caller's arrays, by number). Offsets are bytes.

On a board with several memories, arena and state are cut into ranges, one for each region that
holds a part: a view lies in one of them, and the ranges need not be neighbours in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import (
    DenseArrayBase,
    DictionaryAttr,
    IntegerAttr,
    MemRefType,
    StringAttr,
    SymbolRefAttr,
)
from xdsl.ir import Dialect
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    opt_prop_def,
    prop_def,
    region_def,
    result_def,
    traits_def,
    var_operand_def,
)
from xdsl.traits import IsolatedFromAbove, NoTerminator, SymbolOpInterface

from niwaki.ir.dialects.tensor_op import get_int, get_ints, ints, require

SPACES = ("arena", "state", "constants", "input", "output")
_DIVIDED = ("arena", "state")


@dataclass(frozen=True)
class RegionRange:
    """The part of a space that lies in one region: [start, end), bytes of the space."""

    region: str
    start: int
    end: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.end - self.start

    def holds(self, offset: int) -> bool:
        """Whether the byte at `offset` of the space lies here."""
        return self.start <= offset < self.end


@irdl_op_definition
class ProgramOp(IRDLOperation):
    """One entry point: views and calls, in execution order. `arena`: bytes of scratch needed."""

    name = "plan.program"
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(IsolatedFromAbove(), NoTerminator(), SymbolOpInterface())
    sym_name = prop_def(StringAttr)
    arena = prop_def(IntegerAttr)
    bound = prop_def(IntegerAttr)
    """Live-byte lower bound of this order: no arena can be smaller."""
    arena_regions = opt_prop_def(DictionaryAttr)
    """Region -> [start, end) of the arena; absent where there is one memory."""
    state_regions = opt_prop_def(DictionaryAttr)
    """Region -> [start, end) of the state, the same for all entry points of a module."""
    body = region_def("single_block")
    assembly_format = "$sym_name `arena` $arena `bound` $bound attr-dict-with-keyword $body"

    def ranges(self, space: str) -> tuple[RegionRange, ...]:
        """The ranges of "arena" or "state", by address; empty where there is one memory."""
        found = {"arena": self.arena_regions, "state": self.state_regions}[space]
        if found is None:
            return ()
        ranges: list[RegionRange] = []
        for name in found.data:
            ends = get_ints(found.data, name)
            require(len(ends) == 2, f"the region '{name}' must have a start and an end")
            ranges.append(RegionRange(name, ends[0], ends[1]))
        return tuple(sorted(ranges, key=lambda r: (r.start, r.end)))

    def verify_(self) -> None:
        for space in _DIVIDED:
            at = 0
            for part in self.ranges(space):
                require(
                    part.start == at <= part.end,
                    f"the region '{part.region}' of the {space} must start at {at}",
                )
                at = part.end
            if space == "arena" and self.arena_regions is not None:
                arena = get_int(self.properties, "arena")
                require(at == arena, "the regions of the arena must cover it")


@irdl_op_definition
class ViewOp(IRDLOperation):
    """A buffer at byte `offset` of `space`; for inputs and outputs, number `index`."""

    name = "plan.view"
    irdl_options = (ParsePropInAttrDict(),)
    space = prop_def(StringAttr)
    offset = prop_def(IntegerAttr)
    index = opt_prop_def(IntegerAttr)
    label = opt_prop_def(StringAttr)
    view = result_def(MemRefType)
    assembly_format = "$space attr-dict `:` type($view)"

    def verify_(self) -> None:
        require(self.space.data in SPACES, f"unknown space '{self.space.data}'")
        require(get_int(self.properties, "offset") >= 0, "'offset' must be >= 0")
        require(
            (self.index is not None) == (self.space.data in ("input", "output")),
            "'index' belongs to inputs and outputs, and only to them",
        )


@irdl_op_definition
class CallOp(IRDLOperation):
    """Runs `kernel`: the first `reads` arguments are read, the next `writes` written.

    What remains is workspace. `in_place` lists pairs [argument read, argument written] that may
    share memory.
    """

    name = "plan.call"
    irdl_options = (ParsePropInAttrDict(),)
    kernel = prop_def(SymbolRefAttr)
    arguments = var_operand_def(MemRefType)
    reads = prop_def(IntegerAttr)
    writes = prop_def(IntegerAttr)
    in_place = opt_prop_def(DenseArrayBase)
    assembly_format = "$kernel `(` $arguments `)` attr-dict `:` type($arguments)"

    @property
    def in_place_pairs(self) -> list[tuple[int, int]]:
        """[(argument read, argument written)]."""
        if self.in_place is None:
            return []
        flat = get_ints(self.properties, "in_place")
        return list(zip(flat[::2], flat[1::2], strict=True))

    def verify_(self) -> None:
        reads, writes = (get_int(self.properties, k) for k in ("reads", "writes"))
        require(
            reads >= 0 and writes >= 0 and reads + writes <= len(self.arguments),
            "'reads' and 'writes' exceed the arguments",
        )
        for read, write in self.in_place_pairs:
            require(0 <= read < reads <= write < reads + writes, "'in_place' names wrong arguments")


def regions_attribute(ranges: Sequence[RegionRange]) -> DictionaryAttr:
    """`ranges` as `arena_regions` or `state_regions`."""
    return DictionaryAttr({r.region: ints([r.start, r.end]) for r in ranges})


PLAN = Dialect("plan", [ProgramOp, ViewOp, CallOp])
