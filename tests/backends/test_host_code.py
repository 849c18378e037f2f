"""Objects of kernels: compiled once, kept, linked."""

from collections.abc import Mapping

import numpy as np
import pytest

from niwaki.backends.llvm import host_code as module
from niwaki.backends.llvm.emit import emit_module
from niwaki.backends.llvm.host_code import host_code, kernel_keys, kernel_symbols
from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session
from niwaki.backends.targets import get_target
from niwaki.ir.lowered import Lowered
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.conv_chains import conv_chain

HOST = get_target("host")


class Store:
    """A store in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def get(self, key: str) -> bytes | None:
        return self.objects.get(key)

    def add(self, objects: Mapping[str, bytes]) -> None:
        self.objects.update(objects)


def lowered(batch: int = 2, scheme: str = "full", momentum: float = 0.0) -> Lowered:
    options = TrainingOptions("mse", SGD(lr=0.1, momentum=momentum), Scheme.parse(scheme))
    return compile_program(conv_chain(2, batch), options, HOST)


def loss(session: Session) -> float:
    random = np.random.default_rng(0)
    *ports, _ = session.lowered.entries["train_step"].inputs
    arrays = [random.standard_normal(p.shape).astype(p.dtype) for p in ports]
    (value,) = session.run("train_step", [*arrays, np.array(0.1, np.float32)])
    return float(value)


def test_what_the_store_holds_is_not_compiled_again() -> None:
    store, program = Store(), lowered()
    cold, warm = (host_code(program, HOST, store) for _ in range(2))
    assert cold.compiled == len(program.kernels) == len(store.objects) - 1
    assert warm.compiled == 0
    assert (cold.program, cold.kernels) == (warm.program, warm.kernels)


def test_what_the_store_holds_is_neither_built_nor_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store()
    host_code(lowered(), HOST, store)
    again = lowered()

    def refuse(*_: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(module, "compile_object", refuse)
    for kernel in again.kernels:
        object.__setattr__(kernel, "build", refuse)
    assert host_code(again, HOST, store).compiled == 0


def test_linked_objects_do_what_one_object_does() -> None:
    program = lowered()
    code = host_code(program, HOST, None)
    linked = Session(program, code.program, code.kernels)
    assert loss(linked) == loss(Session(program, object_code(program, HOST)))


def test_one_missing_kernel_is_compiled_alone() -> None:
    store, program = Store(), lowered()
    code = host_code(program, HOST, store)
    (key, *_) = kernel_keys(program.kernels, HOST).values()
    del store.objects[key]
    again = host_code(program, HOST, store)
    assert again.compiled == 1
    assert again.kernels == code.kernels


def test_a_key_decides_the_code() -> None:
    texts: dict[str, set[str]] = {}
    programs = [lowered(), lowered(batch=3), lowered(scheme="bias"), lowered(momentum=0.9)]
    for program in programs:
        found = kernel_keys(program.kernels, HOST)
        for kernel in program.kernels:
            text = emit_module([kernel.build()], [], HOST, kernel_symbols(found))
            texts.setdefault(found[kernel.name], set()).add(text)
    assert {len(found) for found in texts.values()} == {1}
    assert len(texts) < sum(len(program.kernels) for program in programs)


def test_other_sources_and_other_machines_have_other_kernels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kernels = lowered().kernels
    here = set(kernel_keys(kernels, HOST).values())
    assert not here & set(kernel_keys(kernels, get_target("aarch64")).values())
    monkeypatch.setattr(module, "code_fingerprint", lambda: "another version")
    assert not here & set(kernel_keys(kernels, HOST).values())
