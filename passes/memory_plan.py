"""Where the memory of a training step goes, planned without weights and without machine code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, OpResult

from niwaki.backends.targets import Target
from niwaki.ir.context import NiwakiContext
from niwaki.ir.dialects import nn
from niwaki.ir.lowered import StorageEntry
from niwaki.ir.program import Program
from niwaki.ir.training import TrainingOptions
from niwaki.passes.arena import plan_arena
from niwaki.passes.arena_problem import ArenaBuffer, ArenaProblem
from niwaki.passes.bufferize import Call
from niwaki.passes.functions import find_function
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.pipelines import training_pipeline
from niwaki.passes.schedule import schedule_problem
from niwaki.passes.schedule_problem import (
    ScheduleProblem,
    live_bytes,
    read_counts,
    shared_pairs,
)
from niwaki.passes.storage_layout import StorageLayout
from niwaki.passes.verify_arena import verify_arena
from niwaki.passes.views import Allocation

CLASSES = ("weights", "optimizer", "activations", "gradients", "workspace")
"""What memory is for. Weights: parameters and constants, frozen ones too. Activations: what the
loss is computed from, masks and parts of them. Gradients: all else that operations make.
Workspace: scratch of one kernel."""

_Buffers: TypeAlias = Sequence[Allocation]


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
) -> MemoryPlan:
    """Where the memory of a training step of the forward `program` goes, which stays as it is.

    The arguments are those of `compile_program`. Neither arrays nor kernels are made, so that
    models of any size and element type will do. Raises what `compile_program` raises.
    """
    module = program.module.clone()
    for step in training_pipeline(options, target, batch, batch_norm):
        step.apply(NiwakiContext(program.weights.copy()), module)
        _keep_training(module)
    function = find_function(module, "train_step", "the pipeline makes it")
    return _plan(function, StorageLayout(module, target.alignment), target)


def _keep_training(module: ModuleOp) -> None:
    """Inference and evaluation need less than training, and would take their time."""
    for function in list(module.body.block.ops):
        assert isinstance(function, FuncOp)
        if function.sym_name.data in ("infer", "evaluate"):
            function.detach()
            function.erase()


def _plan(function: FuncOp, layout: StorageLayout, target: Target) -> MemoryPlan:
    problem, calls = schedule_problem(function, layout, KernelLibrary(target))
    places = _Places(problem)
    arena = ArenaProblem(
        tuple(ArenaBuffer(s, a, b + 1, target.alignment) for s, a, b in places.ranges)
    )
    plan = plan_arena(arena)
    verify_arena(arena, plan)
    profile = live_bytes(problem, range(len(calls))).profile
    peak = profile.index(max(profile))
    buffers = list(
        dict.fromkeys(v.allocation for c in calls for v in c.writes if v.allocation.in_arena)
    )
    holders = _holders(places.live_at(peak), calls, buffers, places.makers, _forward(function))
    sizes = dict.fromkeys(CLASSES, 0)
    for entry in (*layout.state.entries, *layout.constants.entries):
        sizes[_storage_class(entry)] += _stored_bytes(entry)
    for holder in holders:
        sizes[holder.kind] += holder.bytes
    sizes["workspace"] = problem.nodes[peak].workspace
    return MemoryPlan(
        bytes=sizes,
        trained_bytes=sum(_stored_bytes(e) for e in layout.state.entries if e.kind == "parameter"),
        arena_bytes=plan.size,
        calls=len(calls),
        peak_call=peak,
        peak_location=str(calls[peak].op.location),
        holders=holders,
    )


class _Places:
    """Buffers by place: one that is made in place of another takes over its place."""

    def __init__(self, problem: ScheduleProblem) -> None:
        self.problem = problem
        self.place_of: list[int] = [0] * len(problem.sizes)
        self.makers: list[int] = [0] * len(problem.sizes)
        """The node that writes each buffer."""
        self.last = [0] * len(problem.sizes)
        """The node that reads each buffer last (or writes it)."""
        self.ranges: list[tuple[int, int, int]] = []
        """Bytes, first and last node of each place, then of each node's workspace."""
        self._walk()

    def _walk(self) -> None:
        sizes: list[int] = []
        firsts: list[int] = []
        unread = read_counts(self.problem)
        for number, node in enumerate(self.problem.nodes):
            for buffer in node.reads:
                unread[buffer] -= 1
                self.last[buffer] = number
            dying = [buffer for buffer in node.reads if unread[buffer] == 0]
            before = {new: old for old, new in shared_pairs(node, dying).items()}
            for buffer in node.writes:
                self.makers[buffer] = self.last[buffer] = number
                if buffer in before:
                    self.place_of[buffer] = self.place_of[before[buffer]]
                    continue
                self.place_of[buffer] = len(sizes)
                sizes.append(self.problem.sizes[buffer])
                firsts.append(number)
        lasts = list(firsts)
        for buffer, place in enumerate(self.place_of):
            lasts[place] = max(lasts[place], self.last[buffer])
        self.ranges = list(zip(sizes, firsts, lasts, strict=True))
        self.ranges += [
            (n.workspace, i, i) for i, n in enumerate(self.problem.nodes) if n.workspace
        ]

    def live_at(self, node: int) -> list[int]:
        """The buffers that hold memory while `node` runs, one of each place."""
        live: dict[int, int] = {}
        for buffer, place in enumerate(self.place_of):
            if self.makers[buffer] <= node <= self.last[buffer]:
                live[place] = buffer  # Buffers are numbered in the order in which they are made.
        return list(live.values())


def _holders(
    live: Sequence[int],
    calls: Sequence[Call],
    buffers: _Buffers,
    makers: Sequence[int],
    forward: set[Operation],
) -> tuple[Holder, ...]:
    found: list[Holder] = []
    for number in live:
        buffer, op = buffers[number], calls[makers[number]].op
        kept = op in forward or buffer.mask_bits > 0
        found.append(
            Holder(
                label=buffer.label,
                kind="activations" if kept else "gradients",
                bytes=buffer.size,
                location=str(op.location),
            )
        )
    return tuple(sorted(found, key=lambda h: -h.bytes))


def _forward(function: FuncOp) -> set[Operation]:
    """What the loss depends on, and parts of that."""
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
        if isinstance(op, nn.SliceOp) and isinstance(op.x, OpResult) and op.x.op in found:
            found.add(op)
    return found


def _storage_class(entry: StorageEntry) -> str:
    return "optimizer" if entry.kind in ("optimizer", "counter") else "weights"


def _stored_bytes(entry: StorageEntry) -> int:
    return prod(entry.shape) * np.dtype(entry.dtype).itemsize
