"""Packages: the contract, names that attack, and what happens to the folder."""

import ctypes
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import (
    STRICT,
    build_firmware,
    build_linux,
    run_compiler,
    run_firmware,
    run_program,
)
from niwaki.backends.targets import get_target
from niwaki.ir.errors import DoesNotFitError, UsageError
from tests.c_programs import TIMEOUT, need_tools
from tests.c_small_model import HOSTILE, LR, N, reference_losses, small_model

HERE = Path(__file__).parent
CPP = ("-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic")
X = np.array([1.0, -2.0, 0.5, 1.5], np.float32)
Y = np.array([0.0, 1.0, 0.0, 1.0], np.float32)
BOARDS = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")


def vectors(steps: int = 5) -> TestVectors:
    return TestVectors([X, Y], reference_losses(X, Y, steps), 1e-6)


def write(folder: Path, target: str = "host", package: str = "plain") -> list[Path]:
    """The package of the small model; returns its sources without main."""
    write_c(small_model(target), folder, package, "small", "sgd", LR, vectors())
    return [folder / "small.c", folder / "small_data.c"]


@pytest.mark.parametrize("cc", ["gcc", "g++"])
@pytest.mark.parametrize("sanitize", [False, True])
def test_contract(cc: str, sanitize: bool, tmp_path: Path) -> None:
    target = replace(get_target("host"), cc=(cc,))
    need_tools(target)
    sources = [*write(tmp_path / "small"), HERE / "contract_program.c"]
    flags = (*(STRICT if cc == "gcc" else CPP), f"-I{tmp_path / 'small'}")
    program = build_linux(sources, tmp_path / "contract", target, flags, sanitize)
    run = run_program(program, TIMEOUT)
    assert run.code == 0, f"check {run.code} failed\n{run.output}"


@pytest.mark.parametrize("name", ["host", "aarch64", "armv7"])
def test_example_on_linux(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    sources = [*write(tmp_path / "small", name), tmp_path / "small/main.c"]
    run = run_program(build_linux(sources, tmp_path / "example", target), TIMEOUT)
    assert run.code == 0, run.output
    np.testing.assert_allclose(run.floats["loss"], reference_losses(X, Y, 5), rtol=1e-6)


@pytest.mark.parametrize("name", BOARDS)
def test_example_on_boards(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    sources = [*write(tmp_path / "small", name), tmp_path / "small/main.c"]
    firmware = build_firmware(sources, tmp_path / "example.elf", target)
    run = run_firmware(firmware, TIMEOUT)
    assert run.code == 0, run.output
    np.testing.assert_allclose(run.floats["loss"], reference_losses(X, Y, 5), rtol=1e-6)
    assert len(run.counts["instructions.step"]) == 5
    assert 0 < run.counts["bytes.stack"][0] < 2048
    sizes = firmware.sizes
    assert sizes is not None
    assert sizes.bss >= run.counts["bytes.arena"][0] + run.counts["bytes.state"][0]
    assert sizes.text >= run.counts["bytes.constants"][0]


def test_readme_commands_work(tmp_path: Path) -> None:
    target = get_target("cortex-m7")
    need_tools(target)
    write(tmp_path / "small", "cortex-m7")
    readme = (tmp_path / "small/README.md").read_text()
    commands = re.search(r"```\n(.*?)```", readme, re.DOTALL)
    assert commands is not None
    done = subprocess.run(
        ["sh", "-e", "-c", commands[1]],
        cwd=tmp_path / "small",
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "wrong = 0" in done.stdout + done.stderr


def test_wrong_expected_losses_are_counted(tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    losses = reference_losses(X, Y, 3)
    wrong = TestVectors([X, Y], [losses[0], losses[1] * 1.5, losses[2]], 1e-6)
    write_c(small_model(), tmp_path / "small", name="small", learning_rate=LR, vectors=wrong)
    sources = [tmp_path / "small" / n for n in ("small.c", "small_data.c", "main.c")]
    run = run_program(build_linux(sources, tmp_path / "example", target), TIMEOUT)
    assert run.code == 1


def test_memory_that_does_not_fit_is_an_error_of_the_linker(tmp_path: Path) -> None:
    target = get_target("cortex-m4")
    need_tools(target)
    sources = [*write(tmp_path / "small", "cortex-m4"), tmp_path / "small/main.c"]
    with pytest.raises(DoesNotFitError, match="bytes more RAM"):
        build_firmware(sources, tmp_path / "x.elf", target, ram_bytes=4096)


def test_ram_limit_is_checked_by_the_compiler(tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    sources = write(tmp_path / "small")
    output = tmp_path / "x.o"
    run_compiler(target.cc, sources[:1], output, ["-c", "-DSMALL_RAM_LIMIT=144u"])
    with pytest.raises(UsageError, match="small_check_ram"):
        run_compiler(target.cc, sources[:1], output, ["-c", "-DSMALL_RAM_LIMIT=143u"])


def test_constants_go_where_the_macro_says(tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    sources = write(tmp_path / "small")
    section = '-DNIWAKI_CONST_SECTION=__attribute__((section(".external")))'
    run_compiler(target.cc, sources[1:], tmp_path / "x.o", ["-c", section])
    dump = subprocess.run(
        ["objdump", "-h", str(tmp_path / "x.o")], capture_output=True, text=True, check=True
    )
    assert ".external" in dump.stdout


def test_cmake_package_installs(tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    cmake = shutil.which("cmake")
    if cmake is None:
        pytest.skip("not installed: cmake")
    write(tmp_path / "small", package="cmake")
    build, root = tmp_path / "build", tmp_path / "root"
    for arguments in (
        ["-S", str(tmp_path / "small"), "-B", str(build), f"-DCMAKE_INSTALL_PREFIX={root}"],
        ["--build", str(build), "--target", "install"],
        ["--build", str(build), "--target", "test"],
    ):
        done = subprocess.run([cmake, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (root / "include/small.h").exists()
    assert list(root.rglob("libsmall.a"))
    assert list(root.rglob("smallConfig.cmake"))


def test_names_of_the_model_stay_inside_comments(tmp_path: Path) -> None:
    hostile, tame = tmp_path / "hostile", tmp_path / "tame"
    write_c(small_model(name=HOSTILE), hostile, name="small")
    write_c(small_model(name="w"), tame, name="small")
    for path in sorted(hostile.rglob("*.[ch]")):
        text = path.read_text()
        assert _without_comments(text) == _without_comments(
            (tame / path.relative_to(hostile)).read_text()
        ), path.name
        assert "\\" not in "".join(_COMMENT.findall(text)), path.name


_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


def _without_comments(text: str) -> str:
    """The code; the model's hash depends on the names."""
    code = _COMMENT.sub("", text)
    return re.sub(r'(MODEL_HASH\w*) (0x\w+u|"\w+")', r"\1", code)


def test_same_program_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*.*"))
    assert Path("platform/report.c") in files
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()


@pytest.mark.parametrize(
    "name", ["", "1a", "a b", "a-b", "a/../b", "_a", "a__b", "a_", "ä", "a" * 49]
)
def test_names_that_are_no_identifiers(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot start C names"):
        write_c(small_model(), tmp_path / "small", name=name)
    assert list(tmp_path.iterdir()) == []


def test_unknown_package(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown package 'rpm': use plain, cmake"):
        write_c(small_model(), tmp_path / "small", package="rpm")


def test_an_earlier_package_is_replaced(tmp_path: Path) -> None:
    write(tmp_path / "small", package="cmake")
    write(tmp_path / "small")
    assert not (tmp_path / "small/CMakeLists.txt").exists()
    assert [p.name for p in tmp_path.iterdir()] == ["small"]
    manifest = json.loads((tmp_path / "small/niwaki-package.json").read_text())
    assert sorted(manifest["files"]) == sorted(
        p.relative_to(tmp_path / "small").as_posix()
        for p in (tmp_path / "small").rglob("*.*")
        if p.is_file() and p.name != "niwaki-package.json"
    )


@pytest.mark.parametrize("path", ["notes.txt", "small.c", "platform/own.c"])
def test_what_others_wrote_is_kept(path: str, tmp_path: Path) -> None:
    folder = tmp_path / "small"
    write(folder)
    (folder / path).write_text("mine")
    with pytest.raises(UsageError, match=f"holds '{path}'"):
        write(folder)
    assert (folder / path).read_text() == "mine"


def test_a_foreign_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "niwaki-package.json").write_text('{"files": []}')
    with pytest.raises(UsageError, match=r"niwaki-package\.json"):
        write(tmp_path)


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "small").write_text("mine")
    with pytest.raises(UsageError, match="is a file"):
        write(tmp_path / "small")


def test_vectors_must_fit_the_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'x' is float32\[3\], the model takes float32\[4\]"):
        write_c(small_model(), tmp_path / "small", vectors=TestVectors([X[:3], Y], []))
    with pytest.raises(UsageError, match="2 arrays"):
        write_c(small_model(), tmp_path / "small", vectors=TestVectors([X], []))
    assert list(tmp_path.iterdir()) == []


def test_library_from_python(tmp_path: Path) -> None:
    """The functions through ctypes: parameters after a step are NumPy's."""
    target = get_target("host")
    need_tools(target)
    sources = write(tmp_path / "small")
    shared = tmp_path / "small.so"
    run_compiler(target.cc, sources, shared, [*STRICT, "-O2", "-shared", "-fPIC"])
    library = ctypes.CDLL(str(shared))
    state, arena = np.zeros(16, np.uint64), np.full(2, 0xFFFFFFFFFFFFFFFF, np.uint64)
    context, loss = ctypes.create_string_buffer(64), ctypes.c_float()
    sizes = [ctypes.c_size_t(a.nbytes) for a in (arena, state)]
    pointers = [ctypes.c_void_p(a.ctypes.data) for a in (arena, state, X, Y)]
    assert library.small_init(context, pointers[0], sizes[0], pointers[1], sizes[1]) == 0
    library.small_train_step(context, pointers[2], pointers[3], ctypes.byref(loss))
    assert loss.value == pytest.approx(reference_losses(X, Y, 1)[0], rel=1e-6)
    assert state.view(np.int32)[16] == 1
    assert state.view(np.float32)[:N].tolist() != [0.5, -1.0, 0.25, 2.0]
