"""From tensors to buffers: the kernel calls of a function, and the view behind every value.

Shared by `schedule`, which looks for an order, and `lower-to-plan`, which has one. A result is
written straight into the parameter or state that it is assigned to, or into the output that it
is returned as, where nothing that is still needed is lost; otherwise it is copied there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias

from xdsl.dialects.builtin import MemRefType
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Operation, SSAValue, Use

from niwaki.backends.kernels.spec import KernelSpec, buffer_bytes, is_contiguous, memref_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import Tensor, get_ints, i1, shape_of, type_of
from niwaki.ir.effects import storage_read
from niwaki.ir.errors import UnsupportedOpsError, UsageError
from niwaki.passes.kernel_library import Kernel, KernelLibrary, kind_of, main_operands
from niwaki.passes.storage_layout import StorageLayout
from niwaki.passes.views import Allocation, View

MayOverwrite: TypeAlias = Callable[[Operation, str], bool]
"""(operation, name): whether all other readers of that parameter or state run before it.

Asked last, when nothing else speaks against it: True is final.
"""


@dataclass(frozen=True, eq=False)
class Call:
    """One kernel call."""

    op: Operation
    """The operation that it stands for; train.assign and func.return stand for copies."""
    kernel: Kernel
    reads: tuple[View, ...]
    writes: tuple[View, ...]
    predecessors: tuple[int, ...]
    """Numbers of the calls that write what it reads."""

    @property
    def in_place(self) -> list[tuple[int, int]]:
        """Pairs (read, write) that share memory of the arena if the buffer read dies here."""
        return [(r, w) for r, w in self.kernel.spec.in_place if self._may_share(r, w)]

    def _may_share(self, read: int, write: int) -> bool:
        source, result = self.reads[read].allocation, self.writes[write].allocation
        if not (source.in_arena and result.in_arena and source.size == result.size):
            return False
        if self.reads[read].size != source.size or self.writes[write].size != result.size:
            return False
        allowed = self.kernel.spec.in_place
        return all(
            (r, write) in allowed for r, view in enumerate(self.reads) if view.allocation is source
        )


@dataclass
class BufferProgram:
    """What a function does to memory."""

    arguments: list[View] = field(default_factory=list[View])
    steps: list["View | Call"] = field(default_factory=list["View | Call"])
    """In block order. A view stands where its value begins to hold without being computed:
    parameters, state, constants and aliases."""
    calls: list[Call] = field(default_factory=list[Call])
    """Those of the steps."""
    in_place: set[train.AssignOp] = field(default_factory=set[train.AssignOp])
    """Assignments that the call of their value's producer does."""


def bufferize(
    function: FuncOp, layout: StorageLayout, library: KernelLibrary, may_overwrite: MayOverwrite
) -> BufferProgram:
    """The calls of `function`, a block of `nn` and `train.assign`.

    Raises UsageError for operations of another level, UnsupportedOpsError (all at once) for those
    without a kernel.
    """
    bufferizer = _Bufferizer(function, layout, library, may_overwrite)
    bufferizer.run()
    return bufferizer.program


class _Bufferizer:
    def __init__(
        self,
        function: FuncOp,
        layout: StorageLayout,
        library: KernelLibrary,
        may_overwrite: MayOverwrite,
    ) -> None:
        self.block = function.body.block
        self.layout = layout
        self.library = library
        self.may_overwrite = may_overwrite
        self.program = BufferProgram()
        self.views: dict[SSAValue, View] = {}
        self.writer: dict[SSAValue, int] = {}
        """Value -> number of the call that computes it."""
        self.outputs: dict[int, View] = {}
        """Number of an output -> the view that its producer writes straight into."""
        self.joined: dict[nn.ConcatOp, View] = {}
        """Concatenations that the producers of their operands write into, and the whole."""
        self.unsupported: list[tuple[str, str]] = []

    def run(self) -> None:
        """Fills `program`."""
        for number, argument in enumerate(self.block.args):
            view = _port("input", memref_of(type_of(argument)), number)
            self.views[argument] = view
            self.program.arguments.append(view)
        for op in self.block.ops:
            self._operation(op)
        if self.unsupported:
            raise UnsupportedOpsError(self.unsupported)

    def _operation(self, op: Operation) -> None:
        match op:
            case train.Storage() | nn.ConstantOp():
                self._hold(op.results[0], self.layout.view(op))
            case nn.ReshapeOp():
                self._reshape(op)
            case nn.SliceOp() if self._is_alias(op):
                self._alias(op.y, op.x, self._box(op))
            case nn.ConcatOp() if op in self.joined:
                self._join(op)
            case train.AssignOp():
                self._assign(op)
            case ReturnOp():
                self._return(op)
            case _ if op.name.startswith("nn."):
                self._compute(op)
            case _:
                raise UsageError(
                    f"'{op.name}' at {op.location} cannot be lowered to kernels: "
                    "run autodiff, expand-updates and decompose first"
                )

    # --- values that only look at memory

    def _hold(self, value: SSAValue, view: View) -> None:
        self.views[value] = view
        self.program.steps.append(view)

    def _box(self, op: nn.SliceOp) -> View:
        starts, sizes = (get_ints(op.properties, k) for k in ("starts", "sizes"))
        return self.views[op.x].box(starts, sizes)

    def _is_alias(self, op: nn.SliceOp) -> bool:
        """Whether the slice is a view: of parameters and state, and rows without gaps.

        Of other slices of an activation only a copy of the box is kept.
        """
        if not set(get_ints(op.properties, "steps")) <= {1}:
            return False
        return storage_read(op.x) is not None or (
            not _is_mask(op.x) and self._is_row(self._box(op))
        )

    def _is_row(self, part: View) -> bool:
        """Whether a part of a buffer is without gaps and aligned, as a buffer of its own is."""
        return is_contiguous(part.kind) and part.offset % self.library.target.alignment == 0

    def _join(self, op: nn.ConcatOp) -> None:
        """Copies the operands that their producers could not write into the whole."""
        whole = self.joined[op]
        for number, value in enumerate(op.xs):
            part = _part(op, number, whole)
            if not self.views[value].same_place(part):
                self._copy(op, value, part)
        self._hold(op.y, whole)
        calls = self.program.calls
        self.writer[op.y] = next(
            number
            for number in reversed(range(len(calls)))
            if any(view.allocation is whole.allocation for view in calls[number].writes)
        )

    def _alias(self, value: SSAValue, source: SSAValue, view: View) -> None:
        self._hold(value, view)
        if source in self.writer:
            self.writer[value] = self.writer[source]

    def _reshape(self, op: nn.ReshapeOp) -> None:
        if not _rows_stay_bytes(op):
            self.unsupported.append((op.name, f"{op.location}: masks keep their last dimension"))
        self._make_contiguous(op, op.x)
        self._alias(op.y, op.x, self.views[op.x].reshaped(memref_of(type_of(op.y))))

    # --- calls

    def _compute(self, op: Operation) -> None:
        for value in main_operands(op):
            self._make_contiguous(op, value)
        reads = tuple(self.views[o] for o in op.operands)
        try:
            kernel, writes = self._choose(op, reads)
        except NotImplementedError as error:
            self.unsupported.append((op.name, f"{op.location}: {error}"))
            kernel, writes = None, _results_in_arena(op)
        if isinstance(op, nn.AddRowsOp):
            reads = self._start_from_table(op, reads, writes[0])
        for result, view in zip(op.results, writes, strict=True):
            self.views[result] = view
            self.writer[result] = len(self.program.calls)
        if kernel is not None:
            kernel, reads = self._prepacked(op, kernel, reads)
            self._call(op, kernel, reads, writes, op.operands)

    def _prepacked(
        self, op: Operation, kernel: Kernel, reads: tuple[View, ...]
    ) -> tuple[Kernel, tuple[View, ...]]:
        """The kernel for a packed parameter, and what it reads, where one is stored so."""
        prepacked = kernel.spec.prepacked
        if prepacked is None:
            return kernel, reads
        number = prepacked.operand
        view = self.layout.packed_view(op.operands[number], prepacked.packing)
        if view is None:
            return kernel, reads
        self.program.steps.append(view)
        return self.library.prepacked(kernel), (*reads[:number], view, *reads[number + 1 :])

    def _start_from_table(
        self, op: nn.AddRowsOp, reads: tuple[View, ...], result: View
    ) -> tuple[View, ...]:
        """What `op` reads, with a copy of the table where the result will be if it is not there."""
        if result.same_place(reads[0]):
            return reads
        start = View(result.allocation, result.offset, result.kind)
        self._copy(op, op.table, start)
        self.writer[op.table] = len(self.program.calls) - 1
        return (start, *reads[1:])

    def _make_contiguous(self, op: Operation, value: SSAValue) -> None:
        """Replaces a view with gaps by a copy, for `op` and whatever reads the value after it."""
        if is_contiguous(self.views[value].kind):
            return
        dense = _scratch(type_of(value), value.name_hint or "copy")
        self._copy(op, value, dense)
        self.views[value] = dense
        self.writer[value] = len(self.program.calls) - 1

    def _choose(self, op: Operation, reads: tuple[View, ...]) -> tuple[Kernel, tuple[View, ...]]:
        """The kernel of `op`, and where its results go."""
        writes = _results_in_arena(op)
        kernel = self._kernel(op, reads, writes)
        for number, result in enumerate(op.results):
            for use, through_reshape in _final_uses(result):
                target = self._target(use, through_reshape, writes[number])
                if target is None:
                    continue
                trial = (*writes[:number], target, *writes[number + 1 :])
                same_layout = target.kind == writes[number].kind
                trial_kernel = kernel if same_layout else self._kernel(op, reads, trial)
                if _keeps_reads(trial_kernel.spec, reads, trial) and self._take(use, op, target):
                    kernel, writes = trial_kernel, trial
                    break
        return kernel, writes

    def _target(self, use: Use, through_reshape: bool, result: View) -> View | None:
        """The memory that `use` wants the value in; None if it cannot be written there."""
        op = use.operation
        if isinstance(op, ReturnOp):
            free = use.index not in self.outputs and not _is_mask(op.operands[use.index])
            return _port("output", result.kind, use.index) if free else None
        if isinstance(op, nn.ConcatOp):
            joined = type_of(op.y)
            whole = self.joined.get(op) or _scratch(joined, op.y.name_hint or kind_of(op))
            parts = [_part(op, number, whole) for number in range(len(op.xs))]
            if not all(self._is_row(part) for part in parts):
                return None
            part = parts[use.index]
            return part.reshaped(result.kind) if through_reshape else part
        assert isinstance(op, train.AssignOp)
        box = self._assigned(op)
        if not through_reshape:
            return box
        return box.reshaped(result.kind) if is_contiguous(box.kind) else None

    def _take(self, use: Use, producer: Operation, target: View) -> bool:
        """Lets `producer` write into `target` in place of `use`, if the order allows it."""
        op = use.operation
        if isinstance(op, ReturnOp):
            self.outputs[use.index] = target
            return True
        if isinstance(op, nn.ConcatOp):
            self.joined[op] = View(target.allocation, 0, memref_of(type_of(op.y)))
            return True
        assert isinstance(op, train.AssignOp)
        if not self.may_overwrite(producer, train.storage_of(op.target).key):
            return False
        self.program.in_place.add(op)
        return True

    def _assigned(self, op: train.AssignOp) -> View:
        """The box that `op` writes."""
        sizes = shape_of(op.value)
        return self.layout.view(train.storage_of(op.target)).box([0] * len(sizes), sizes)

    def _assign(self, op: train.AssignOp) -> None:
        if op in self.program.in_place:
            return
        target, source = self._assigned(op), self.views[op.value]
        if source.allocation is target.allocation:
            dense = _scratch(type_of(op.value), "assign")
            self._copy(op, op.value, dense)
            self._call_copy(op, dense, target, (len(self.program.calls) - 1,))
            return
        self._copy(op, op.value, target)

    def _return(self, op: ReturnOp) -> None:
        for number, value in enumerate(op.operands):
            if _is_mask(value):
                self.unsupported.append((op.name, f"output {number} is a mask"))
            elif number not in self.outputs:
                self._copy(op, value, _port("output", memref_of(type_of(value)), number))

    def _copy(self, op: Operation, value: SSAValue, destination: View) -> None:
        predecessors = (self.writer[value],) if value in self.writer else ()
        self._call_copy(op, self.views[value], destination, predecessors)

    def _call_copy(
        self, op: Operation, source: View, destination: View, predecessors: tuple[int, ...]
    ) -> None:
        kernel = self.library.copy(source.kind, destination.kind)
        self._append(Call(op, kernel, (source,), (destination,), predecessors))

    def _kernel(self, op: Operation, reads: Sequence[View], writes: Sequence[View]) -> Kernel:
        return self.library.compute(op, [v.kind for v in reads], [v.kind for v in writes])

    def _call(
        self,
        op: Operation,
        kernel: Kernel,
        reads: tuple[View, ...],
        writes: tuple[View, ...],
        operands: Sequence[SSAValue],
    ) -> None:
        predecessors = dict.fromkeys(self.writer[o] for o in operands if o in self.writer)
        self._append(Call(op, kernel, reads, writes, tuple(predecessors)))

    def _append(self, call: Call) -> None:
        self.program.steps.append(call)
        self.program.calls.append(call)


def storage_readers(function: FuncOp) -> dict[str, list[Operation]]:
    """Name of a parameter or state -> the operations that read its value at the step's start."""
    readers: dict[str, list[Operation]] = {}
    for op in function.body.block.ops:
        if isinstance(op, nn.ReshapeOp | nn.SliceOp) and storage_read(op.x) is not None:
            continue
        for operand in (op.value,) if isinstance(op, train.AssignOp) else op.operands:
            storage = storage_read(operand)
            if storage is not None:
                readers.setdefault(storage.key, []).append(op)
    return readers


def block_order(function: FuncOp) -> MayOverwrite:
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


def _is_mask(value: SSAValue) -> bool:
    return type_of(value).element_type == i1


def _rows_stay_bytes(op: nn.ReshapeOp) -> bool:
    """Whether the memory of a mask stays the same (all other tensors' does)."""
    rows = {shape_of(v)[-1:] or (1,) for v in (op.x, op.y)}
    return not _is_mask(op.x) or len(rows) == 1 or all(row % 8 == 0 for (row,) in rows)


def _port(space: str, kind: MemRefType, number: int) -> View:
    return View(
        Allocation(space, buffer_bytes(kind), index=number, label=f"{space} {number}"), 0, kind
    )


def _scratch(tensor: Tensor, label: str) -> View:
    kind = memref_of(tensor)
    bits = prod(tensor.get_shape()) if tensor.element_type == i1 else 0
    buffer = Allocation("arena", buffer_bytes(kind), label=label, mask_bits=bits)
    return View(buffer, 0, kind)


def _results_in_arena(op: Operation) -> tuple[View, ...]:
    return tuple(_scratch(type_of(r), r.name_hint or kind_of(op)) for r in op.results)


def _final_uses(result: SSAValue) -> list[tuple[Use, bool]]:
    """Assignments of `result`, joins of rows, then returns; and whether through a reshape."""
    found: list[tuple[Use, bool]] = []
    pending = [(use, False) for use in result.uses]
    while pending:
        use, through_reshape = pending.pop()
        match use.operation:
            case nn.ReshapeOp() as reshape:
                pending += [(u, True) for u in reshape.y.uses]
            case train.AssignOp() | ReturnOp():
                found.append((use, through_reshape))
            case nn.ConcatOp() if _joins_rows(use, result):
                found.append((use, through_reshape))
            case _:
                pass
    return sorted(found, key=lambda item: isinstance(item[0].operation, ReturnOp))


def _part(op: nn.ConcatOp, number: int, whole: View) -> View:
    """Where the operand `number` of a concatenation lies in the whole."""
    axis = op.axis.value.data
    starts = [0] * len(shape_of(op.y))
    starts[axis] = sum(shape_of(v)[axis] for v in op.xs[:number])
    return whole.box(starts, shape_of(op.xs[number]))


def _joins_rows(use: Use, result: SSAValue) -> bool:
    """Whether the parts of a concatenation lie one after another in memory, without gaps."""
    op = use.operation
    assert isinstance(op, nn.ConcatOp)
    leading = shape_of(op.y)[: op.axis.value.data]
    single = result.has_one_use() and op.operands[use.index].has_one_use()
    return prod(leading) == 1 and not _is_mask(result) and single


def _keeps_reads(spec: KernelSpec, reads: Sequence[View], writes: Sequence[View]) -> bool:
    """Whether no write destroys what the same call has yet to read."""
    return all(
        read.allocation is not write.allocation
        or ((r, w) in spec.in_place and read.same_place(write))
        for w, write in enumerate(writes)
        for r, read in enumerate(reads)
    )
