"""`micro-batch`: repeats a training step of a part of the batch, and adds the gradients up."""

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
from niwaki.passes.functions import find_function
from niwaki.passes.training_mode import STEP_COUNTER

_ONCE = (*train.WRITES, train.ClipByNormOp, ReturnOp)
"""Operations that see the gradients of the whole batch."""


@dataclass(frozen=True)
class MicroBatchPass(ModulePass):
    """@train_step takes `count` times its batch: forward and backward run once for each part.

    Between `autodiff` and `expand-updates`. Losses and gradients are means over samples, so those
    of the whole batch are the means of the parts'. The update runs once. Each part drops other
    elements in dropout.

    The parts follow each other in one block instead of a loop: a plan is a list of calls, and
    equal operations share their kernels, so that only the calls repeat. The last part makes the
    updates where `autodiff` put them, and the sum of the earlier gradients goes into the kernel
    that makes the last one.
    """

    name = "micro-batch"

    count: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        function = find_function(op, "train_step", "run build-training first")
        if self.count > 1:
            _MicroBatch(function, self.count).run()


class _MicroBatch:
    def __init__(self, function: FuncOp, count: int) -> None:
        self.function = function
        self.block: Block = function.body.block
        self.count = count
        self.sums: dict[SSAValue, SSAValue] = {}
        """Gradient (or loss) of the last part -> sum over the parts so far."""

    def run(self) -> None:
        """Rewrites the function."""
        part = _depends_on_batch(self.block)
        totals = {v: None for v in _seen_once(self.block) if v.owner in part}
        shared = [op for op in self.block.ops if op not in part and not isinstance(op, _ONCE)]
        _move_to_start(self.block, shared)
        arguments = self._widen_arguments()
        first = next(iter(part))
        self._advance_counter()
        for number in range(self.count):
            b = Builder.before(first)
            local = self._slices(b, arguments, number)
            if number == self.count - 1:
                self._last_part(part, totals, local, number)
            else:
                self._early_part(b, part, totals, local, number)
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
        self,
        b: Builder,
        part: dict[Operation, None],
        totals: dict[SSAValue, None],
        local: dict[SSAValue, SSAValue],
        number: int,
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
                if result in totals:
                    gradient = local[result]
                    before = self.sums.get(result)
                    self.sums[result] = gradient if before is None else b.add(gradient, before)

    def _last_part(
        self,
        part: dict[Operation, None],
        totals: dict[SSAValue, None],
        local: dict[SSAValue, SSAValue],
        number: int,
    ) -> None:
        for op in part:
            op.operands = [local.get(o, o) for o in op.operands]
            _shift_counter(op, number)
            for result in op.results:
                if result in totals:
                    b = Builder(InsertPoint.after(op), op.location)
                    mean = b.scale(b.add(result, self.sums[result]), 1.0 / self.count)
                    result.replace_uses_with_if(mean, lambda use: isinstance(use.operation, _ONCE))

    def _advance_counter(self) -> None:
        """The counter of steps counts the parts: each gets a number of its own."""
        for op in self.block.ops:
            if isinstance(op, train.AssignOp) and train.storage_of(op.target).key == STEP_COUNTER:
                b = Builder.before(op)
                op.operands = [op.target, b.add(op.target, b.constant(self.count, (), i32))]


def _depends_on_batch(block: Block) -> dict[Operation, None]:
    """What has to be computed for each part."""
    dependent = {a for a in block.args if shape_of(a)}
    part: dict[Operation, None] = {}
    for op in block.ops:
        if not isinstance(op, _ONCE) and any(o in dependent for o in op.operands):
            part[op] = None
            dependent.update(op.results)
    return part


def _seen_once(block: Block) -> list[SSAValue]:
    """Gradients, and the loss."""
    values: list[SSAValue] = []
    for op in block.ops:
        match op:
            case train.SgdOp() | train.AdamOp():
                values.append(op.gradient)
            case train.ClipByNormOp() | ReturnOp():
                values += op.operands
            case _:
                pass
    return values


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
