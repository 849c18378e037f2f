"""Saved states: whole after every power cut, and the same bytes in Python and on every target."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import niwaki
from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.saved_state import HEAD_BYTES, model_hash, payload_bytes, saved_rows
from niwaki.backends.c.toolchain import (
    STRICT,
    build_firmware,
    build_linux,
    run_firmware,
    run_program,
)
from niwaki.backends.targets import get_target
from niwaki.ir.image import Image
from niwaki.ir.lowered import StorageEntry
from tests.c_programs import TIMEOUT, need_tools
from tests.networks import lenet
from tests.passes.test_quantized import small_network

HERE = Path(__file__).parent
CPP = ("-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic")
RANDOM = np.random.default_rng(1)
X = RANDOM.uniform(-3, 3, (2, 6, 6, 4)).astype(np.float32)
Y = np.array([0, 2], np.int32)
SPARSE = niwaki.Scheme.channels({2: 0.5}, biases=1)


@cache
def compiled(target: str = "host", number: int = 0) -> niwaki.TrainingStep:
    """Of equal ones, number `number`."""
    return niwaki.compile(small_network(), optimizer=niwaki.SGD(lr=0.2), target=target)


@pytest.fixture
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[niwaki.TrainingStep]]:
    """Two equal steps in their initial state."""
    steps = [compiled(number=number) for number in range(2)]
    initial = tmp_path_factory.mktemp("initial") / "state.bin"
    steps[0].save_c(initial)
    yield steps
    for step in steps:
        step.load_c(initial)


def package(target: str, folder: Path) -> tuple[list[Path], tuple[str, ...]]:
    """The sources of the network's library, and what the compiler needs to find its headers."""
    path = compiled(target).write_c(folder / "net", name="net", vectors=TestVectors([X, Y], []))
    return [path / "net.c", path / "net_data.c"], (f"-I{path}",)


@pytest.mark.parametrize("cc", ["gcc", "g++"])
def test_power_may_fail_at_every_byte(cc: str, tmp_path: Path) -> None:
    target = replace(get_target("host"), cc=(cc,))
    need_tools(target)
    sources, include = package("host", tmp_path)
    flags = (*(STRICT if cc == "gcc" else CPP), *include)
    program = [*sources, HERE / "power_cut_program.c"]
    run = run_program(
        build_linux(program, tmp_path / "cut", target, flags, sanitize=cc == "gcc"), TIMEOUT
    )
    assert run.code == 0, f"a check failed: its line is {run.code} or 256 more\n{run.output}"


@pytest.mark.parametrize("name", ["host", "cortex-m7"])
def test_two_runs_are_one(name: str, steps: list[niwaki.TrainingStep], tmp_path: Path) -> None:
    """A second run goes on where the first one ended; Python goes on where both ended."""
    target = get_target(name)
    need_tools(target)
    sources, include = package(name, tmp_path)
    program, flags = [*sources, HERE / "two_runs_program.c"], (*STRICT, *include)
    if target.board is None:
        built = build_linux(program, tmp_path / "two", target, flags, sanitize=True)
        runs = [run_program(built, TIMEOUT) for _ in range(2)]
    else:
        built = build_firmware(program, tmp_path / "two.elf", target, flags=flags)
        runs = [run_firmware(built, TIMEOUT) for _ in range(2)]
    assert [run.code for run in runs] == [0, 0]
    assert [run.counts["restored"][0] for run in runs] == [6, 0]
    step, restored = steps
    losses = [step(X, Y) for _ in range(4)]
    np.testing.assert_allclose([*runs[0].floats["loss"], *runs[1].floats["loss"]], losses, 1e-5)

    flash = (tmp_path / "flash.bin").read_bytes()
    newest = tmp_path / "slot.bin"
    newest.write_bytes(flash[len(flash) // 2 :])
    restored.lr = 0.5
    restored.load_c(newest)
    assert restored.lr == step.lr
    for entry, array in step.parameters.items():
        np.testing.assert_array_equal(restored.parameters[entry], array)
    assert restored(X, Y) == step(X, Y)


def test_python_reads_what_it_wrote(steps: list[niwaki.TrainingStep], tmp_path: Path) -> None:
    step, other = steps
    step(X, Y)
    step.save_c(tmp_path / "a.bin")
    other.load_c(tmp_path / "a.bin")
    other.save_c(tmp_path / "b.bin")
    data = (tmp_path / "a.bin").read_bytes()
    assert data == (tmp_path / "b.bin").read_bytes()
    assert len(data) == HEAD_BYTES + payload_bytes(step.lowered)
    assert other(X, Y) == step(X, Y)


@cache
def sparse(target: str) -> niwaki.TrainingStep:
    return niwaki.compile(
        lenet(2, 12), optimizer=niwaki.SGD(0.1, momentum=0.9), update=SPARSE, target=target
    )


def test_one_hash_for_every_target_and_none_for_others() -> None:
    hashes = [model_hash(sparse(name).lowered) for name in ("host", "cortex-m4", "cortex-m55")]
    assert len(set(hashes)) == 1
    full = niwaki.compile(lenet(2, 12), optimizer=niwaki.SGD(0.1, momentum=0.9))
    assert model_hash(full.lowered) != hashes[0]
    lowered = sparse("host").lowered
    state = bytearray(bytes(lowered.state_image))
    state[0] ^= 1
    assert model_hash(replace(lowered, state_image=Image.of(bytes(state)))) != hashes[0]
    frozen = next(e for e in lowered.constants if e.kind == "parameter")
    constants = bytearray(bytes(lowered.constants_image))
    constants[frozen.offset] ^= 1
    assert model_hash(replace(lowered, constants_image=Image.of(bytes(constants)))) != hashes[0]


def test_only_what_steps_change_is_saved() -> None:
    step = sparse("host")
    boxes = [np.prod(e.updated or ()) * np.dtype(e.dtype).itemsize for e in step.lowered.state]
    assert payload_bytes(step.lowered) == sum(boxes) < step.memory.state_bytes


@pytest.mark.parametrize(
    ("shape", "box"),
    [((), ()), ((5,), (5,)), ((5,), (3,)), ((4, 6), (2, 6)), ((4, 2, 6), (4, 2, 3))]
    + [((4, 2, 6, 3), (3, 2, 5, 3)), ((0, 3), (0, 3)), ((2, 3, 4), (2, 3, 4))],
)
def test_rows_cover_the_box(shape: tuple[int, ...], box: tuple[int, ...]) -> None:
    lowered = sparse("host").lowered
    entry = StorageEntry("w", 8, shape, "int16", box, "parameter")
    (rows,) = saved_rows(replace(lowered, state=(entry,)))
    array = np.zeros(shape, np.int16)
    array[tuple(map(slice, box))] = -1
    state = np.zeros(8 + array.nbytes, np.uint8)
    for piece in rows.pieces(state):
        piece[:] = 0xFF
    np.testing.assert_array_equal(state[8:], array.reshape(-1).view(np.uint8))


def test_rows_between_two_cuts_are_saved_whole() -> None:
    entry = StorageEntry("w", 0, (4, 5, 6), "int8", (2, 3, 2), "parameter")
    (rows,) = saved_rows(replace(sparse("host").lowered, state=(entry,)))
    assert (rows.bytes, rows.stride, rows.count) == (2, 6, 10)


def _flipped(data: bytes, at: int) -> bytes:
    damaged = bytearray(data)
    damaged[at] ^= 1
    return bytes(damaged)


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "holds no state"),
    "short": (lambda data: data[:-1], "damaged"),
    "version": (lambda data: _flipped(data, 3), "holds no state"),
    "hash": (lambda data: _flipped(data, 5), "damaged"),
    "start": (lambda data: _flipped(data, 12), "damaged"),
    "sequence": (lambda data: _flipped(data, 21), "damaged"),
    "payload": (lambda data: _flipped(data, -1), "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_changes_nothing(
    damage: str, steps: list[niwaki.TrainingStep], tmp_path: Path
) -> None:
    change, message = DAMAGE[damage]
    step, other = steps
    other.save_c(tmp_path / "before.bin")
    step(X, Y)
    step.lr = 0.75
    step.save_c(tmp_path / "good.bin")
    (tmp_path / "bad.bin").write_bytes(change((tmp_path / "good.bin").read_bytes()))
    with pytest.raises(niwaki.ModelFileError, match=message):
        other.load_c(tmp_path / "bad.bin")
    other.save_c(tmp_path / "after.bin")
    assert (tmp_path / "after.bin").read_bytes() == (tmp_path / "before.bin").read_bytes()


def test_files_of_others(tmp_path: Path) -> None:
    sparse("host").save_c(tmp_path / "a.bin")
    with pytest.raises(niwaki.UsageError, match="belongs to another model"):
        compiled().load_c(tmp_path / "a.bin")
    with pytest.raises(niwaki.UsageError, match="cannot read"):
        compiled().load_c(tmp_path / "none.bin")
    with pytest.raises(niwaki.UsageError, match="cannot run here"):
        sparse("cortex-m4").save_c(tmp_path / "c.bin")
