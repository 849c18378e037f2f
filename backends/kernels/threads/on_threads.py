"""Kernels for several threads: which ones are divided, and what that takes."""

from dataclasses import replace

from xdsl.dialects.func import FuncOp
from xdsl.ir import SSAValue

from niwaki.backends.kernels.spec import KernelSpec
from niwaki.backends.kernels.threads.division import divide
from niwaki.backends.kernels.threads.part_code import scratch_stride
from niwaki.backends.kernels.threads.units import Memory
from niwaki.backends.targets import Target

LEAST_NS = 8000
"""Estimated time of one thread from which on a section is divided: a few times a dispatch."""
_FLOPS_PER_NS_AND_LANE = 4
_BYTES_PER_NS = 16


def on_threads(spec: KernelSpec, target: Target) -> KernelSpec:
    """`spec` for all threads of `target`: every part has a workspace; results stay the same."""
    time = _nanoseconds(spec, target)
    if target.threads == 1 or time < LEAST_NS:
        return spec

    def build(name: str) -> FuncOp:
        function = spec.build(name)
        return divide(function, _memory(spec, function), target.threads, LEAST_NS / time)

    workspace = scratch_stride(spec.workspace) * target.threads
    return replace(spec, workspace=workspace, build=build)


def _nanoseconds(spec: KernelSpec, target: Target) -> float:
    """Estimated time of one call on one thread."""
    arithmetic = spec.flops / (_FLOPS_PER_NS_AND_LANE * target.lanes)
    return arithmetic + (spec.cost - spec.flops) / _BYTES_PER_NS


def _memory(spec: KernelSpec, function: FuncOp) -> Memory:
    arguments = function.body.block.args
    same: dict[SSAValue, SSAValue] = {a: a for a in arguments}
    for operand, result in spec.in_place:
        first = same[arguments[operand]]
        other = same[arguments[len(spec.operands) + result]]
        same = {a: first if b is other else b for a, b in same.items()}
    return Memory(same, arguments[-1] if spec.workspace else None)
