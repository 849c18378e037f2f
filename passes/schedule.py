"""`schedule`: orders the operations of each function for the least memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import networkx as nx
from xdsl.context import Context
from xdsl.dialects.builtin import IntegerAttr, ModuleOp, i64
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, OpResult
from xdsl.passes import ModulePass

from niwaki.backends.targets import Target, get_target
from niwaki.ir.dialects import train
from niwaki.ir.errors import UsageError
from niwaki.passes.arenas.problem import align
from niwaki.passes.bufferize import BufferProgram, Call, bufferize, storage_readers
from niwaki.passes.functions import functions
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.orders.bound import lower_bound
from niwaki.passes.orders.exact import ExactOrder, exact_order
from niwaki.passes.orders.greedy import best_greedy_order
from niwaki.passes.orders.problem import Node, ScheduleProblem
from niwaki.passes.storage_layout import StorageLayout
from niwaki.passes.views import Allocation

ORDER_BOUND = "order_bound"
"""Attribute of a scheduled function: bytes that every order keeps live at some operation."""

SEARCH_NODES = 100_000
"""About a second for a thousand operations."""


@dataclass(frozen=True)
class SchedulePass(ModulePass):
    """Reorders every block; the updates move to where their gradients are complete.

    Each function then says in ORDER_BOUND what no order of its operations can undercut.

    Raises UsageError if `order` or `target` is unknown, or `nodes` is negative.
    """

    name = "schedule"

    order: str = "exact"
    """greedy (never worse than the source order), exact (never worse than greedy) or source."""
    nodes: int = SEARCH_NODES
    """What exact may spend beyond greedy on each function, in search nodes."""
    target: str = "x86-64"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        schedule(op, get_target(self.target), self.order, self.nodes)


def schedule(
    module: ModuleOp, target: Target, order: str = "exact", nodes: int = SEARCH_NODES
) -> None:
    """Orders every function of `module` for `target`; see SchedulePass."""
    if order not in ("exact", "greedy", "source"):
        raise UsageError(f"unknown order '{order}': use exact, greedy or source")
    if nodes < 0:
        raise UsageError(f"nodes is {nodes}: a search takes 0 search nodes or more")
    library = KernelLibrary(target)
    layout = StorageLayout(module, library)
    for function in functions(module):
        problem, calls = schedule_problem(function, layout, library)
        if order != "source":
            best = _best_order(problem, nodes if order == "exact" else 0)
            calls = [calls[number] for number in best.order]
            function.attributes[ORDER_BOUND] = IntegerAttr(best.bound, i64)
        reorder(function, [call.op for call in calls])


def _best_order(problem: ScheduleProblem, max_nodes: int) -> ExactOrder:
    start = best_greedy_order(problem)
    return exact_order(problem, start, lower_bound(problem, start), max_nodes)


def schedule_problem(
    function: FuncOp, layout: StorageLayout, library: KernelLibrary
) -> tuple[ScheduleProblem, list[Call]]:
    """The order problem of `function`, and the call of each node.

    The nodes are in the valid order nearest to that of the block. Copies into outputs are no
    nodes: they come last in any order and use no arena.
    """
    dependences = _Dependences(function)
    program = bufferize(function, layout, library, dependences.may_overwrite)
    ordered = _ordered_calls(program, dependences)
    return _problem(ordered, library.target.alignment), [call for call, _ in ordered]


class _Dependences:
    """Who must run before whom, beyond the flow of data: readers before what overwrites."""

    def __init__(self, function: FuncOp) -> None:
        self.readers = storage_readers(function)
        self.overwrites: list[tuple[Operation, str]] = []
        """Operations that compute a new value in place of the old one, and its name."""
        self._overwriters_after: dict[Operation, list[Operation]] = {}

    def may_overwrite(self, producer: Operation, name: str) -> bool:
        """Whether all other readers of `name` can run before `producer`; if so, they will."""
        readers = [r for r in self.readers.get(name, []) if r is not producer]
        if self._reaches(producer, set(readers)):
            return False
        self.overwrites.append((producer, name))
        for reader in readers:
            self._overwriters_after.setdefault(reader, []).append(producer)
        return True

    def _reaches(self, start: Operation, ends: set[Operation]) -> bool:
        """Whether one of `ends` must run after `start`."""
        seen = {start}
        pending = [start]
        while pending and ends:
            op = pending.pop()
            users = [use.operation for result in op.results for use in result.uses]
            for successor in (*users, *self._overwriters_after.get(op, ())):
                if successor in ends:
                    return True
                if successor not in seen:
                    seen.add(successor)
                    pending.append(successor)
        return False


def _ordered_calls(
    program: BufferProgram, dependences: _Dependences
) -> list[tuple[Call, set[int]]]:
    """Calls nearest to the source order that respects reads before writes, with predecessors."""
    calls = [call for call in program.calls if not isinstance(call.op, ReturnOp)]
    number_of = {call.op: i for i, call in enumerate(calls)}
    copies = [
        (op, train.storage_of(op.target).key) for op in number_of if isinstance(op, train.AssignOp)
    ]
    edges = [(p, i) for i, call in enumerate(calls) for p in call.predecessors]
    edges += [
        (number_of[reader], number_of[op])
        for op, name in (*dependences.overwrites, *copies)
        for reader in dependences.readers.get(name, ())
        if reader in number_of and reader is not op
    ]
    edges += _joint_writes(calls)
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(calls)))
    graph.add_edges_from(edges)
    order = list(nx.lexicographical_topological_sort(graph))
    rank = {number: i for i, number in enumerate(order)}
    return [(calls[n], {rank[p] for p in graph.predecessors(n)}) for n in order]


def _joint_writes(calls: Sequence[Call]) -> list[tuple[int, int]]:
    """Calls that write parts of one buffer, in their order: the first one makes it live."""
    last: dict[Allocation, int] = {}
    edges: list[tuple[int, int]] = []
    for number, call in enumerate(calls):
        for buffer in {v.allocation: None for v in call.writes if v.allocation.in_arena}:
            if buffer in last:
                edges.append((last[buffer], number))
            last[buffer] = number
    return edges


def _problem(ordered: Sequence[tuple[Call, set[int]]], alignment: int) -> ScheduleProblem:
    sizes: list[int] = []
    numbers: dict[Allocation, int] = {}
    nodes: list[Node] = []
    for call, predecessors in ordered:
        new = len(sizes)
        for view in call.writes:
            if view.allocation.in_arena and view.allocation not in numbers:
                numbers[view.allocation] = len(sizes)
                sizes.append(align(view.allocation.size, alignment))
        touched, written = (
            tuple(dict.fromkeys(numbers[v.allocation] for v in views if v.allocation.in_arena))
            for views in ((*call.reads, *call.writes), call.writes)
        )
        # A buffer that an earlier call has begun to fill is kept, as if it were read.
        reads = tuple(b for b in touched if b < new)
        writes = tuple(b for b in written if b >= new)
        in_place = tuple(
            (numbers[call.reads[r].allocation], numbers[call.writes[w].allocation])
            for r, w in call.in_place
        )
        workspace = align(call.kernel.spec.workspace, alignment)
        nodes.append(Node(tuple(sorted(predecessors)), reads, writes, in_place, workspace))
    return ScheduleProblem(tuple(nodes), tuple(sizes))


def reorder(function: FuncOp, ops: Sequence[Operation]) -> None:
    """Puts `ops`, those with a call, in this order, each followed by its views and assignments.

    Parameters, state, constants and views of them come first, the return comes last.
    """
    block = function.body.block
    position = {op: i for i, op in enumerate(ops)}
    last = len(ops)
    keys = {op: (i, False) for op, i in position.items()}
    for op in block.ops:
        if op not in position:
            producers = [o.op for o in op.operands if isinstance(o, OpResult)]
            behind = max((keys[p][0] for p in producers), default=-1)
            keys[op] = (last if isinstance(op, ReturnOp) else behind, True)
    ordered = sorted(block.ops, key=keys.__getitem__)
    for op in ordered:
        op.detach()
    block.add_ops(ordered)
