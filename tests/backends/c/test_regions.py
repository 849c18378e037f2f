"""Firmware for a board with several memories does what firmware for one memory does."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

from niwaki.backends.c.blocks import arena_blocks, state_blocks
from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import (
    STRICT,
    Executable,
    build_firmware,
    build_linux,
    run_firmware,
    run_program,
)
from niwaki.backends.targets import Target, get_target
from niwaki.ir.errors import DoesNotFitError
from niwaki.ir.lowered import Lowered
from niwaki.ir.training import SGD, TrainingOptions
from niwaki.passes.pipelines import compile_program
from tests.boards import write_board
from tests.c_programs import TIMEOUT, need_tools
from tests.networks import lenet

LR = 0.02
RANDOM = np.random.default_rng(3)
X = RANDOM.standard_normal((2, 12, 12, 1)).astype(np.float32)
Y = np.array([3, 7], np.int32)
DTCM = {"name": "dtcm", "bytes": 64 << 10, "address": 0x20000000, "reserved": 32 << 10}
SRAM = {
    "name": "sram",
    "bytes": 256 << 10,
    "cost": 2,
    "address": 0x20100000,
    "reserved": 136 << 10,
}
"""The first region: data and stack of the program are there as well."""
FLASH = {"name": "flash", "bytes": 4 << 20, "read_only": True, "address": 0, "reserved": 1 << 20}
MAIN = """
#include "net.h"
#include "net_vectors.h"
#include "platform.h"

#include <string.h>

ARRAYS
static net_context context;
static uint32_t saved[NET_SAVE_BYTES / 4u];

int main(void)
{
    size_t written = 0;
    int status = net_init(&context, ARGUMENTS);
    for (int step = 0; step < 4 && status == NET_OK; ++step) {
        float loss = 0.0f;
        POISON
        if (step == 2) {
            /* what training has changed comes back from a saved state alone */
            (void)net_save(&context, saved, sizeof saved, &written);
            (void)net_init(&context, ARGUMENTS);
            status = net_load(&context, saved, written);
        }
        status = status != NET_OK ? status : net_train_step(&context, batch_x, batch_y, &loss);
        platform_report_float("loss", loss);
    }
    (void)net_save(&context, saved, sizeof saved, &written);
    (void)platform_write("saved.bin", saved, NET_SAVE_BYTES);
    return status;
}
"""


def main_text(lowered: Lowered) -> str:
    """The program with an array for every block of memory, poisoned arenas before every step."""
    arena, state = arena_blocks(lowered), state_blocks(lowered)
    blocks = [*arena, *state]
    arrays = [
        f"{f'NET_IN_{block.region.upper()} ' if block.region else ''}static uint64_t "
        f"{block.name}[NET_{block.name.upper()}_BYTES / 8u];"
        for block in blocks
    ]
    poison = [f"memset({block.name}, 0xff, sizeof {block.name});" for block in arena]
    return (
        MAIN.replace("ARRAYS", "\n".join(arrays))
        .replace("ARGUMENTS", ", ".join(f"{b.name}, sizeof {b.name}" for b in blocks))
        .replace("POISON", "\n        ".join(poison))
    )


@cache
def lowered_for(name: str) -> Lowered:
    options = TrainingOptions(optimizer=SGD(lr=LR, momentum=0.9))
    return compile_program(lenet(2, 12), options, get_target(name))


def sources(lowered: Lowered, folder: Path) -> tuple[list[Path], list[str]]:
    """What to compile, with which flags."""
    package = folder / "net"
    write_c(lowered, package, name="net", learning_rate=LR, vectors=TestVectors([X, Y], []))
    main = folder / "main.c"
    main.write_text(main_text(lowered), encoding="utf-8")
    return [package / "net.c", package / "net_data.c", main], [*STRICT, f"-I{package}"]


def trained(program: Executable) -> tuple[list[float], bytes]:
    """Losses, and the state as the program saved it: the same bytes for every layout."""
    is_board = program.target.board is not None
    run = run_firmware(program, TIMEOUT) if is_board else run_program(program, TIMEOUT)
    assert run.code == 0, run.output
    return list(run.floats["loss"]), (program.path.parent / "saved.bin").read_bytes()


def test_firmware(tmp_path: Path) -> None:
    plain = get_target("cortex-m7")
    need_tools(plain)
    path = str(write_board(tmp_path / "board.toml", "cortex-m7", SRAM, DTCM, FLASH))
    results: list[tuple[list[float], bytes]] = []
    for name in (path, "cortex-m7"):
        folder = tmp_path / str(len(results))
        folder.mkdir()
        target, lowered = get_target(name), lowered_for(name)
        files, flags = sources(lowered, folder)
        # One memory must have room for everything, with the saved state.
        ram = None if lowered.regions else 512 << 10
        program = build_firmware(files, folder / "net.elf", target, ram, flags=flags)
        assert program.sizes is not None
        dtcm = {u.name: u.arena_bytes + u.state_bytes for u in lowered.regions if u.name == "dtcm"}
        assert program.sizes.regions == dtcm
        results.append(trained(program))
        names = {block.name for block in (*arena_blocks(lowered), *state_blocks(lowered))}
        assert len(names) == (4 if lowered.regions else 2)
    assert results[0] == results[1]
    assert results[0][0][-1] < results[0][0][0]


def test_the_example_and_a_linker_that_counts(tmp_path: Path) -> None:
    path = str(write_board(tmp_path / "board.toml", "cortex-m7", SRAM, DTCM, FLASH))
    target = get_target(path)
    need_tools(target)
    package = tmp_path / "net"
    write_c(lowered_for(path), package, name="net", vectors=TestVectors([X, Y], []))
    files = [package / name for name in ("net.c", "net_data.c", "main.c")]
    run = run_firmware(build_firmware(files, tmp_path / "net.elf", target), TIMEOUT)
    assert run.code == 0, run.output
    assert "`.bss.dtcm`, `.bss.sram`" in (package / "README.md").read_text(encoding="utf-8")
    tight = {**DTCM, "bytes": 1024, "reserved": 0}
    small = str(write_board(tmp_path / "small.toml", "cortex-m7", SRAM, tight, FLASH))
    with pytest.raises(DoesNotFitError, match="bytes more dtcm than there is"):
        build_firmware(files, tmp_path / "small.elf", get_target(small))


def test_linux_with_sanitizers(tmp_path: Path) -> None:
    """Arrays of their own: a step over the end of a region is found."""
    regions = (
        {"name": n, "bytes": b, "cost": c} for n, b, c in (("a", 20000, 1), ("b", 200000, 2))
    )
    path = str(write_board(tmp_path / "board.toml", "cortex-m7", *regions))
    host: Target = get_target("host")
    need_tools(host)
    lowered = lowered_for(path)
    files, flags = sources(lowered, tmp_path)
    program = build_linux(files, tmp_path / "net.bin", host, flags, sanitize=True)
    losses, _ = trained(program)
    assert losses[-1] < losses[0]
