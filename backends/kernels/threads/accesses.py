"""Which bytes of its arguments a kernel loads and stores, as linear forms of its loops."""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects import memref, scf, vector
from xdsl.dialects.builtin import MemRefType, UnrealizedConversionCastOp, VectorType
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Operation, SSAValue

from niwaki.backends.kernels.spec import element_bytes, strides_of
from niwaki.backends.kernels.threads.index_forms import IndexForms, Linear
from niwaki.ir.dialects.kernel import PrefetchOp


@dataclass(frozen=True)
class Access:
    """One load or store."""

    op: Operation
    argument: SSAValue
    """Whose memory it is."""
    start: Linear
    """The first byte, from the start of the argument."""
    size: int
    """Bytes."""
    strides: tuple[int, ...]
    """Bytes, of the dimensions as they are accessed."""
    stores: bool


class AccessesOf:
    """All loads and stores of a kernel, and the forms of its indices."""

    def __init__(self, function: FuncOp) -> None:
        """Raises NotImplementedError if an operation may touch memory in another way."""
        self.forms = IndexForms()
        self.all: list[Access] = []
        """In program order."""
        self._inside: dict[Operation, list[Access]] = {}
        self._storing: set[Operation] = set()
        self._arguments: dict[SSAValue, SSAValue] = {}
        """View of an argument -> the argument."""
        block = function.body.block
        self._arguments.update({a: a for a in block.args if isinstance(a.type, MemRefType)})
        self._walk(block)

    def inside(self, ops: Sequence[Operation]) -> list[Access]:
        """The loads and stores of `ops` and of what they contain, in program order."""
        return [access for op in ops for access in self._inside.get(op, ())]

    def stores(self, op: Operation) -> bool:
        """Whether `op`, or what it contains, stores."""
        return op in self._storing

    def _walk(self, block: Block) -> None:
        for op in block.ops:
            match op:
                case scf.ForOp():
                    self.forms.enter(op)
                    self._walk(op.body.block)
                case scf.IfOp():
                    for region in op.regions:
                        self._walk(region.block)
                case UnrealizedConversionCastOp():
                    self._arguments[op.results[0]] = self._arguments[op.operands[0]]
                case memref.LoadOp() | vector.LoadOp():
                    self._add(op, op.operands[0], op.operands[1:], op.results[0], False)
                case memref.StoreOp() | vector.StoreOp():
                    self._add(op, op.operands[1], op.operands[2:], op.operands[0], True)
                case PrefetchOp():
                    pass  # neither reads nor writes what the program sees
                case _ if any(isinstance(o.type, MemRefType) for o in op.operands):
                    raise NotImplementedError(f"'{op.name}' touches memory")
                case _:
                    self.forms.compute(op)

    def _add(
        self,
        op: Operation,
        ref: SSAValue,
        indices: Sequence[SSAValue],
        value: SSAValue,
        stores: bool,
    ) -> None:
        assert isinstance(ref.type, MemRefType)
        width = element_bytes(ref.type.element_type)
        strides = tuple(width * stride for stride in strides_of(ref.type))
        start = Linear(0)
        for index, stride in zip(indices, strides, strict=True):
            start = start.plus(self.forms.of(index), stride)
        elements = value.type.element_count() if isinstance(value.type, VectorType) else 1
        argument = self._arguments[ref]
        start = self.forms.joined(start)
        access = Access(op, argument, start, elements * width, strides, stores)
        self.all.append(access)
        around: Operation | None = op
        while around is not None:
            self._inside.setdefault(around, []).append(access)
            if stores:
                self._storing.add(around)
            around = around.parent_op()
