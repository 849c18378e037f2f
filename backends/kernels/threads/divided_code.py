"""The code of a divided kernel."""

from collections.abc import Iterable, Sequence

from xdsl.dialects import func, scf
from xdsl.dialects.builtin import IndexType
from xdsl.ir import Block, Operation, Region, SSAValue

from niwaki.backends.kernels.threads.part_code import PartCode
from niwaki.backends.kernels.threads.sections import Divided, Item, Opened, Section
from niwaki.backends.kernels.threads.units import Taken, is_divisible, iterations


def write(function: func.FuncOp, items: Sequence[Item], taken: Taken, parts: int) -> func.FuncOp:
    """`function` as `items` say, its parallel sections as `kernel.parallel`."""
    old = function.body.block
    block = Block(arg_types=old.arg_types)
    writer = _Writer(taken, parts, dict(zip(old.args, block.args, strict=True)))
    writer.items(old, items, block)
    block.add_op(func.ReturnOp())
    name = function.sym_name.data
    return func.FuncOp.from_region(name, list(block.arg_types), [], Region(block))


class _Writer:
    def __init__(self, taken: Taken, parts: int, copies: dict[SSAValue, SSAValue]) -> None:
        self._taken = taken
        self._parts = parts
        self._copies = copies
        self._known = list(copies)
        """What parts are given: the arguments and the variables of opened loops."""
        self._ambient: list[Operation] = []
        """What they compute from it first."""

    def items(self, old: Block, items: Sequence[Item], block: Block) -> None:
        """Appends the copy of the block `old` to `block`."""
        ambient = self._taken.body(old).ambient
        self._copy(ambient, block)
        self._ambient += ambient
        for item in items:
            if isinstance(item, Opened):
                self._opened(item, block)
            elif item.parallel:
                block.add_op(self._parallel(item))
            else:
                self._copy((op for d in item.units for op in d.unit.ops), block)
        del self._ambient[len(self._ambient) - len(ambient) :]

    def _copy(self, ops: Iterable[Operation], block: Block) -> None:
        block.add_ops([op.clone(self._copies) for op in ops])

    def _opened(self, item: Opened, block: Block) -> None:
        old, inner = item.loop.body.block, Block(arg_types=[IndexType()])
        self._copies[old.args[0]] = inner.args[0]
        self._known.append(old.args[0])
        self.items(old, item.items, inner)
        self._known.pop()
        inner.add_op(scf.YieldOp())
        start, stop, step = (self._copies[v] for v in (item.loop.lb, item.loop.ub, item.loop.step))
        block.add_op(scf.ForOp(start, stop, step, [], Region(inner)))

    def _parallel(self, section: Section) -> Operation:
        scratch = self._taken.memory.scratch
        code = PartCode(self._known, scratch, section.private, self._parts)
        code.copy(self._ambient)
        for divided in section.units:
            self._unit(code, divided)
        return code.finish([self._copies[v] for v in self._known])

    def _unit(self, code: PartCode, divided: Divided) -> None:
        loop, depth = divided.unit.loop, divided.depth
        if loop is None or depth is None or (depth == 0 and not is_divisible(loop)):
            code.in_last_part(divided.unit.ops)
            return
        if depth == 0:
            code.divided(loop, iterations(loop, self._taken.accesses))
            return
        body = self._taken.body(loop.body.block)

        def inside() -> None:
            code.copy(body.ambient)
            for unit in body.units:
                self._unit(code, Divided(unit, depth - 1))

        code.whole(loop, inside)
