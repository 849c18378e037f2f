"""What a report says, as plain data."""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import SSAValue

from niwaki.backends.kernels.spec import element_bytes
from niwaki.backends.targets import Target
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.lowered import CallInfo, EntryPoint, Lowered
from niwaki.memory import readable
from niwaki.tools.report.savings import Ablation, Saving, savings
from niwaki.tools.report.trade_off import Point


@dataclass(frozen=True)
class CallRow:
    """One kernel call."""

    kernel: str
    op: str
    """The main operation of the kernel, as in "conv2d"."""
    place: str
    """Where it comes from in the user's model."""
    flops: int
    bytes_read: int
    """Of its operands, each counted once."""
    bytes_written: int
    live_bytes: int
    """Of the arena, during the call."""


@dataclass(frozen=True)
class EntryReport:
    """One entry point."""

    entry: EntryPoint
    calls: tuple[CallRow, ...]
    savings: tuple[Saving, ...]

    @property
    def flops(self) -> int:
        """Of all calls."""
        return sum(call.flops for call in self.calls)

    @property
    def peak(self) -> int:
        """The number of the call during which most bytes are alive; the first of equals."""
        return max(range(len(self.calls)), key=lambda i: self.calls[i].live_bytes, default=0)


@dataclass(frozen=True)
class Report:
    """A compiled program."""

    title: str
    facts: tuple[tuple[str, str], ...]
    """What was compiled: (name, value); data, not markup."""
    state_bytes: int
    constant_bytes: int
    entries: tuple[EntryReport, ...]
    """train_step first."""
    trade_off: tuple[Point, ...] = ()
    """From the smallest plan to the fastest; empty if it was not asked for."""


def report_on(
    lowered: Lowered,
    target: Target,
    title: str,
    facts: Sequence[tuple[str, str]],
    ablations: Sequence[Ablation] = (),
) -> Report:
    """The report on `lowered`, compiled for `target`."""
    programs = {program.sym_name.data: program for program in lowered.programs}
    return Report(
        title,
        tuple(facts),
        len(lowered.state_image),
        len(lowered.constants_image),
        tuple(
            EntryReport(
                entry,
                _call_rows(programs[name], entry),
                savings(lowered, programs[name], target.alignment, ablations),
            )
            for name, entry in lowered.entries.items()
        ),
    )


def _call_rows(program: plan.ProgramOp, entry: EntryPoint) -> tuple[CallRow, ...]:
    ops = [op for op in program.body.block.ops if isinstance(op, plan.CallOp)]
    return tuple(
        _call_row(op, call, live)
        for op, call, live in zip(ops, entry.calls, entry.live_bytes, strict=True)
    )


def _call_row(op: plan.CallOp, call: CallInfo, live: int) -> CallRow:
    reads, writes = (get_int(op.properties, k) for k in ("reads", "writes"))
    return CallRow(
        call.kernel,
        call.op,
        readable(call.location),
        call.flops,
        sum(_bytes(view) for view in dict.fromkeys(op.arguments[:reads])),
        sum(_bytes(view) for view in op.arguments[reads : reads + writes]),
        live,
    )


def _bytes(view: SSAValue) -> int:
    kind = view.type
    assert isinstance(kind, MemRefType)
    return kind.element_count() * element_bytes(kind.element_type)
