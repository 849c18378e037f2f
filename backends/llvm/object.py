"""A lowered program as LLVM IR and as an object file."""

from niwaki.backends.llvm.compile import compile_object
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.targets import Target
from niwaki.ir.lowered import Lowered


def llvm_text(lowered: Lowered, target: Target) -> str:
    """LLVM IR of the kernels and the entry points."""
    kernels = [kernel.build() for kernel in lowered.kernels]
    return emit_module(kernels, lowered.programs, target)


def object_code(lowered: Lowered, target: Target) -> bytes:
    """An ELF object; each entry point takes one array of pointers: the arena, the state (of both,
    the part in each region of the board), the constants, the inputs, the outputs."""
    return compile_object(llvm_text(lowered, target), target)
