"""`lower-to-plan`: functions become lists of kernel calls on buffers at fixed offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import (
    IntegerAttr,
    MemRefType,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    UnknownLoc,
    i8,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from niwaki.backends.targets import Target, get_target
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import ints, shape_of, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.lowered import Buffer, CallInfo, EntryPoint, Lowered, Port
from niwaki.ir.program import Program
from niwaki.passes.arena import plan_arena
from niwaki.passes.arena_problem import ArenaBuffer, ArenaProblem
from niwaki.passes.bufferize import Call, MayOverwrite, bufferize, storage_readers
from niwaki.passes.functions import functions
from niwaki.passes.kernel_library import Kernel, KernelLibrary
from niwaki.passes.schedule import ORDER_BOUND
from niwaki.passes.storage_layout import StorageLayout
from niwaki.passes.verify_arena import verify_arena
from niwaki.passes.verify_plan import verify_plan
from niwaki.passes.views import Allocation, View


@dataclass(frozen=True)
class LowerToPlanPass(ModulePass):
    """Replaces every function by a plan.program, in front of it the kernels that they call.

    Raises UsageError or UnsupportedOpsError as `lower` does, but needs no arrays.
    """

    name = "lower-to-plan"

    target: str = "x86-64"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        parts = _Lowering(op, get_target(self.target)).parts
        for function in list(op.body.block.ops):
            function.detach()
            function.erase()
        op.body.block.add_ops(parts)


def lower(program: Program, target: Target) -> Lowered:
    """Kernels and entry points of all functions of `program`, which stays as it is.

    Each block is lowered in its order; run `schedule` before. Every plan is verified.

    Raises UsageError for operations that are not lowered yet or parameters without an array, and
    UnsupportedOpsError (all at once) for operations without a kernel.
    """
    lowering = _Lowering(program.module, target)
    layout = lowering.layout
    return Lowered(
        module=ModuleOp(lowering.parts),
        state=layout.state.entries,
        constants=layout.constants.entries,
        state_image=layout.state.image(program.weights),
        constants_image=layout.constants.image(program.weights),
        entries=lowering.entries,
        target_name=target.name,
    )


class _Lowering:
    """The kernels and programs of a module, detached."""

    def __init__(self, module: ModuleOp, target: Target) -> None:
        self.layout = StorageLayout(module, target.alignment)
        self.entries: dict[str, EntryPoint] = {}
        library, names = KernelLibrary(target), _KernelNames()
        programs: list[plan.ProgramOp] = []
        sizes = {"state": self.layout.state.size, "constants": self.layout.constants.size}
        for function in functions(module):
            lowering = _FunctionLowering(function, self.layout, library, names)
            programs.append(lowering.emit())
            verify_plan(programs[-1], target.alignment, sizes)
            self.entries[function.sym_name.data] = lowering.entry_point()
        self.parts: list[Operation] = [*names.functions, *programs]


class _KernelNames:
    """Builds each kernel at its first use and numbers it by kind."""

    def __init__(self) -> None:
        self.functions: list[FuncOp] = []
        self._names: dict[Kernel, str] = {}
        self._counts: dict[str, int] = {}

    def name(self, kernel: Kernel) -> str:
        """The symbol of `kernel`."""
        if kernel not in self._names:
            number = self._counts.get(kernel.kind, 0)
            self._counts[kernel.kind] = number + 1
            self._names[kernel] = f"{kernel.kind}_{number}"
            self.functions.append(kernel.spec.build(self._names[kernel]))
        return self._names[kernel]


@dataclass
class _Span:
    """One place in the arena, for one buffer or for several, each in place of the one before."""

    label: str
    size: int
    first: int
    last: int
    """Numbers of the first and last call that touch it."""
    mask_bits: int


class _FunctionLowering:
    def __init__(
        self, function: FuncOp, layout: StorageLayout, library: KernelLibrary, names: _KernelNames
    ) -> None:
        self.function = function
        self.names = names
        self.alignment = library.target.alignment
        self.program = bufferize(function, layout, library, _block_order(function))
        self.spans: list[_Span] = []
        self.span_of: dict[Allocation, int] = {}
        self.workspace: dict[int, View] = {}
        """Number of a call -> its workspace."""
        self.in_place: list[list[tuple[int, int]]] = []
        """Of each call, the pairs (read, write) that share memory."""
        self._find_spans()
        self.problem = ArenaProblem(
            tuple(ArenaBuffer(s.size, s.first, s.last + 1, self.alignment) for s in self.spans)
        )
        self.plan = plan_arena(self.problem)
        verify_arena(self.problem, self.plan)

    def _find_spans(self) -> None:
        last = {
            view.allocation: number
            for number, call in enumerate(self.program.calls)
            for view in (*call.reads, *call.writes)
        }
        for number, call in enumerate(self.program.calls):
            self.in_place.append(self._share(number, call, last))
            for view in call.writes:
                if view.allocation.in_arena and view.allocation not in self.span_of:
                    self._add_span(view.allocation, number, last[view.allocation])
            if call.kernel.spec.workspace:
                kind = MemRefType(i8, [call.kernel.spec.workspace])
                label = f"workspace of {call.kernel.kind}"
                buffer = Allocation("arena", call.kernel.spec.workspace, offset=None, label=label)
                self.workspace[number] = View(buffer, 0, kind)
                self._add_span(buffer, number, number)

    def _add_span(self, allocation: Allocation, first: int, last: int) -> None:
        self.span_of[allocation] = len(self.spans)
        self.spans.append(
            _Span(allocation.label, allocation.size, first, last, allocation.mask_bits)
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

    def emit(self) -> plan.ProgramOp:
        """The plan.program; builds the kernels that no function used before."""
        block = Block()
        values: dict[View, SSAValue] = {}

        def define(view: View) -> None:
            op = self._view_op(view)
            block.add_op(op)
            values[view] = op.view

        read = {view for call in self.program.calls for view in call.reads}
        for view in self.program.arguments:
            define(view)
        calls = enumerate(self.program.calls)
        for step in self.program.steps:
            if isinstance(step, View):
                if step in read:
                    define(step)
                continue
            number, call = next(calls)
            scratch = [self.workspace[number]] if number in self.workspace else []
            for view in (*call.writes, *scratch):
                define(view)
            arguments = [values[v] for v in (*call.reads, *call.writes, *scratch)]
            block.add_op(self._call_op(number, call, arguments))
        return plan.ProgramOp.create(
            properties={
                "sym_name": StringAttr(self.function.sym_name.data),
                "arena": _int(self.plan.size),
                "bound": _int(self.problem.bound),
            },
            regions=[Region(block)],
        )

    def _view_op(self, view: View) -> plan.ViewOp:
        buffer = view.allocation
        start = buffer.offset
        if start is None:
            start = self.plan.offsets[self.span_of[buffer]]
        properties: dict[str, Attribute] = {
            "space": StringAttr(buffer.space),
            "offset": _int(start + view.offset),
            "label": StringAttr(buffer.label),
        }
        if buffer.index is not None:
            properties["index"] = _int(buffer.index)
        return plan.ViewOp.create(properties=properties, result_types=[view.kind])

    def _call_op(self, number: int, call: Call, arguments: Sequence[SSAValue]) -> plan.CallOp:
        properties: dict[str, Attribute] = {
            "kernel": SymbolRefAttr(self.names.name(call.kernel)),
            "reads": _int(len(call.reads)),
            "writes": _int(len(call.writes)),
        }
        pairs = [(r, len(call.reads) + w) for r, w in self.in_place[number]]
        if pairs:
            properties["in_place"] = ints([n for pair in pairs for n in pair])
        op = plan.CallOp.create(operands=arguments, properties=properties)
        op.location = call.op.location
        return op

    def entry_point(self) -> EntryPoint:
        """The facts about the program; after `emit`."""
        block = self.function.body.block
        terminator = block.last_op
        assert isinstance(terminator, ReturnOp)
        return EntryPoint(
            name=self.function.sym_name.data,
            inputs=_ports("input", block.args),
            outputs=_ports("output", terminator.operands),
            arena_bytes=self.plan.size,
            bound_bytes=self.problem.bound,
            buffers=tuple(
                Buffer(span.label, offset, buffer.occupied, span.first, span.last, span.mask_bits)
                for span, buffer, offset in zip(
                    self.spans, self.problem.buffers, self.plan.offsets, strict=True
                )
            ),
            calls=tuple(
                CallInfo(self.names.name(c.kernel), _place(c.op), c.kernel.spec.flops)
                for c in self.program.calls
            ),
            order_bound_bytes=_order_bound(self.function),
        )


def _block_order(function: FuncOp) -> MayOverwrite:
    """Overwriting as the order of the block allows it."""
    position = {op: i for i, op in enumerate(function.body.block.ops)}
    readers = storage_readers(function)

    def may_overwrite(producer: Operation, name: str) -> bool:
        return all(
            position[reader] < position[producer]
            for reader in readers.get(name, ())
            if reader is not producer
        )

    return may_overwrite


def _ports(kind: str, values: Sequence[SSAValue]) -> tuple[Port, ...]:
    return tuple(
        Port(
            value.name_hint or f"{kind}_{number}",
            shape_of(value),
            str(dtype_of(type_of(value).element_type)),
        )
        for number, value in enumerate(values)
    )


def _order_bound(function: FuncOp) -> int:
    bound = function.attributes.get(ORDER_BOUND)
    return bound.value.data if isinstance(bound, IntegerAttr) else 0


def _place(op: Operation) -> str:
    return "" if isinstance(op.location, UnknownLoc) else str(op.location)


def _int(value: int) -> IntegerAttr:
    return IntegerAttr(value, i64)
