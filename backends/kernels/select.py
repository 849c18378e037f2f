"""The kernel of an operation."""

from collections.abc import Sequence

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import Operation

from niwaki.backends.kernels.elementwise import elementwise
from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.targets import Target


def select(
    op: Operation, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """Chooses the kernel of `op`, an `nn` operation or `nn.fused`, at these layouts.

    Raises NotImplementedError for an operation that has no kernel.
    """
    anchor = Group.of(op).anchor
    return elementwise(op, operands, results, target)
