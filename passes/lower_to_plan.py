"""`lower-to-plan`: functions become lists of kernel calls on buffers at fixed offsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from xdsl.context import Context
from xdsl.dialects.builtin import (
    IntegerAttr,
    ModuleOp,
    StringAttr,
    SymbolRefAttr,
    UnknownLoc,
    i64,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.passes import ModulePass

from niwaki.backends.kernels.traffic import argument_traffic
from niwaki.backends.targets import Target, get_target
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.plan import RegionRange
from niwaki.ir.dialects.tensor_op import ints, shape_of, type_of
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.lowered import (
    Buffer,
    CallInfo,
    EntryPoint,
    Lowered,
    LoweredKernel,
    Port,
    arena_bytes,
)
from niwaki.ir.program import Program
from niwaki.passes.arenas.plan_arena import plan_arena
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaProblem
from niwaki.passes.arenas.regions import (
    ArenaInRegions,
    Buffers,
    RegionPlan,
    check_constants,
    plan_regions,
    region_uses,
)
from niwaki.passes.arenas.spans import ArenaSpans
from niwaki.passes.arenas.verify import verify_arena
from niwaki.passes.arenas.verify_regions import verify_regions
from niwaki.passes.bufferize import Call, block_order, bufferize
from niwaki.passes.functions import functions
from niwaki.passes.kernel_library import Kernel, KernelLibrary
from niwaki.passes.schedule import ORDER_BOUND
from niwaki.passes.storage_layout import StorageLayout
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
        planned = ProgramPlan(Program(op), get_target(self.target))
        parts = [*(kernel.build() for kernel in planned.kernels()), *planned.emit()]
        for function in list(op.body.block.ops):
            function.detach()
            function.erase()
        op.body.block.add_ops(parts)


def lower(program: Program, target: Target) -> Lowered:
    """Kernels and entry points of all functions of `program`, which stays as it is.

    Each block is lowered in its order; run `schedule` before. Every plan is verified.

    Raises UsageError for operations that are not lowered yet or parameters without an array,
    UnsupportedOpsError (all at once) for operations without a kernel, and DoesNotFitError if the
    memories of the target's board are too small.
    """
    return ProgramPlan(program, target).lower()


class ProgramPlan:
    """All that lowering decides, before any kernel is built: calls, buffers and their places.

    Stands for the program as it is now: `emit` and `lower` need it unchanged.
    """

    def __init__(self, program: Program, target: Target) -> None:
        """Raises what `lower` raises, but for missing arrays."""
        self.program = program
        self.target = target
        library = KernelLibrary(target)
        self.layout = StorageLayout(program.module, library)
        self._kernels = _Kernels()
        self.functions = [
            _FunctionLowering(function, self.layout, library, self._kernels)
            for function in functions(program.module)
        ]
        self._memory = self._plan()
        self.state_regions = self._order_state(self._memory.state)
        self.entries: dict[str, EntryPoint] = {
            function.name: function.entry_point(arena)
            for function, arena in zip(self.functions, self._memory.arenas, strict=True)
        }
        self.regions = region_uses(
            target.regions, self.entries.values(), self.state_regions, self.layout.constants.size
        )

    @property
    def arena_bytes(self) -> int:
        """The arena that serves every entry point, in all memories together."""
        return arena_bytes(self.entries, self.regions)

    @property
    def state_bytes(self) -> int:
        """What a step changes."""
        return self.layout.state.size

    @property
    def access_cost(self) -> float:
        """Bytes that a call of every entry point loads or stores, times the cost of their region.

        0 where there is one memory.
        """
        return self._memory.access_cost

    def kernels(self) -> tuple[LoweredKernel, ...]:
        """The kernels that the programs call, none of them built."""
        return self._kernels.lowered()

    def choices(self) -> tuple[Kernel, ...]:
        """The kernels that the programs call and that could be computed in several ways."""
        return tuple(kernel for kernel in self._kernels.kernels() if len(kernel.alternatives) > 1)

    def emit(self) -> list[plan.ProgramOp]:
        """The programs, detached and verified."""
        programs: list[plan.ProgramOp] = []
        sizes = {"state": self.state_bytes, "constants": self.layout.constants.size}
        storage = self.layout.offsets()
        for function, arena in zip(self.functions, self._memory.arenas, strict=True):
            program = function.emit(arena, storage, self.state_regions)
            verify_plan(program, self.target.alignment, sizes)
            verify_regions(program, self.target.regions, self.state_bytes)
            programs.append(program)
        return programs

    def lower(self) -> Lowered:
        """See the function `lower`."""
        layout, weights = self.layout, self.program.weights
        images = layout.state.image(weights), layout.constants.image(weights)
        return Lowered(
            kernels=self.kernels(),
            programs=tuple(self.emit()),
            state=layout.state.entries,
            constants=layout.constants.entries,
            state_image=images[0],
            constants_image=images[1],
            entries=self.entries,
            target_name=self.target.name,
            regions=self.regions,
            state_regions=self.state_regions,
        )

    def _plan(self) -> RegionPlan:
        if not self.target.regions:
            arenas = (ArenaInRegions(plan_arena(f.problem), ()) for f in self.functions)
            return RegionPlan((), tuple(arenas), 0.0)
        check_constants(self.target.read_only, self.layout.constants.size)
        return plan_regions(*self.buffers(), self.target.writable)

    def buffers(self) -> tuple[Buffers, list[Buffers]]:
        """What has to be placed: the state, and the arena of each function."""
        traffic = [function.traffic() for function in self.functions]
        state = self.layout.state
        return (
            Buffers(
                ArenaProblem(
                    tuple(
                        ArenaBuffer(a.size, 0, 1, self.target.alignment) for a in state.allocations
                    )
                ),
                tuple(sum(t.get(a, 0) for t in traffic) for a in state.allocations),
                tuple(f"{a.label}, kept between steps" for a in state.allocations),
            ),
            [f.buffers(t) for f, t in zip(self.functions, traffic, strict=True)],
        )

    def _order_state(self, places: Sequence[int]) -> tuple[RegionRange, ...]:
        """Sorts the state by region; the part of each region that holds some."""
        if not places:
            return ()
        self.layout.order_state(sorted(range(len(places)), key=lambda n: places[n]))
        starts = dict.fromkeys(sorted(places), self.layout.state.size)
        for entry, place in zip(self.layout.state.entries, sorted(places), strict=True):
            starts[place] = min(starts[place], entry.offset)
        ends = [*list(starts.values())[1:], self.layout.state.size]
        return tuple(
            RegionRange(self.target.writable[place].name, start, end)
            for (place, start), end in zip(starts.items(), ends, strict=True)
        )


class _Kernels:
    """Numbers the kernels by kind, in the order of their first use."""

    def __init__(self) -> None:
        self._names: dict[Kernel, str] = {}
        self._counts: dict[str, int] = {}
        self._traffic: dict[Kernel, tuple[int, ...]] = {}

    def name(self, kernel: Kernel) -> str:
        """The symbol of `kernel`."""
        if kernel not in self._names:
            number = self._counts.get(kernel.kind, 0)
            self._counts[kernel.kind] = number + 1
            self._names[kernel] = f"{kernel.kind}_{number}"
        return self._names[kernel]

    def kernels(self) -> tuple[Kernel, ...]:
        """All kernels that have a name."""
        return tuple(self._names)

    def lowered(self) -> tuple[LoweredKernel, ...]:
        """All kernels that have a name."""
        return tuple(
            LoweredKernel(name, kernel.identity, partial(kernel.spec.build, name))
            for kernel, name in self._names.items()
        )

    def traffic(self, kernel: Kernel) -> tuple[int, ...]:
        """Bytes that a call loads from each argument or stores to it; builds the kernel."""
        if kernel not in self._traffic:
            self._traffic[kernel] = argument_traffic(kernel.spec.build(self.name(kernel)))
        return self._traffic[kernel]


class _FunctionLowering:
    def __init__(
        self, function: FuncOp, layout: StorageLayout, library: KernelLibrary, kernels: _Kernels
    ) -> None:
        self.function = function
        self.name = function.sym_name.data
        self.kernels = kernels
        self.program = bufferize(function, layout, library, block_order(function))
        self.arena = ArenaSpans(self.program)
        self.problem = self.arena.problem(library.target.alignment)

    def buffers(self, traffic: Mapping[Allocation, int]) -> Buffers:
        """What has to be placed in the arena."""
        spans = self.arena.spans
        total = [0] * len(spans)
        for allocation, span in self.arena.span_of.items():
            total[span] += traffic.get(allocation, 0)
        labels = tuple(f"{s.label}, of {self.name}" for s in spans)
        return Buffers(self.problem, tuple(total), labels)

    def traffic(self) -> dict[Allocation, int]:
        """Bytes that kernels load from each buffer or store to it; builds the kernels."""
        total: dict[Allocation, int] = {}
        for number, call in enumerate(self.program.calls):
            views = self.arena.arguments(number, call)
            for view, size in zip(views, self.kernels.traffic(call.kernel), strict=True):
                total[view.allocation] = total.get(view.allocation, 0) + size
        return total

    def emit(
        self,
        arena: ArenaInRegions,
        storage: Mapping[Allocation, int],
        state_regions: Sequence[RegionRange],
    ) -> plan.ProgramOp:
        """The plan.program; `storage`: the offsets of state and constants."""
        verify_arena(self.problem, arena.plan)
        block = Block()
        values: dict[View, SSAValue] = {}
        offsets = {a: arena.plan.offsets[s] for a, s in self.arena.span_of.items()}
        offsets.update(storage)

        def define(view: View) -> None:
            is_port = view.allocation.index is not None
            op = _view_op(view, 0 if is_port else offsets[view.allocation])
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
            arguments = self.arena.arguments(number, call)
            for view in arguments[len(call.reads) :]:
                define(view)
            block.add_op(self._call_op(number, call, [values[v] for v in arguments]))
        properties: dict[str, Attribute] = {
            "sym_name": StringAttr(self.name),
            "arena": _int(arena.plan.size),
            "bound": _int(self.problem.bound),
        }
        if arena.regions:
            properties["arena_regions"] = plan.regions_attribute(arena.regions)
        if state_regions:
            properties["state_regions"] = plan.regions_attribute(state_regions)
        return plan.ProgramOp.create(properties=properties, regions=[Region(block)])

    def _call_op(self, number: int, call: Call, arguments: Sequence[SSAValue]) -> plan.CallOp:
        properties: dict[str, Attribute] = {
            "kernel": SymbolRefAttr(self.kernels.name(call.kernel)),
            "reads": _int(len(call.reads)),
            "writes": _int(len(call.writes)),
        }
        pairs = [(r, len(call.reads) + w) for r, w in self.arena.in_place[number]]
        if pairs:
            properties["in_place"] = ints([n for pair in pairs for n in pair])
        op = plan.CallOp.create(operands=arguments, properties=properties)
        op.location = call.op.location
        return op

    def entry_point(self, arena: ArenaInRegions) -> EntryPoint:
        """The facts about the program."""
        block = self.function.body.block
        terminator = block.last_op
        assert isinstance(terminator, ReturnOp)
        return EntryPoint(
            name=self.name,
            inputs=_ports("input", block.args),
            outputs=_ports("output", terminator.operands),
            arena_bytes=arena.plan.size,
            bound_bytes=self.problem.bound,
            buffers=tuple(
                Buffer(
                    span.label,
                    offset,
                    buffer.occupied,
                    span.first,
                    span.last,
                    span.mask_bits,
                    _region_at(arena.regions, offset),
                )
                for span, buffer, offset in zip(
                    self.arena.spans, self.problem.buffers, arena.plan.offsets, strict=True
                )
            ),
            calls=tuple(
                CallInfo(
                    self.kernels.name(c.kernel),
                    _place(c.op),
                    c.kernel.spec.flops,
                    c.kernel.spec.cost,
                    c.kernel.spec.bytes,
                )
                for c in self.program.calls
            ),
            order_bound_bytes=_order_bound(self.function),
            regions=arena.regions,
        )


def _region_at(ranges: Sequence[RegionRange], offset: int) -> str:
    return next((r.region for r in ranges if r.holds(offset)), "")


def _view_op(view: View, start: int) -> plan.ViewOp:
    buffer = view.allocation
    properties: dict[str, Attribute] = {
        "space": StringAttr(buffer.space),
        "offset": _int(start + view.offset),
        "label": StringAttr(buffer.label),
    }
    if buffer.index is not None:
        properties["index"] = _int(buffer.index)
    return plan.ViewOp.create(properties=properties, result_types=[view.kind])


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
