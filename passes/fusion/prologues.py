"""Gives an operation its own copy of a cheap elementwise operand that others read as well.

The copy becomes part of the reader's kernel; without it the whole operand would be written to
memory and read back: the variance of a batch norm before its reduction, or f32 that is kept with
fewer bits.
"""

from collections.abc import Iterator, Mapping

from xdsl.ir import Block, Operation, OpResult, SSAValue

from niwaki.ir.builder import Builder
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import NARROW, f32, shape_of, tensor_bytes, type_of
from niwaki.passes.dependences import is_fusable_elementwise


def duplicate_prologues(block: Block) -> None:
    """Copies operations whose operands are in memory anyway and take no more of it."""
    for op in reversed(list(block.ops)):
        if _widens(op):
            _give_each_reader_its_own(op)
    position = {op: number for number, op in enumerate(block.ops)}
    for op in list(block.ops):
        if isinstance(op, nn.Reduction):
            _duplicate(op, position)


def _widens(op: Operation) -> bool:
    """Whether `op` makes f32 of narrow elements; with a scale behind it, if they have one."""
    match op:
        case nn.CastOp():
            return type_of(op.x).element_type in NARROW and type_of(op.y).element_type == f32
        case nn.MulOp(a=OpResult(op=nn.CastOp() as cast)):
            return shape_of(op.b) == () and _widens(cast)
        case _:
            return False


def _give_each_reader_its_own(op: Operation) -> None:
    (result,) = op.results
    readers = dict.fromkeys(use.operation for use in result.uses)
    for reader in list(readers)[1:]:
        copy = _copy_before(op, reader)
        reader.operands = [copy if o is result else o for o in reader.operands]


def _copy_before(op: Operation, reader: Operation) -> OpResult:
    copy = Builder.before(reader).insert(op.clone())
    copy.location = op.location
    return copy.results[0]


def _duplicate(reduction: nn.Reduction, position: dict[Operation, int]) -> None:
    shape = shape_of(reduction.x)
    pending: list[Operation] = [reduction]
    while pending:
        consumer = pending.pop()
        for operand in dict.fromkeys(consumer.operands):
            producer = operand.op if isinstance(operand, OpResult) else None
            if producer is None or not _is_prologue(producer, shape):
                continue
            if all(use.operation is consumer for use in operand.uses):
                pending.append(producer)
            elif _is_worth_copying(producer, shape) and not _outlives(producer, shape, position):
                copy = _copy_before(producer, consumer)
                position[copy.op] = position[consumer]
                consumer.operands = [copy if o is operand else o for o in consumer.operands]


def _is_prologue(op: Operation, shape: tuple[int, ...]) -> bool:
    return is_fusable_elementwise(op) and shape_of(op.results[0]) == shape


def _is_worth_copying(op: Operation, shape: tuple[int, ...]) -> bool:
    if isinstance(op, nn.TRANSCENDENTAL) or not all(_is_in_memory(o, shape) for o in op.operands):
        return False
    activations = [o for o in op.operands if not _is_kept_anyway(o)]
    read = sum(tensor_bytes(type_of(o)) for o in activations if shape_of(o) == shape)
    return read <= tensor_bytes(type_of(op.results[0]))


def _outlives(op: Operation, shape: tuple[int, ...], position: Mapping[Operation, int]) -> bool:
    """Whether the result of `op` must be in memory at a time when nothing else needs an operand.

    A copy would keep that operand too: the exponentials of a softmax, for one.
    """
    held = max((position[reader] for reader in _keepers(op, shape)), default=-1)
    return any(
        held > max(position[use.operation] for use in operand.uses)
        for operand in op.operands
        if not _is_kept_anyway(operand) and shape_of(operand) == shape
    )


def _keepers(op: Operation, shape: tuple[int, ...]) -> Iterator[Operation]:
    """Readers of the result of `op` that no fusion spares from reading it in memory."""
    for use in op.results[0].uses:
        reader = use.operation
        if not isinstance(reader, nn.Reduction) and not _is_prologue(reader, shape):
            yield reader


def _is_kept_anyway(value: SSAValue) -> bool:
    return not isinstance(value, OpResult) or isinstance(value.op, train.Storage | nn.ConstantOp)


def _is_in_memory(value: SSAValue, shape: tuple[int, ...]) -> bool:
    """Whether no fusion of elementwise operations of `shape` could keep `value` in registers."""
    return (
        _is_kept_anyway(value)
        or shape_of(value) != shape
        or not all(_is_prologue(use.operation, shape) for use in value.uses)
    )
