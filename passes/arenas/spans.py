"""The places in the arena that a function needs: buffers, and the workspace of its kernels.

Aliases need no care of the planner: views of one tensor (reshapes, rows, parts of a concatenation)
are one `Allocation` since `bufferize`, and a result that takes the place of an operand joins its
span here. What the planner sees are the spans, no two of which may overlap.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType, i8

from niwaki.passes.arenas.problem import ArenaBuffer, ArenaProblem
from niwaki.passes.bufferize import BufferProgram, Call
from niwaki.passes.views import Allocation, View


@dataclass
class Span:
    """One place in the arena, for one buffer or for several, each in place of the one before."""

    label: str
    size: int
    first: int
    last: int
    """Numbers of the first and last call that touch it."""
    mask_bits: int


class ArenaSpans:
    """The spans of a program, and which allocation lies in which."""

    def __init__(self, program: BufferProgram) -> None:
        self.spans: list[Span] = []
        self.span_of: dict[Allocation, int] = {}
        self.workspace: dict[int, View] = {}
        """Number of a call -> its workspace."""
        self.in_place: list[list[tuple[int, int]]] = []
        """Of each call, the pairs (read, write) that share memory."""
        last = {
            view.allocation: number
            for number, call in enumerate(program.calls)
            for view in (*call.reads, *call.writes)
        }
        for number, call in enumerate(program.calls):
            self.in_place.append(self._share(number, call, last))
            for view in call.writes:
                if view.allocation.in_arena and view.allocation not in self.span_of:
                    self._add(view.allocation, number, last[view.allocation])
            if call.kernel.spec.workspace:
                kind = MemRefType(i8, [call.kernel.spec.workspace])
                label = f"workspace of {call.kernel.kind}"
                buffer = Allocation("arena", call.kernel.spec.workspace, label=label)
                self.workspace[number] = View(buffer, 0, kind)
                self._add(buffer, number, number)

    def problem(self, alignment: int) -> ArenaProblem:
        """The spans as the planner takes them."""
        return ArenaProblem(
            tuple(ArenaBuffer(s.size, s.first, s.last + 1, alignment) for s in self.spans)
        )

    def arguments(self, number: int, call: Call) -> tuple[View, ...]:
        """What call `number` passes to its kernel."""
        scratch = (self.workspace[number],) if number in self.workspace else ()
        return (*call.reads, *call.writes, *scratch)

    def _add(self, allocation: Allocation, first: int, last: int) -> None:
        self.span_of[allocation] = len(self.spans)
        self.spans.append(
            Span(allocation.label, allocation.size, first, last, allocation.mask_bits)
        )

    def _share(
        self, number: int, call: Call, last: Mapping[Allocation, int]
    ) -> list[tuple[int, int]]:
        """Puts results in the places of operands that die at this call."""
        result_in: dict[Allocation, Allocation] = {}
        for read, write in call.in_place:
            source, result = call.reads[read].allocation, call.writes[write].allocation
            if last[source] == number and source not in result_in and result not in self.span_of:
                result_in[source] = result
                self.span_of[result] = self.span_of[source]
                self.spans[self.span_of[source]].last = last[result]
        return [
            (read, write)
            for read, write in call.kernel.spec.in_place
            if call.reads[read].same_place(call.writes[write])
            or result_in.get(call.reads[read].allocation) is call.writes[write].allocation
        ]
