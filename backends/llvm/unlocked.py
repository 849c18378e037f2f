"""Calls into LLVM that run beside each other, for modules of contexts of their own.

llvmlite takes one lock around every call. LLVM itself needs none where threads share no context
and no target machine, and these calls are where compiling spends its time.
"""

import ctypes
from importlib.resources import files

import llvmlite.binding as llvm
from llvmlite.binding import ffi
from llvmlite.utils import get_library_name

# The library that llvmlite has loaded already.
_LIBRARY = ctypes.CDLL(str(files("llvmlite.binding") / get_library_name()))
_run_passes = _LIBRARY.LLVMPY_RunNewModulePassManager
_run_passes.argtypes = [
    ffi.LLVMModulePassManagerRef,
    ffi.LLVMModuleRef,
    ffi.LLVMPassBuilderRef,
]
_run_passes.restype = None
_emit = _LIBRARY.LLVMPY_TargetMachineEmitToMemory
_emit.argtypes = [
    ffi.LLVMTargetMachineRef,
    ffi.LLVMModuleRef,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_char_p),
]
_emit.restype = ffi.LLVMMemoryBufferRef


def run_passes(
    passes: llvm.ModulePassManager, module: llvm.ModuleRef, builder: llvm.PassBuilder
) -> None:
    """`passes.run(module, builder)`."""
    _run_passes(passes, module, builder)


def emit_object(machine: llvm.TargetMachine, module: llvm.ModuleRef) -> bytes:
    """`machine.emit_object(module)`; raises RuntimeError as it does."""
    with ffi.OutputString() as message:
        memory = _emit(machine, module, 1, message)
        if not memory:
            raise RuntimeError(str(message))
    try:
        start = ffi.lib.LLVMPY_GetBufferStart(memory)
        return ctypes.string_at(start, ffi.lib.LLVMPY_GetBufferSize(memory))
    finally:
        ffi.lib.LLVMPY_DisposeMemoryBuffer(memory)
