"""`recompute-elementwise`: makes activations again from what is kept anyway."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation, OpResult, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import shape_of, tensor_bytes, type_of
from niwaki.passes.dependences import is_fusable_elementwise
from niwaki.passes.functions import functions
from niwaki.passes.product_flops import product_flops

PRODUCT_SHARE = 64
"""How many times the operations and bytes of an activation the products have that read it again."""
PRODUCT_COST = 64
"""Operations, at most, for each byte of an activation that takes a product to make again."""
SMALL = 8
"""An operand of an eighth of the result's bytes is kept instead of the result."""


@dataclass(frozen=True)
class _Repeat:
    """How a value can be made again."""

    work: int
    """Operations of it and what leads to it; 0 where it is made again for its own sake."""
    product: bool
    """Whether these operations include a product."""
    deadline: int
    """Position of the first operation that overwrites something it is made of."""


@dataclass(frozen=True)
class RecomputeElementwisePass(ModulePass):
    """Lets the backward pass of @train_step read its own copy of elementwise activations.

    Between `dce` and `fuse`. A copy is made only of activations whose operands the backward pass
    keeps for something else, or computes again as well: an activation function beside its input,
    the result of a norm beside the centred input. Where products read it, it must be cheap beside
    them. The probabilities of attention are made again as well, from the queries and keys and what
    the softmax found of each row: a product of two activations may be repeated if it takes few
    operations for the bytes it saves. Results stay the same bit for bit.
    """

    name = "recompute-elementwise"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for function in functions(op):
            if function.sym_name.data == "train_step":
                recompute_elementwise(function)


def recompute_elementwise(function: FuncOp) -> None:
    """What the pass does to one function whose first result is the loss."""
    block = function.body.block
    assert block.last_op is not None
    loss = block.last_op.operands[0]
    if not isinstance(loss, OpResult):
        return
    ops = list(block.ops)
    boundary = ops.index(loss.op) + 1
    chosen = _Choice(ops, boundary).values
    copies = _Copies(chosen)
    for op in ops[boundary:]:
        op.operands = [copies.of(value, op) for value in op.operands]
    for op in reversed(ops[:boundary]):
        if op.results and op.results[0] in chosen and not any(r.uses for r in op.results):
            Rewriter.erase_op(op)


class _Choice:
    """Which values the operations behind `boundary` shall make again."""

    def __init__(self, ops: list[Operation], boundary: int) -> None:
        self.position = {op: i for i, op in enumerate(ops)}
        self.boundary = boundary
        self.written = _first_writes(ops)
        self.values: dict[SSAValue, _Repeat] = {}
        """Those, and what leads to them from values that are there behind the boundary."""
        for op in ops[:boundary]:
            if isinstance(op, nn.ReshapeOp):
                if op.x in self.values:
                    self.values[op.y] = self.values[op.x]
            elif is_fusable_elementwise(op) and not isinstance(op, nn.RandomUniformOp):
                self._consider(op, type_of(op.results[0]).element_count())
            elif isinstance(op, nn.MatmulOp) and not any(map(_is_stored, op.operands)):
                self._consider(op, product_flops(op))

    def _consider(self, op: Operation, work: int) -> None:
        """Chooses the result of `op` if it is worth it, or perhaps leads to one that is."""
        (result,) = op.results
        product, deadline = isinstance(op, nn.MatmulOp), len(self.position)
        for operand in op.operands:
            if operand in self.values:
                repeat = self.values[operand]
                work, deadline = work + repeat.work, min(deadline, repeat.deadline)
                product = product or repeat.product
            elif isinstance(operand, OpResult) and isinstance(operand.op, train.Storage):
                deadline = min(deadline, self.written.get(operand.op.key, deadline))
            elif not self._is_there(operand, result):
                return
        readers = self._late_readers(result)
        if not readers:
            self.values[result] = _Repeat(work, product, deadline)
            return
        if product:
            cheap = work <= PRODUCT_COST * tensor_bytes(type_of(result))
        else:
            cheap = _is_cheap(work + _bytes_moved(op), readers)
        if cheap and self.position[readers[-1]] < deadline:
            self.values[result] = _Repeat(0, False, deadline)

    def _is_there(self, operand: SSAValue, result: SSAValue) -> bool:
        """Whether `operand` is kept anyway, or takes far less than `result`."""
        if not isinstance(operand, OpResult) or isinstance(operand.op, nn.ConstantOp):
            return True
        size, saved = (tensor_bytes(type_of(v)) for v in (operand, result))
        return SMALL * size <= saved or (size <= saved and bool(self._late_readers(operand)))

    def _late_readers(self, value: SSAValue) -> list[Operation]:
        """What reads `value`, or a view of it, behind the boundary, in order."""
        readers: dict[Operation, None] = {}
        pending = [value]
        while pending:
            for use in pending.pop().uses:
                if isinstance(use.operation, nn.ReshapeOp):
                    pending += use.operation.results
                elif self.position[use.operation] >= self.boundary:
                    readers[use.operation] = None
        return sorted(readers, key=self.position.__getitem__)


def _is_stored(value: SSAValue) -> bool:
    """Whether `value` is a parameter or state."""
    return isinstance(value, OpResult) and isinstance(value.op, train.Storage)


def _bytes_moved(op: Operation) -> int:
    """Of operands and result."""
    return sum(tensor_bytes(type_of(v)) for v in (*op.operands, *op.results) if shape_of(v))


def _is_cheap(cost: int, readers: list[Operation]) -> bool:
    """Elementwise readers and reductions take the operation into their kernels."""
    products = [r for r in readers if not isinstance(r, nn.Elementwise | nn.Reduction)]
    flops = [product_flops(r) for r in products]
    return all(flops) and (not flops or sum(flops) >= PRODUCT_SHARE * cost)


def _first_writes(ops: list[Operation]) -> Mapping[str, int]:
    """Parameter or state -> position of the first operation that writes it."""
    found: dict[str, int] = {}
    for position, op in enumerate(ops):
        if isinstance(op, train.WRITES):
            for target in train.written(op):
                found.setdefault(train.storage_of(target).key, position)
    return found


class _Copies:
    """Copies of chosen values, each made before the first operation that needs it."""

    def __init__(self, chosen: Collection[SSAValue]) -> None:
        self.chosen = chosen
        self.made: dict[SSAValue, SSAValue] = {}

    def of(self, value: SSAValue, reader: Operation) -> SSAValue:
        """The copy of `value`; itself if it was not chosen."""
        if value not in self.chosen:
            return value
        if value not in self.made:
            assert isinstance(value, OpResult)
            copy = value.op.clone()
            copy.location = value.op.location
            copy.operands = [self.of(operand, reader) for operand in value.op.operands]
            Rewriter.insert_op(copy, InsertPoint.before(reader))
            self.made[value] = copy.results[0]
        return self.made[value]
