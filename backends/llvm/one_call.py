"""A program of one kernel call, to run or time a kernel by itself."""

from xdsl.dialects.builtin import IntegerAttr, MemRefType, StringAttr, SymbolRefAttr, i8, i64
from xdsl.ir import Attribute, Block, Region

from niwaki.backends.kernels.spec import KernelSpec
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import ints


def one_call(spec: KernelSpec, kernel: str, name: str) -> plan.ProgramOp:
    """@name: one call of @kernel on the caller's arrays, with its workspace in the arena."""
    views = [
        *(_view("input", kind, i) for i, kind in enumerate(spec.operands)),
        *(_view("output", kind, i) for i, kind in enumerate(spec.results)),
    ]
    if spec.workspace:
        views.append(_view("arena", MemRefType(i8, [spec.workspace]), None))
    call = plan.CallOp.create(
        operands=[v.view for v in views],
        properties={
            "kernel": SymbolRefAttr(kernel),
            "reads": IntegerAttr(len(spec.operands), i64),
            "writes": IntegerAttr(len(spec.results), i64),
            "in_place": ints([n for i, j in spec.in_place for n in (i, j + len(spec.operands))]),
        },
    )
    return plan.ProgramOp.create(
        properties={
            "sym_name": StringAttr(name),
            "arena": IntegerAttr(spec.workspace, i64),
            "bound": IntegerAttr(spec.workspace, i64),
        },
        regions=[Region(Block([*views, call]))],
    )


def _view(space: str, kind: MemRefType, index: int | None) -> plan.ViewOp:
    properties: dict[str, Attribute] = {"space": StringAttr(space), "offset": IntegerAttr(0, i64)}
    if index is not None:
        properties["index"] = IntegerAttr(index, i64)
    return plan.ViewOp.create(properties=properties, result_types=[kind])
