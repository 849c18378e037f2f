"""The kernels of a module: chosen once for equal operations at equal layouts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Block, Operation, SSAValue

from niwaki.backends.kernels import movement
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.select import select
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.threads.on_threads import on_threads
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn


@dataclass(frozen=True, eq=False)
class Kernel:
    """One kernel function; compared by identity."""

    kind: str
    """Its main operation, as in "conv2d"."""
    spec: KernelSpec
    key: Hashable
    """What it computes, at which layouts: with the target, this decides the function."""


class KernelLibrary:
    """Gives equal operations the same kernel."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._kernels: dict[Hashable, Kernel] = {}

    def compute(
        self, op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType]
    ) -> Kernel:
        """The kernel of `op` (nn.fused or another operation of `nn`) at these layouts."""
        key = (tuple(operands), tuple(results), _structure(op))
        if key not in self._kernels:
            spec = on_threads(select(op, operands, results, self.target), self.target)
            self._kernels[key] = Kernel(kind_of(op), spec, key)
        return self._kernels[key]

    def prepacked(self, kernel: Kernel) -> Kernel:
        """`kernel`, one that packs an operand, for an operand that comes packed."""
        key = ("prepacked", kernel.key)
        if key not in self._kernels:
            assert kernel.spec.prepacked is not None
            spec = on_threads(kernel.spec.prepacked.spec, self.target)
            self._kernels[key] = Kernel(kernel.kind, spec, key)
        return self._kernels[key]

    def copy(self, source: MemRefType, destination: MemRefType) -> Kernel:
        """The kernel that copies between two layouts of one shape."""
        key = (source, destination)
        if key not in self._kernels:
            spec = on_threads(movement.copy(source, destination, self.target), self.target)
            self._kernels[key] = Kernel("copy", spec, key)
        return self._kernels[key]


def kind_of(op: Operation) -> str:
    """The name of the main operation of a kernel, as in "conv2d"; else "elementwise"."""
    main = Group.of(op).anchor
    return "elementwise" if main is None else main.name.removeprefix("nn.")


def main_operands(op: Operation) -> list[SSAValue]:
    """The operands of `op` that its main operation reads: their layout must be contiguous."""
    group = Group.of(op)
    if group.anchor is None:
        return []
    operand_of = dict(zip(group.inputs, op.operands, strict=True))
    return [operand_of[o] for o in group.anchor.operands if o in operand_of]


def _structure(op: Operation) -> Hashable:
    """Equal for operations that compute the same function of their operands."""
    if not isinstance(op, nn.FusedOp):
        return (op.name, _properties(op), op.operand_types, op.result_types)
    block: Block = op.body.block
    numbers: dict[SSAValue, int] = {}
    for argument in block.args:
        numbers[argument] = len(numbers)
    body: list[Hashable] = [tuple(block.arg_types)]
    for inner in block.ops:
        operands = tuple(numbers[o] for o in inner.operands)
        body.append((inner.name, _properties(inner), operands, inner.result_types))
        for result in inner.results:
            numbers[result] = len(numbers)
    return tuple(body)


def _properties(op: Operation) -> Hashable:
    return tuple(sorted(op.properties.items(), key=lambda item: item[0]))
