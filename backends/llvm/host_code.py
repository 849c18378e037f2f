"""Machine code for this process: an object of each kernel, made once and kept, and of the program.

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
    found = {} if store is None else {key: store.get(key) for key in keys.values()}
    missing = [k for k in lowered.kernels if found.get(keys[k.name]) is None]
    made: dict[str, Future[bytes]] = {}
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        # Kernels are built here while others of them are compiled there.
        for kernel in missing:
            text = emit_module([kernel.build()], [], target, symbols)
            made[keys[kernel.name]] = pool.submit(compile_object, text, target)
        text = emit_module([], lowered.programs, target, symbols, timed)
        program = compile_object(text, target)
    objects = {key: future.result() for key, future in made.items()}
    if store is not None and objects:
        store.add(objects)
    code = {**found, **objects}
    kernels = tuple(c for key in keys.values() if (c := code[key]) is not None)
    return HostCode(program, kernels, len(missing))


def kernel_keys(kernels: Sequence[LoweredKernel], target: Target) -> dict[str, str]:
    """Name -> a hash of all that the code of the kernel follows from."""
    start = sha256(f"{code_fingerprint()}\n{target}\n".encode())
    keys: dict[str, str] = {}
    for kernel in kernels:
        state = start.copy()
        state.update(kernel.identity.encode())
        keys[kernel.name] = state.hexdigest()
    return keys


def kernel_symbols(keys: Mapping[str, str]) -> dict[str, str]:
    """Name -> symbol of the object, the same in every program."""
    return {name: f"kernel_{key[:32]}" for name, key in keys.items()}
