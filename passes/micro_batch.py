"""`micro-batch`: repeats the work on a part of the batch, and puts the results together."""

from collections.abc import Iterable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import i32, shape_of, tensor, type_of
from niwaki.passes.functions import functions
from niwaki.passes.training_mode import STEP_COUNTER

_ONCE = (*train.WRITES, train.ClipByNormOp, ReturnOp)
"""Operations that see the gradients of the whole batch."""


@dataclass(frozen=True)
class MicroBatchPass(ModulePass):
    """Every function takes `count` times its batch, and runs once for each part.

    Between `autodiff` and `expand-updates`, after `split-batch`. Losses and gradients are means
    over samples, so those of the whole batch are the means of the parts'; counts are added, other
    results joined. The update runs once. Each part drops other elements in dropout.

    The parts follow each other in one block instead of a loop: a plan is a list of calls, and
    equal operations share their kernels, so that only the calls repeat. The last part makes the
    updates where `autodiff` put them, and the sum of the earlier gradients goes into the kernel
    that makes the last one.
    """

    name = "micro-batch"

    count: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            _MicroBatch(function, self.count).run()


class _MicroBatch:
    def __init__(self, function: FuncOp, count: int) -> None:
        self.function = function
        self.block: Block = function.body.block
        self.count = count
        self.added: dict[SSAValue, None] = {}
        """What is summed over the parts, as the last part makes it."""
        self.sums: dict[SSAValue, SSAValue] = {}
        """Gradient, loss or count of the last part -> sum over the parts so far."""
        self.rows: dict[SSAValue, list[SSAValue]] = {}
        """Output of the last part -> those of all parts so far."""

    def run(self) -> None:
        """Rewrites the function."""
        part = _depends_on_batch(self.block)
        for value in _added(self.block):
            if value.owner in part:
                self.added[value] = None
        for value in _joined(self.block):
            if value.owner in part:
                self.rows[value] = []
        shared = [op for op in self.block.ops if op not in part and not isinstance(op, _ONCE)]
        _move_to_start(self.block, shared)
        arguments = self._widen_arguments()
        first = next(iter(part))
        self._advance_counter()
        for number in range(self.count):
            b = Builder.before(first)
            local = self._slices(b, arguments, number)
            if number == self.count - 1:
                self._last_part(part, local, number)
            else:
                self._early_part(b, part, local, number)
        self.function.update_function_type()

    def _widen_arguments(self) -> list[SSAValue]:
        """Gives the arguments the whole batch; returns those that have one."""
        wide: list[SSAValue] = []
        for argument in [a for a in self.block.args if shape_of(a)]:
            rows, *rest = shape_of(argument)
            kind = tensor((rows * self.count, *rest), type_of(argument).element_type)
            wide.append(Rewriter.replace_value_with_new_type(argument, kind))
        return wide

    def _slices(
        self, b: Builder, arguments: list[SSAValue], number: int
    ) -> dict[SSAValue, SSAValue]:
        """Each argument -> its rows of part `number`."""
        local: dict[SSAValue, SSAValue] = {}
        for argument in arguments:
            rows, *rest = shape_of(argument)
            rows //= self.count
            starts = [number * rows] + [0] * len(rest)
            local[argument] = b.slice(argument, starts, (rows, *rest))
        return local

    def _early_part(
        self, b: Builder, part: Iterable[Operation], local: dict[SSAValue, SSAValue], number: int
    ) -> None:
        for op in part:
            b.location = op.location
            copy = op.clone()
            copy.location = op.location
            b.insert(copy)
            copy.operands = [local.get(o, o) for o in op.operands]
            local.update(zip(op.results, copy.results, strict=True))
            _shift_counter(copy, number)
            for result in op.results:
                self._collect(b, result, local[result])

    def _collect(self, b: Builder, result: SSAValue, value: SSAValue) -> SSAValue | None:
        """Takes `value` of one part to those of the parts before; None if nobody wants it."""
        if result in self.rows:
            self.rows[result].append(value)
        if result not in self.added:
            return None
        before = self.sums.get(result)
        self.sums[result] = value if before is None else b.add(value, before)
        return self.sums[result]

    def _last_part(
        self, part: Iterable[Operation], local: dict[SSAValue, SSAValue], number: int
    ) -> None:
        for op in part:
            op.operands = [local.get(o, o) for o in op.operands]
            _shift_counter(op, number)
            b = Builder(InsertPoint.after(op), op.location)
            for result in op.results:
                total = self._collect(b, result, result)
                if total is not None:
                    _replace_once(result, self._mean(b, total))
        for result, parts in self.rows.items():
            assert self.block.last_op is not None
            _replace_once(result, Builder.before(self.block.last_op).concat(parts, 0))

    def _mean(self, b: Builder, total: SSAValue) -> SSAValue:
        """Of what is a mean over samples; a count stays a sum."""
        return total if type_of(total).element_type == i32 else b.scale(total, 1.0 / self.count)

    def _advance_counter(self) -> None:
        """The counter of steps counts the parts: each gets a number of its own."""
        for op in self.block.ops:
            if isinstance(op, train.AssignOp) and train.storage_of(op.target).key == STEP_COUNTER:
                b = Builder.before(op)
                op.operands = [op.target, b.add(op.target, b.constant(self.count, (), i32))]


def _depends_on_batch(block: Block) -> dict[Operation, None]:
    """What has to be computed for each part."""
    dependent: set[SSAValue] = {a for a in block.args if shape_of(a)}
    part: dict[Operation, None] = {}
    for op in block.ops:
        if not isinstance(op, _ONCE) and any(o in dependent for o in op.operands):
            part[op] = None
            dependent.update(op.results)
    return part


def _added(block: Block) -> list[SSAValue]:
    """Gradients, losses and counts: what the parts contribute to a sum."""
    values: list[SSAValue] = []
    for op in block.ops:
        match op:
            case train.SgdOp() | train.AdamOp():
                values.append(op.gradient)
            case train.ClipByNormOp():
                values += op.operands
            case ReturnOp():
                values += [v for v in op.operands if not shape_of(v)]
            case _:
                pass
    return values


def _joined(block: Block) -> list[SSAValue]:
    """Outputs with a row for each sample."""
    assert block.last_op is not None
    return [v for v in block.last_op.operands if shape_of(v)]


def _replace_once(result: SSAValue, new: SSAValue) -> None:
    """Lets what sees the whole batch read `new`."""
    result.replace_uses_with_if(new, lambda use: isinstance(use.operation, _ONCE))


def _move_to_start(block: Block, ops: list[Operation]) -> None:
    for op in ops:
        op.detach()
    assert block.first_op is not None
    block.insert_ops_before(ops, block.first_op)


def _shift_counter(op: Operation, number: int) -> None:
    if isinstance(op, nn.RandomMaskOp) and number > 0:
        b = Builder.before(op)
        counter = b.add(op.operands[1], b.constant(number, (), i32))
        op.operands = [op.operands[0], counter]
