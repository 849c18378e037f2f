"""Where the memory of a training step goes, planned without weights and without machine code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, OpResult

from niwaki.backends.targets import Target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn
from niwaki.ir.lowered import StorageEntry
from niwaki.ir.program import Program
from niwaki.ir.training import TrainingOptions
from niwaki.passes.arenas.plan_arena import plan_arena
from niwaki.passes.arenas.problem import loads
from niwaki.passes.arenas.spans import ArenaSpans
from niwaki.passes.arenas.verify import verify_arena
from niwaki.passes.bufferize import BufferProgram, block_order, bufferize
from niwaki.passes.functions import find_function
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.pipelines import Techniques, training_pipeline
from niwaki.passes.storage_layout import StorageLayout

CLASSES: Sequence[str] = ("weights", "optimizer", "activations", "gradients", "workspace")
"""What memory is for. Weights: parameters and constants, frozen ones too. Activations: what the
loss is computed from, and what is kept of it (masks, parts, fewer bits). Gradients: all else that
operations make. Workspace: scratch of one kernel."""


@dataclass(frozen=True)
class Holder:
    """A buffer that is live at the peak."""

    label: str
    kind: str
    """One of CLASSES."""
    bytes: int
    location: str
    """Of the operation that made it, as IR prints it."""


@dataclass(frozen=True)
class MemoryPlan:
    """The memory of one training step."""

    bytes: Mapping[str, int]
    """Of each of CLASSES; those of the arena during the call where most is live."""
    trained_bytes: int
    """Of the weights that the step updates."""
    arena_bytes: int
    """What activations, gradients and workspace need at their places."""
    calls: int
    """Kernels of the step."""
    peak_call: int
    peak_location: str
    holders: tuple[Holder, ...]
    """Buffers live there, the largest first."""

    @property
    def total_bytes(self) -> int:
        """Weights, optimizer and arena."""
        return self.bytes["weights"] + self.bytes["optimizer"] + self.arena_bytes


def plan_memory(
    program: Program,
    options: TrainingOptions,
    target: Target,
    batch: int | None = None,
    batch_norm: str = "as_is",
    techniques: Techniques | None = None,
) -> MemoryPlan:
    """Where the memory of a training step of the forward `program` goes, which stays as it is.

    The arguments are those of `compile_program`. Neither arrays nor kernels are made, so that
    models of any size and element type will do. Raises what `compile_program` raises.
    """
    module = program.module.clone()
    for step in training_pipeline(options, target, batch, batch_norm, techniques):
        step.apply(NiwakiContext(program.weights.copy()), module)
        _keep_training(module)
    function = find_function(module, "train_step", "the pipeline makes it")
    library = KernelLibrary(target)
    return _plan(function, StorageLayout(module, library), library)


def _keep_training(module: ModuleOp) -> None:
    """Inference and evaluation need less than training, and would take their time."""
    for function in list(module.body.block.ops):
        assert isinstance(function, FuncOp)
        if function.sym_name.data in ("infer", "evaluate"):
            function.detach()
            function.erase()


def _plan(function: FuncOp, layout: StorageLayout, library: KernelLibrary) -> MemoryPlan:
    program = bufferize(function, layout, library, block_order(function))
    places = ArenaSpans(program)
    arena = places.problem(library.target.alignment)
    plan = plan_arena(arena)
    verify_arena(arena, plan)
    times, live = loads(arena.buffers)
    peak = int(times[live.argmax()]) if len(live) else 0
    holders = _holders(program, places, peak, _forward(function))
    sizes = dict.fromkeys(CLASSES, 0)
    for entry in (*layout.state.entries, *layout.constants.entries):
        sizes[_storage_class(entry)] += entry.bytes
    for holder in holders:
        sizes[holder.kind] += holder.bytes
    return MemoryPlan(
        bytes=sizes,
        trained_bytes=sum(e.bytes for e in layout.state.entries if e.kind == "parameter"),
        arena_bytes=plan.size,
        calls=len(program.calls),
        peak_call=peak,
        peak_location=str(program.calls[peak].op.location),
        holders=holders,
    )


def _holders(
    program: BufferProgram, places: ArenaSpans, peak: int, forward: set[Operation]
) -> tuple[Holder, ...]:
    """What is live during call `peak`. Of buffers in one place, the one made last counts."""
    made: dict[int, Holder] = {}
    for number, call in enumerate(program.calls[: peak + 1]):
        location = str(call.op.location)
        for view in call.writes:
            buffer = view.allocation
            if buffer.in_arena:
                is_kept = call.op in forward or buffer.mask_bits > 0
                kind = "activations" if is_kept else "gradients"
                made[places.span_of[buffer]] = Holder(buffer.label, kind, buffer.size, location)
        if number in places.workspace:
            buffer = places.workspace[number].allocation
            made[places.span_of[buffer]] = Holder(buffer.label, "workspace", buffer.size, location)
    live = [holder for span, holder in made.items() if peak <= places.spans[span].last]
    return tuple(sorted(live, key=lambda h: -h.bytes))


def _forward(function: FuncOp) -> set[Operation]:
    """What the loss depends on, and what is kept of that."""
    terminator = function.body.block.last_op
    assert terminator is not None
    found: set[Operation] = set()
    pending = [o.op for o in terminator.operands if isinstance(o, OpResult)]
    while pending:
        op = pending.pop()
        if op not in found:
            found.add(op)
            pending += [o.op for o in op.operands if isinstance(o, OpResult)]
    for op in function.body.block.ops:
        if _keeps_less(op) and any(isinstance(o, OpResult) and o.op in found for o in op.operands):
            found.add(op)
    return found


def _keeps_less(op: Operation) -> bool:
    """Whether `op` makes what is kept of an activation: a part of it, or fewer bits."""
    return any(isinstance(inner, nn.SliceOp | nn.NarrowOp) for inner in op.walk())


def _storage_class(entry: StorageEntry) -> str:
    return "optimizer" if entry.kind in ("optimizer", "counter") else "weights"
