"""What each technique saved: the arena of an entry point beside the arena without the technique.

Nothing is estimated: the buffers of the compiled program are changed to what they would be, and
placed by the planner that placed the real ones; or the model is compiled again (`Ablation`).
Every line stands alone: savings do not add up.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.lowered import EntryPoint, Lowered
from niwaki.passes.arenas.plan_arena import plan_arena
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaProblem


@dataclass(frozen=True)
class Saving:
    """One technique and the bytes of arena with and without it."""

    technique: str
    without_bytes: int
    with_bytes: int
    how: str
    """How `without_bytes` comes about."""

    @property
    def bytes(self) -> int:
        """What the technique saved; negative if it cost memory."""
        return self.without_bytes - self.with_bytes


@dataclass(frozen=True)
class Ablation:
    """The entry points of the same model planned without one technique."""

    technique: str
    how: str
    entries: Mapping[str, EntryPoint]


def savings(
    lowered: Lowered, program: plan.ProgramOp, alignment: int, ablations: Sequence[Ablation]
) -> tuple[Saving, ...]:
    """What the techniques that entry point `program` uses saved."""
    entry = lowered.entries[program.sym_name.data]
    found = [
        Saving(a.technique, a.entries[entry.name].arena_bytes, entry.arena_bytes, a.how)
        for a in ablations
        if a.entries[entry.name].buffers != entry.buffers
    ]
    counterfactuals = _Counterfactuals(lowered, entry, program, alignment)
    for technique, how, buffers in (
        (
            "updates inside gradient kernels",
            "every gradient that no longer exists gets a buffer, from the kernel that computes it "
            "to the end of the step, where an optimizer would read it",
            counterfactuals.with_gradients(),
        ),
        (
            "masks as bits",
            "every element of a mask takes the 4 bytes of a float",
            counterfactuals.with_wide_masks(),
        ),
        (
            "results in place of operands",
            "every result that took the place of an operand gets its own buffer",
            counterfactuals.with_separate_results(),
        ),
    ):
        if buffers is not None:
            size = plan_arena(ArenaProblem(buffers)).size
            found.append(Saving(technique, size, entry.arena_bytes, f"{how}; planned again"))
    if entry.buffers:
        total = sum(b.bytes for b in entry.buffers)
        how = "the sum of all buffers: none reuses the memory of another"
        found.append(Saving("reuse of addresses", total, entry.arena_bytes, how))
    return tuple(found)


class _Counterfactuals:
    """The buffers of an entry point without a technique; None where it is not used."""

    def __init__(
        self, lowered: Lowered, entry: EntryPoint, program: plan.ProgramOp, alignment: int
    ) -> None:
        self.parameters = {s.name: s for s in lowered.state if s.kind == "parameter"}
        self.entry = entry
        self.calls = [op for op in program.body.block.ops if isinstance(op, plan.CallOp)]
        self.alignment = alignment
        self.buffers = tuple(self._buffer(b.bytes, b.first, b.last + 1) for b in entry.buffers)

    def _buffer(self, size: int, start: int, end: int) -> ArenaBuffer:
        return ArenaBuffer(size, start, end, self.alignment)

    def with_gradients(self) -> tuple[ArenaBuffer, ...] | None:
        """Every parameter written by the kernel that computes its gradient."""
        end = len(self.calls)
        gradients = [
            self._buffer(size, number, end) for number, size in self._gradients_never_stored()
        ]
        return (*self.buffers, *gradients) if gradients else None

    def _gradients_never_stored(self) -> Iterator[tuple[int, int]]:
        """(number of a call, bytes of the gradient that it makes and consumes)."""
        for number, (op, call) in enumerate(zip(self.calls, self.entry.calls, strict=True)):
            # An elementwise kernel or a copy reads the gradient from memory.
            if call.op in ("elementwise", "copy"):
                continue
            for view in _written(op):
                name = "" if view.label is None else view.label.data
                if view.space.data == "state" and name in self.parameters:
                    box = self.parameters[name].updated
                    yield number, 4 * prod(box or ())

    def with_wide_masks(self) -> tuple[ArenaBuffer, ...] | None:
        """Masks of 4 bytes an element."""
        wide = tuple(
            self._buffer(4 * b.mask_bits or b.bytes, b.first, b.last + 1)
            for b in self.entry.buffers
        )
        return wide if wide != self.buffers else None

    def with_separate_results(self) -> tuple[ArenaBuffer, ...] | None:
        """Each buffer ends where the result of an in-place call takes its place."""
        cuts: dict[int, list[int]] = {}
        for number, op in enumerate(self.calls):
            for _, write in op.in_place_pairs:
                view = op.arguments[write].owner
                if isinstance(view, plan.ViewOp) and view.space.data == "arena":
                    cuts.setdefault(get_int(view.properties, "offset"), []).append(number)
        split = tuple(
            self._buffer(b.bytes, start, end)
            for b in self.entry.buffers
            for start, end in _pieces(b.first, b.last, cuts.get(b.offset, ()))
        )
        return split if len(split) > len(self.buffers) else None


def _written(op: plan.CallOp) -> Iterator[plan.ViewOp]:
    reads, writes = (get_int(op.properties, k) for k in ("reads", "writes"))
    for argument in op.arguments[reads : reads + writes]:
        if isinstance(argument.owner, plan.ViewOp):
            yield argument.owner


def _pieces(first: int, last: int, cuts: Sequence[int]) -> Iterator[tuple[int, int]]:
    """[start, end) of the pieces of [first, last]; both sides live during the call at a cut."""
    start = first
    for cut in cuts:
        if first < cut <= last:
            yield start, cut + 1
            start = cut
    yield start, last + 1
