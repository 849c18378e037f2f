"""`recompute`: makes activations again for the backward pass instead of keeping them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.backends.targets import Target, get_target
from niwaki.ir.dialects import nn, train
from niwaki.passes.bufferize import Call
from niwaki.passes.functions import find_function
from niwaki.passes.fusion.trim import trim_fused
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.orders.greedy import best_greedy_order
from niwaki.passes.orders.problem import ScheduleProblem
from niwaki.passes.recomputation.problem import RecomputeProblem
from niwaki.passes.recomputation.search import cheapest_runs
from niwaki.passes.schedule import reorder, schedule_problem
from niwaki.passes.storage_layout import StorageLayout


@dataclass(frozen=True)
class RecomputePass(ModulePass):
    """Repeats operations of @train_step so that fewer bytes are live at once.

    Works on whole kernels, after `fuse`: results stay the same bit for bit, and equal operations
    are never merged again. If the budget cannot be met, as few bytes as possible.
    """

    name = "recompute"

    budget: int
    """Most bytes of the arena of @train_step."""
    target: str = "x86-64"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        recompute(op, get_target(self.target), self.budget)


def recompute(module: ModuleOp, target: Target, budget: int) -> None:
    """See RecomputePass; for a target that need not be in the table."""
    function = find_function(module, "train_step", "run build-training first")
    library = KernelLibrary(target)
    layout = StorageLayout(module, library)
    problem, calls = schedule_problem(function, layout, library)
    order = best_greedy_order(problem)
    trace = cheapest_runs(recompute_problem(problem, calls), order, budget)
    if len(trace.runs) > len(order):
        _repeat(function, [calls[node].op for node in trace.runs.tolist()])
        trim_fused(function.body.block)


def recompute_problem(problem: ScheduleProblem, calls: Sequence[Call]) -> RecomputeProblem:
    """`problem` with costs: floating-point operations, and one for each element written."""
    calls_of = Counter(call.op for call in calls)
    writers = Counter(
        buffer for call in calls for buffer in dict.fromkeys(v.allocation for v in call.writes)
    )
    return RecomputeProblem(
        problem,
        tuple(
            call.kernel.spec.flops + sum(problem.sizes[b] for b in node.writes) // 4
            for call, node in zip(calls, problem.nodes, strict=True)
        ),
        tuple(
            calls_of[call.op] == 1
            and not isinstance(call.op, train.AssignOp)
            and all(v.allocation.in_arena and writers[v.allocation] == 1 for v in call.writes)
            for call in calls
        ),
        _deadlines(calls),
    )


def _deadlines(calls: Sequence[Call]) -> tuple[tuple[int, ...], ...]:
    overwriters: dict[object, list[int]] = {}
    for number, call in enumerate(calls):
        for view in call.writes:
            if view.allocation.space == "state":
                overwriters.setdefault(view.allocation, []).append(number)
    return tuple(
        tuple(
            dict.fromkeys(
                other
                for view in call.reads
                for other in overwriters.get(view.allocation, ())
                if other != number
            )
        )
        for number, call in enumerate(calls)
    )


def _repeat(function: FuncOp, runs: Sequence[Operation]) -> None:
    """Puts the operations in the order of `runs`, with a copy for each repetition.

    Every operation reads what was made last before it.
    """
    end = function.body.block.last_op
    assert end is not None
    operands = {op: tuple(op.operands) for op in runs}
    latest = _Latest(set(operands))
    ops: dict[Operation, None] = {}
    for original in runs:
        op = original
        if original in ops:
            op = original.clone()
            op.location = original.location
            Rewriter.insert_op(op, InsertPoint.before(end))
        op.operands = [latest.value(o, InsertPoint.before(end)) for o in operands[original]]
        latest.values.update(zip(original.results, op.results, strict=True))
        ops[op] = None
    reorder(function, list(ops))


class _Latest:
    """What each value of the function without repetitions is by now."""

    def __init__(self, repeated: set[Operation]) -> None:
        self.repeated = repeated
        """Operations that are repeated themselves where they must be."""
        self.values: dict[SSAValue, SSAValue] = {}
        self._views: dict[tuple[SSAValue, SSAValue], SSAValue] = {}

    def value(self, original: SSAValue, point: InsertPoint) -> SSAValue:
        """The latest of `original`; a view of what was made again is made again as well."""
        if not isinstance(original, OpResult) or original.op in self.repeated:
            return self.values.get(original, original)
        view = original.op
        if not isinstance(view, nn.ReshapeOp | nn.SliceOp):
            return original
        source = self.value(view.x, point)
        if source is view.x:
            return original
        if (original, source) not in self._views:
            copy = view.clone()
            copy.location = view.location
            Rewriter.insert_op(copy, point)
            copy.operands = [source]
            self._views[original, source] = copy.y
        return self._views[original, source]
