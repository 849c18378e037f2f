"""A lowered program as LLVM IR and as an object file."""

from xdsl.dialects.func import FuncOp

from niwaki.backends.llvm.compile import compile_object
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.targets import Target
from niwaki.ir.dialects.plan import ProgramOp
from niwaki.ir.lowered import Lowered


def llvm_text(lowered: Lowered, target: Target) -> str:
    """LLVM IR of the kernels and the entry points."""
    ops = list(lowered.module.body.block.ops)
    kernels = [op for op in ops if isinstance(op, FuncOp)]
    return emit_module(kernels, [op for op in ops if isinstance(op, ProgramOp)], target)


def object_code(lowered: Lowered, target: Target) -> bytes:
    """An ELF object; each entry point takes one array of pointers: the arena, the state (of both,
    the part in each region of the board), the constants, the inputs, the outputs."""
    return compile_object(llvm_text(lowered, target), target)
