"""Which pointers of a kernel may be `restrict`: read off the plan, not assumed."""

from collections.abc import Iterable, Mapping

from xdsl.dialects.builtin import MemRefType

from niwaki.backends.kernels.spec import buffer_bytes
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import get_int


def aliased_arguments(programs: Iterable[plan.ProgramOp]) -> Mapping[str, set[int]]:
    """Kernel -> its arguments that overlap another one in some call, one of them written."""
    aliased: dict[str, set[int]] = {}
    for program in programs:
        for op in program.body.block.ops:
            if isinstance(op, plan.CallOp):
                found = aliased.setdefault(op.kernel.string_value(), set())
                found.update(_overlapping(op))
    return aliased


def _overlapping(call: plan.CallOp) -> set[int]:
    ranges = [_range(a.owner) for a in call.arguments]
    reads = get_int(call.properties, "reads")
    found: set[int] = set()
    for i, (space, start, stop) in enumerate(ranges):
        for j in range(max(i + 1, reads), len(ranges)):
            other_space, other_start, other_stop = ranges[j]
            if space == other_space and start < other_stop and other_start < stop:
                found |= {i, j}
    return found


def _range(view: object) -> tuple[tuple[str, int], int, int]:
    assert isinstance(view, plan.ViewOp)
    kind = view.view.type
    assert isinstance(kind, MemRefType)
    number = 0 if view.index is None else get_int(view.properties, "index")
    start = get_int(view.properties, "offset")
    return (view.space.data, number), start, start + buffer_bytes(kind)
