"""What xDSL's verifier leaves out: SSA dominance, and reads after writes of persistent storage."""

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.dialects import nn, train

_ALIASES = (nn.ReshapeOp, nn.SliceOp, nn.CodesOp)
"""Operations whose result may share memory with their operand's storage."""


def storage_read(value: SSAValue) -> train.Storage | None:
    """The parameter or state whose memory `value` is, or may be, a view of."""
    while isinstance(value, OpResult):
        if isinstance(value.op, train.Storage):
            return value.op
        if not isinstance(value.op, _ALIASES):
            return None
        value = value.op.operands[0]
    return None


def verify_order(module: ModuleOp) -> None:
    """Checks dominance and effect order in every block; VerifyException on the first fault."""
    for op in module.walk():
        for region in op.regions:
            for block in region.blocks:
                _verify_block(block)


def _verify_block(block: Block) -> None:
    position = {op: i for i, op in enumerate(block.ops)}
    written: dict[str, Operation] = {}
    for op in block.ops:
        for operand in op.operands:
            _check_dominance(op, operand, position)
            storage = storage_read(operand)
            if storage is not None and storage.key in written:
                raise VerifyException(
                    f"'{op.name}' uses '{storage.key}' after '{written[storage.key].name}' wrote it"
                )
        if isinstance(op, train.WRITES):
            for target in train.written(op):
                written[train.storage_of(target).key] = op


def _check_dominance(op: Operation, operand: SSAValue, position: dict[Operation, int]) -> None:
    if isinstance(operand, OpResult) and operand.op in position:
        if position[operand.op] >= position[op]:
            raise VerifyException(f"'{op.name}' uses a value before it is defined")
        return
    ancestor = op.parent_block()
    definition = operand.owner
    owner = definition if isinstance(definition, Block) else definition.parent
    while ancestor is not None and ancestor is not owner:
        parent = ancestor.parent_op()
        ancestor = None if parent is None else parent.parent
    if ancestor is None:
        raise VerifyException(f"'{op.name}' uses a value that is not visible here")


def verify(module: ModuleOp) -> None:
    """The whole verifier: xDSL's (operations, types) and `verify_order`."""
    module.verify()
    verify_order(module)
