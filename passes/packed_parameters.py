"""Which frozen parameters are stored as kernels pack them, once when the program is compiled.

A parameter is stored in every layout that its readers want, so that nothing is packed in a step,
and plain besides where some reader wants that. The first layout takes the place of the plain one,
at the price of its padding; others are copies. All together may take a `COPY_SHARE` of what the
program keeps between steps, spent where a byte saves most packing.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from xdsl.dialects.builtin import ModuleOp
from xdsl.ir import Operation, SSAValue

from niwaki.backends.kernels.spec import element_bytes, memref_of
from niwaki.ir.dialects import train
from niwaki.ir.dialects.tensor_op import f32, tensor_bytes, type_of
from niwaki.ir.packing import Packing
from niwaki.passes.functions import functions
from niwaki.passes.kernel_library import Kernel, KernelLibrary

COPY_SHARE = 4
"""Copies and padding take at most one part in so many of all state and constants."""


@dataclass(frozen=True)
class StoredForms:
    """The layouts that a parameter is stored in."""

    packings: tuple[Packing, ...]
    plain: bool
    """Whether it is stored as it is, too."""


@dataclass
class _Readers:
    """What reads a frozen parameter, in every function."""

    bytes: int
    packings: dict[Packing, int] = field(default_factory=dict[Packing, int])
    """How often each layout is wanted."""
    plain: bool = False
    """Whether a reader wants it as it is."""

    @property
    def forms(self) -> StoredForms:
        """All that is wanted, one form that holds the whole parameter among them."""
        whole = self.plain or not any(packing.complete for packing in self.packings)
        return StoredForms(tuple(self.packings), whole)

    @property
    def growth(self) -> int:
        """Bytes that the forms take beyond the plain parameter."""
        stored = element_bytes(f32) * sum(packing.elements for packing in self.packings)
        return stored - (0 if self.forms.plain else self.bytes)

    @property
    def price(self) -> float:
        """Bytes of growth for each byte that is not packed any more."""
        return self.growth / (self.bytes * sum(self.packings.values()))


def packed_parameters(
    module: ModuleOp, written: Collection[str], library: KernelLibrary
) -> dict[str, StoredForms]:
    """Name -> forms of the parameters that are not only stored as they are.

    `written`: names of what steps write. None on boards, whose flash and RAM are planned for
    weights as they are.
    """
    target = library.target
    if target.has_flash or target.regions:
        return {}
    readers = _readers(module, written, library)
    wanted = {name: r for name, r in readers.items() if r.packings}
    left = _stored_bytes(module) // COPY_SHARE
    chosen: dict[str, StoredForms] = {}
    for name in sorted(wanted, key=lambda name: wanted[name].price):
        if wanted[name].growth <= left:
            left -= wanted[name].growth
            chosen[name] = wanted[name].forms
    return chosen


def frozen_parameter(value: SSAValue, written: Collection[str]) -> train.ParameterOp | None:
    """The parameter that `value` is, if no step writes it."""
    op = value.owner
    return op if isinstance(op, train.ParameterOp) and op.key not in written else None


def _readers(
    module: ModuleOp, written: Collection[str], library: KernelLibrary
) -> dict[str, _Readers]:
    found: dict[str, _Readers] = {}
    for op in _top_level(module):
        kernel = None
        for number, operand in enumerate(op.operands):
            parameter = frozen_parameter(operand, written)
            if parameter is None:
                continue
            size = tensor_bytes(type_of(operand))
            reader = found.setdefault(parameter.key, _Readers(size))
            kernel = kernel or _kernel(op, library)
            packing = None if kernel is None else wanted_packing(kernel, number)
            if packing is None:
                reader.plain = True
            else:
                reader.packings[packing] = reader.packings.get(packing, 0) + 1
    return found


def _kernel(op: Operation, library: KernelLibrary) -> Kernel | None:
    if not op.name.startswith("nn."):
        return None
    operands = [memref_of(type_of(o)) for o in op.operands]
    try:
        return library.compute(op, operands, [memref_of(type_of(r)) for r in op.results])
    except NotImplementedError:
        return None


def wanted_packing(kernel: Kernel, operand: int) -> Packing | None:
    """The layout that `kernel` wants of an operand; None: the plain one."""
    prepacked = kernel.spec.prepacked
    return prepacked.packing if prepacked and prepacked.operand == operand else None


def _stored_bytes(module: ModuleOp) -> int:
    """Of all parameters and state, each once and plain."""
    sizes = {
        op.key: tensor_bytes(type_of(op.value))
        for op in _top_level(module)
        if isinstance(op, train.Storage)
    }
    return sum(sizes.values())


def _top_level(module: ModuleOp) -> list[Operation]:
    return [op for function in functions(module) for op in function.body.block.ops]
