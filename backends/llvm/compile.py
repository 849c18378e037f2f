"""LLVM IR text to an object file, and objects into this process."""

import ctypes
import weakref
from collections.abc import Callable, Iterable, Sequence
from functools import cache

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from niwaki.backends.llvm import unlocked
from niwaki.backends.llvm.pool import STOP
from niwaki.backends.targets import Target


@cache
def _initialize() -> None:
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def _machine(target: Target) -> llvm.TargetMachine:
    _initialize()
    found = llvm.Target.from_triple(target.triple)
    return found.create_target_machine(
        cpu=target.cpu,
        features=target.features,
        # 2 takes longer and makes nothing faster: kernels are scheduled by hand.
        opt=1,
        reloc="pic",
        codemodel="default",
        abiname="",
    )


def compile_object(text: str, target: Target) -> bytes:
    """An ELF object of the module `text`.

    Kernels are vectorised and tiled by hand: only what cleans up addresses runs. LLVM's own
    pipelines (O1 to O3) cost several times the code generation and gain nothing measurable.
    Threads that compile at once do not wait for each other.
    """
    machine = _machine(target)
    module = llvm.parse_assembly(text, llvm.create_context())
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=1)
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_module_pass_manager()
    passes.add_instruction_combine_pass()
    unlocked.run_passes(passes, module, builder)
    return unlocked.emit_object(machine, module)


class LoadedObject:
    """Entry points of an object in this process; keep it alive while they are in use."""

    def __init__(
        self,
        code: bytes,
        entries: Sequence[str],
        called: Iterable[bytes] = (),
        threads: int = 1,
    ) -> None:
        """`called`: the objects that `code` calls into; `threads`: of the target."""
        _initialize()
        jit = llvm.create_lljit_compiler()
        builder = llvm.JITLibraryBuilder().add_object_img(code).add_current_process()
        for other in called:
            builder.add_object_img(other)
        for symbol in (*entries, STOP) if threads > 1 else entries:
            builder.export_symbol(symbol)
        self._tracker = builder.link(jit, "niwaki")
        self._jit = jit
        prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        self.functions = {entry: prototype(self._tracker[entry]) for entry in entries}
        """Entry points: each takes the address of an array of pointers."""
        self._stop = ctypes.CFUNCTYPE(None)(self._tracker[STOP]) if threads > 1 else _no_threads
        # Holds the code until no thread runs it.
        weakref.finalize(self, _end, self._stop, self._tracker, jit)

    def stop(self) -> None:
        """Ends the threads of the code, if it has any; a later call starts them again."""
        self._stop()


def _no_threads() -> None:
    pass


def _end(stop: Callable[[], None], *code: object) -> None:
    del code
    stop()


def pointer_block(arrays: Sequence[NDArray[np.generic]]) -> NDArray[np.uintp]:
    """The argument of an entry point: the addresses of `arrays`."""
    return np.array([a.ctypes.data for a in arrays], np.uintp)
