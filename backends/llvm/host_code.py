"""Machine code for this process: objects of the kernels and of the program, made once and kept.

Kernels are the same wherever the same operations meet the same layouts, so their objects are kept
under what they compute; neither their functions nor their code are made again.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

from niwaki.backends.llvm.compile import compile_object
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.llvm.fingerprint import code_fingerprint
from niwaki.backends.targets import Target
from niwaki.ir.lowered import Lowered, LoweredKernel


class ObjectStore(Protocol):
    """Keeps objects, perhaps from one process to the next."""

    def get(self, key: str) -> bytes | None:
        """What was added under `key`, if it is still there."""
        ...

    def add(self, objects: Mapping[str, bytes]) -> None:
        """Keeps `objects` by key."""
        ...


@dataclass(frozen=True)
class HostCode:
    """The code of a program, to be linked."""

    program: bytes
    """An ELF object with the entry points; see `niwaki.backends.llvm.object`."""
    kernels: tuple[bytes, ...]
    """An ELF object of each kernel."""
    compiled: int
    """Kernels among them that had to be compiled."""


def host_code(
    lowered: Lowered, target: Target, store: ObjectStore | None, timed: bool = False
) -> HostCode:
    """The code of `lowered`, compiled on every core of this machine where `store` lacks it.

    `timed`: entry points note when each call began and ended; the kernels are the same ones. The
    bytes do not depend on what the store holds, nor on the number of cores.
    """
    keys = kernel_keys(lowered.kernels, target)
    symbols = kernel_symbols(keys)
    program_text = emit_module([], lowered.programs, target, symbols, timed)
    program = _key(target, program_text)
    found = {} if store is None else {key: store.get(key) for key in (program, *keys.values())}
    missing = [k for k in lowered.kernels if found.get(keys[k.name]) is None]
    made: dict[str, Future[bytes]] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        if found.get(program) is None:
            made[program] = pool.submit(compile_object, program_text, target)
        # Kernels are built here while others of them are compiled there.
        for kernel in missing:
            text = emit_module([kernel.build()], [], target, symbols)
            made[keys[kernel.name]] = pool.submit(compile_object, text, target)
    objects = {key: future.result() for key, future in made.items()}
    if store is not None and objects:
        store.add(objects)
    code = {key: value for key, value in found.items() if value is not None} | objects
    return HostCode(code[program], tuple(code[key] for key in keys.values()), len(missing))


def kernel_keys(kernels: Sequence[LoweredKernel], target: Target) -> dict[str, str]:
    """Name -> a hash of all that the code of the kernel follows from."""
    return {kernel.name: _key(target, kernel.identity) for kernel in kernels}


def _key(target: Target, content: str) -> str:
    return sha256(f"{code_fingerprint()}\n{target}\n{content}".encode()).hexdigest()


def kernel_symbols(keys: Mapping[str, str]) -> dict[str, str]:
    """Name -> symbol of the object, the same in every program."""
    return {name: f"kernel_{key[:32]}" for name, key in keys.items()}
