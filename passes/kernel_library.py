"""The kernels of a module: chosen once for equal operations at equal layouts."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from hashlib import sha256

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Block, Operation, SSAValue

from niwaki.backends.kernels import movement
from niwaki.backends.kernels.alternatives import Alternative
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.select import alternatives
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
    """What it computes, at which layouts: with the target and the choice, the function."""
    operation: Hashable = None
    """What it computes, at any layout."""
    alternatives: tuple[Alternative, ...] = ()
    """The ways to compute it, the model's choice first."""
    choice: str = ""
    """The alternative among them that `spec` is."""

    @property
    def identity(self) -> str:
        """What the function follows from besides the target."""
        return repr((self.key, self.choice))

    @cached_property
    def label(self) -> str:
        """Under which its choice is kept: one for all layouts.

        Which parameters are stored packed is decided by the choice, before results have layouts.
        """
        return _label(self.kind, self.operation)


class KernelLibrary:
    """Gives equal operations the same kernel."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._kernels: dict[Hashable, Kernel] = {}

    def compute(
        self, op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType]
    ) -> Kernel:
        """The kernel of `op` (nn.fused or another operation of `nn`) at these layouts."""
        operation = _structure(op)
        key = (tuple(operands), tuple(results), operation)
        if key not in self._kernels:
            kind, found = kind_of(op), alternatives(op, operands, results, self.target)
            chosen = self._choose(found, kind, operation)
            spec = on_threads(chosen.spec(), self.target)
            self._kernels[key] = Kernel(kind, spec, key, operation, tuple(found), chosen.name)
        return self._kernels[key]

    def _choose(self, found: Sequence[Alternative], kind: str, operation: Hashable) -> Alternative:
        if len(found) == 1 or not self.target.choices:
            return found[0]
        name = self.target.choices.get(_label(kind, operation))
        return next((a for a in found if a.name == name), found[0])

    def prepacked(self, kernel: Kernel) -> Kernel:
        """`kernel`, one that packs an operand, for an operand that comes packed."""
        key = ("prepacked", kernel.key)
        if key not in self._kernels:
            assert kernel.spec.prepacked is not None
            spec = on_threads(kernel.spec.prepacked.spec, self.target)
            found = tuple(
                Alternative(a.name, partial(_without_packing, a)) for a in kernel.alternatives
            )
            self._kernels[key] = replace(kernel, spec=spec, key=key, alternatives=found)
        return self._kernels[key]

    def copy(self, source: MemRefType, destination: MemRefType) -> Kernel:
        """The kernel that copies between two layouts of one shape."""
        key = (source, destination)
        if key not in self._kernels:
            spec = on_threads(movement.copy(source, destination, self.target), self.target)
            self._kernels[key] = Kernel("copy", spec, key)
        return self._kernels[key]


def _label(kind: str, operation: Hashable) -> str:
    """The kind, and a hash of what is computed."""
    return f"{kind} {sha256(repr(operation).encode()).hexdigest()[:24]}"


def _without_packing(alternative: Alternative) -> KernelSpec:
    """The kernel for an operand that comes as that kernel wants it, packed or plain."""
    spec = alternative.spec()
    return spec if spec.prepacked is None else spec.prepacked.spec


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
