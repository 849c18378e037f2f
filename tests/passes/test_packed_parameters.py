"""Frozen parameters in the layouts that kernels read: the same steps, less packing and scratch."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import pytest
from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr
from xdsl.ir import Operation

import niwaki
from niwaki.backends.c.saved_state import model_hash
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.kernels.threads import on_threads
from niwaki.backends.targets import Target, get_target, with_threads
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.ir.lowered import Lowered, StorageEntry
from niwaki.ir.program import Program
from niwaki.ir.training import SGD, Scheme, TrainingOptions
from niwaki.passes import packed_parameters, storage_layout
from niwaki.passes.kernel_library import KernelLibrary
from niwaki.passes.packed_parameters import StoredForms
from niwaki.passes.pipelines import compile_program
from tests.compiled import HOST, Compiled

AVX2 = replace(HOST, lanes=8, vector_registers=16, cache_bytes=1 << 14)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((2, 9, 9, 6)).astype(np.float32)
Y = RNG.integers(0, 5, 2).astype(np.int32)
SCHEMES = {
    "bias": Scheme.bias(),
    "last": Scheme.last_layers(2),
    "head": Scheme.last_layers(1),
    "full": Scheme.full(),
}


def network() -> Program:
    """Convolutions of every kind that is packed, and a dense layer on positions."""
    b, rng = ProgramBuilder(), np.random.default_rng(1)

    def conv(x: Value, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> Value:
        name = f"conv{len(b.store)}"
        shape = (channels, kernel, kernel, shape_of(x)[3] // groups)
        scale = np.float32(prod(shape[1:]) ** -0.5)
        w = b.weight(name, rng.standard_normal(shape).astype(np.float32) * scale)
        y = b.conv2d(x, w, stride, kernel // 2, 1, groups)
        return b.relu(b.add(y, b.weight(f"{name}.bias", np.zeros(channels, np.float32))))

    def dense(x: Value, size: int) -> Value:
        name, shape = f"dense{len(b.store)}", (size, shape_of(x)[1])
        w = b.weight(name, rng.standard_normal(shape).astype(np.float32) * np.float32(0.2))
        return b.dense(x, w, b.weight(f"{name}.bias", np.zeros(size, np.float32)))

    x = conv(b.input(X.shape), 16, 3)
    x = conv(x, 40, 1)
    x = conv(x, 40, 3, 1, 40)
    x = conv(x, 24, 3, 2)
    batch, height, width, channels = shape_of(x)
    x = dense(b.reshape(x, [batch * height * width, channels]), 33)
    x = b.reshape(x, [batch, height, width, 33])
    return b.finish(dense(b.global_avg_pool(conv(x, 32, 1)), 5))


def _none(*_: object) -> dict[str, StoredForms]:
    return {}


@contextmanager
def plain() -> Generator[None]:
    """Everything is stored as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage_layout, "packed_parameters", _none)
        yield


def lowered(update: str, target: Target = HOST, program: Program | None = None) -> Lowered:
    options = TrainingOptions(optimizer=SGD(0.1), scheme=SCHEMES[update])
    return compile_program(network() if program is None else program, options, target)


def packed_entries(program: Lowered) -> list[StorageEntry]:
    return [e for e in program.constants if e.packing is not None]


@pytest.mark.parametrize(
    ("update", "target", "threads"), [("bias", HOST, 1), ("bias", AVX2, 3), ("last", HOST, 3)]
)
def test_steps_stay_the_same(
    update: str, target: Target, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_threads, "LEAST_NS", 1e-3)
    monkeypatch.setattr(packed_parameters, "COPY_SHARE", 1)
    target = with_threads(target, threads)
    after = lowered(update, target)
    with plain():
        before = lowered(update, target)
    assert packed_entries(after)
    assert not packed_entries(before)
    runs = [Compiled(program, target) for program in (before, after)]
    for _ in range(2):
        losses = [run.run("train_step", [X, Y, np.float32(0.1)])[0] for run in runs]
        assert losses[0] == losses[1]
    states = [run.state() for run in runs]
    assert all(np.array_equal(array, states[1][name]) for name, array in states[0].items())
    outputs = [run.run("infer", [X])[0] for run in runs]
    assert np.array_equal(outputs[0], outputs[1])
    for run in runs:
        run.session.close()


def test_scratch_for_packed_weights_is_gone() -> None:
    b = ProgramBuilder()
    w = b.weight("w", np.ones((256, 1, 1, 256), np.float32))
    x = b.relu(b.conv2d(b.input([1, 4, 4, 256]), w))
    head = b.weight("head", np.ones((5, 256), np.float32))
    program = b.finish(b.dense(b.global_avg_pool(x), head))
    after = lowered("head", program=program)
    calls = [op for p in after.programs for op in p.body.block.ops if isinstance(op, plan.CallOp)]
    (*_, kernel) = (op.kernel for op in calls if op.kernel.string_value().startswith("conv2d"))
    for op in calls:
        if op.kernel == kernel:
            assert len(op.operands) == op.reads.value.data + op.writes.value.data
    with plain():
        before = lowered("head", program=program)
    assert 3 * after.arena_bytes < before.arena_bytes


@pytest.mark.parametrize("share", [1, 4, 100])
def test_copies_take_a_part_of_what_is_stored(share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_parameters, "COPY_SHARE", share)
    after = lowered("bias")
    with plain():
        before = lowered("bias")
    assert after.state_bytes == before.state_bytes
    growth = len(after.constants_image) - len(before.constants_image)
    stored = len(before.constants_image) + before.state_bytes
    alignment = HOST.alignment * len(after.constants)
    assert growth <= stored // share + alignment
    copies = [e for e in packed_entries(after) if e.kind == "constant"]
    assert bool(copies) is (share < 100)


def test_what_steps_write_stays_plain() -> None:
    program = lowered("full")
    assert not packed_entries(program)
    assert all(e.packing is None for e in lowered("last").state)


@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55"])
def test_boards_store_weights_as_they_are(target: str) -> None:
    assert not packed_entries(lowered("bias", get_target(target)))


def test_parameters_are_read_and_saved_as_the_model_has_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed_parameters, "COPY_SHARE", 1)
    program = network()
    step = niwaki.compile(program, optimizer=niwaki.SGD(lr=0.1), update="bias")
    packed = {e.name for e in packed_entries(step.lowered) if e.kind == "parameter"}
    assert {"conv0", "conv2", "conv4"} <= packed
    assert set(step.parameters) == set(program.weights)

    def check_frozen() -> None:
        for name in packed:
            assert np.array_equal(step.parameters[name], program.weights[name]), name

    check_frozen()
    first = [step(X, Y) for _ in range(3)]
    step.save(tmp_path / "state")
    step.save_c(tmp_path / "state_c")
    after = dict(step.parameters)
    check_frozen()
    step.reset()
    assert [step(X, Y) for _ in range(3)] == first
    step.reset()
    for load, name in ((step.load, "state"), (step.load_c, "state_c")):
        step.reset()
        load(tmp_path / name)
        assert all(np.array_equal(step.parameters[n], array) for n, array in after.items())


def test_saved_states_fit_every_target() -> None:
    assert len({model_hash(lowered("bias", get_target(t))) for t in ("host", "cortex-m4")}) == 1


def test_bytes_are_the_same_every_time() -> None:
    assert bytes(lowered("bias").constants_image) == bytes(lowered("bias").constants_image)


def test_equal_layouts_are_stored_once() -> None:
    """Training, inference and evaluation read a frozen weight alike."""
    program = lowered("last")
    names = [e.name for e in program.constants if e.kind == "parameter"]
    assert len(names) == len(set(names))
    first = [e for e in program.constants if e.name == "conv0"]
    assert [e.packing is not None for e in first] == [True]


@pytest.mark.parametrize("number", [1, 2, -1])
def test_other_kernels_read_what_is_stored(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As chosen by measurements: other register tiles read other panels, or plain weights."""
    monkeypatch.setattr(packed_parameters, "COPY_SHARE", 1)

    def compiled(tuning: niwaki.Tuning | None = None) -> niwaki.TrainingStep:
        return niwaki.compile(network(), optimizer=niwaki.SGD(0.1), update="head", tuning=tuning)

    untuned = compiled()
    names = {
        kernel.label: kernel.alternatives[min(number, len(kernel.alternatives) - 1)].name
        for kernel in untuned.choices
    }
    tuned = compiled(niwaki.Tuning().updated(untuned.target, names))
    assert tuned.tuned_kernels == len(tuned.choices) > 3
    if number > 0:
        assert packed_entries(tuned.lowered)
    for _ in range(2):
        assert tuned(X, Y) == pytest.approx(untuned(X, Y), rel=1e-4)


@pytest.mark.parametrize("name", ["windows 8x2", "gathered", "winograd F(2x2)"])
def test_choices_hold_for_every_layout(name: str) -> None:
    """Parameters are packed for the choice before results have layouts."""
    b = ProgramBuilder()
    y = b.conv2d(b.input((1, 16, 16, 32)), b.input((48, 3, 3, 32)), padding=1)
    op = y.owner
    assert isinstance(op, Operation)
    operands, plain = [memref_of(type_of(v)) for v in op.operands], memref_of(type_of(y))
    layout = StridedLayoutAttr((16 * 16 * 64, 16 * 64, 64, 1))
    strided = MemRefType(plain.element_type, plain.get_shape(), layout)
    target = replace(HOST, lanes=16, vector_registers=32, cache_bytes=1 << 20)
    label = KernelLibrary(target).compute(op, operands, [plain]).label
    library = KernelLibrary(replace(target, choices={label: name}))
    kernels = [library.compute(op, operands, [kind]) for kind in (plain, strided)]
    assert [kernel.choice for kernel in kernels] == [name] * 2
    packings = [kernel.spec.prepacked and kernel.spec.prepacked.packing for kernel in kernels]
    assert packings[0] == packings[1]
    assert (packings[0] is not None) is name.startswith("windows")
    if packings[0] is not None:
        twins = [library.prepacked(kernel) for kernel in kernels]
        assert [twin.choice for twin in twins] == [name] * 2
        assert len({k.identity for k in (*kernels, *twins)}) == 4
