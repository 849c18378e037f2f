"""The kernel of an operation that nothing is fused with, from one function that emits it."""

from collections.abc import Callable, Sequence
from functools import partial

from xdsl.dialects.builtin import MemRefType
from xdsl.dialects.func import FuncOp

from niwaki.backends.kernels.builder import KernelBuilder
from niwaki.backends.kernels.spec import KernelSpec


def spec_alone(
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    emit: Callable[[KernelBuilder], None],
) -> KernelSpec:
    """The kernel that `emit` builds, whose arguments are all operands and results."""
    kinds = tuple(operands), tuple(results)
    return KernelSpec(
        operands=kinds[0],
        results=kinds[1],
        workspace=0,
        in_place=(),
        flops=0,
        build=partial(_build, kinds[0] + kinds[1], emit),
    )


def _build(kinds: Sequence[MemRefType], emit: Callable[[KernelBuilder], None], name: str) -> FuncOp:
    k = KernelBuilder(name, kinds)
    emit(k)
    return k.finish()
