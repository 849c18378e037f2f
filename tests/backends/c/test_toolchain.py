"""Building and running programs: what is reported, and what happens when it goes wrong."""

from dataclasses import replace
from pathlib import Path

import pytest

from niwaki.backends.c.toolchain import (
    build_firmware,
    build_linux,
    find_tool,
    install_command,
    missing_tools,
    run_firmware,
    run_program,
)
from niwaki.backends.targets import get_target
from niwaki.ir.errors import DoesNotFitError, UsageError
from tests.c_programs import TIMEOUT, need_tools

BOARDS = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
REPORTS = """
#include "platform.h"
int main(void)
{
    char text[4] = "";
    platform_report_count("big", 18446744073709551615ull);
    platform_report_float("value", 0.1f);
    platform_report_float("value", -1234.5f);
    platform_report_float("value", 3.0e38f);
    platform_report_count("missing", (uint64_t)(platform_read("none", 0, text, 3) == -1));
    platform_report_count("read", (uint64_t)platform_read("input.bin", 2, text, 3));
    platform_print(text);
    return platform_write("output.bin", text, 2) == 0 ? 3 : 4;
}
"""
LOOP = """
#include "platform.h"
static uint8_t touch(uint32_t depth)
{
    volatile uint8_t room[100];
    room[0] = (uint8_t)depth;
    return depth == 0 ? room[0] : (uint8_t)(touch(depth - 1) + room[0]);
}
int main(void)
{
    const uint64_t start = platform_instructions();
    __asm__ volatile("mov r0, #1000\\n1: subs r0, r0, #1\\n bne 1b" ::: "r0", "cc", "memory");
    platform_report_count("loop", platform_instructions() - start);
    platform_report_count("shallow", platform_stack_bytes());
    (void)touch(10);
    platform_report_count("deep", platform_stack_bytes());
    return 0;
}
"""


def source(folder: Path, text: str) -> list[Path]:
    path = folder / "program.c"
    path.write_text(text)
    return [path]


@pytest.mark.parametrize("name", ["host", "aarch64", "armv7", *BOARDS])
def test_reports_files_and_exit_status(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    (tmp_path / "input.bin").write_bytes(b"abcdefgh")
    sources = source(tmp_path, REPORTS)
    if target.board is None:
        run = run_program(build_linux(sources, tmp_path / "x", target), TIMEOUT)
    else:
        run = run_firmware(build_firmware(sources, tmp_path / "x.elf", target), TIMEOUT)
    assert run.code == 3
    assert run.counts == {"big": [2**64 - 1], "missing": [1], "read": [3]}
    assert run.floats == {"value": [pytest.approx(0.1), -1234.5, pytest.approx(3e38)]}
    assert "value = -1234.500000 0x" in run.output
    assert "cde" in run.output
    assert (tmp_path / "output.bin").read_bytes() == b"cd"


@pytest.mark.parametrize("name", BOARDS)
def test_instructions_and_stack(name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    firmware = build_firmware(source(tmp_path, LOOP), tmp_path / "x.elf", target)
    run = run_firmware(firmware, TIMEOUT)
    assert 2000 < run.counts["loop"][0] < 2100
    assert run.counts["deep"][0] > 11 * 100 > run.counts["shallow"][0]
    assert firmware.sizes is not None
    assert firmware.sizes.stack == 8192


def test_a_fault_ends_the_run(tmp_path: Path) -> None:
    target = get_target("cortex-m7")
    need_tools(target)
    text = "int main(void) { *(volatile int *)0xf0000000u = 1; return 0; }"
    run = run_firmware(build_firmware(source(tmp_path, text), tmp_path / "x.elf", target), TIMEOUT)
    assert run.code == 70
    assert "fault" in run.output


def test_a_program_that_hangs_is_stopped(tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    program = build_linux(
        source(tmp_path, "int main(void) { for (;;) { } }"), tmp_path / "x", target
    )
    with pytest.raises(UsageError, match=r"did not end within 0\.2 s"):
        run_program(program, 0.2)


def test_compiler_messages_are_passed_on(tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    with pytest.raises(UsageError, match=r"unused variable .x."):
        build_linux(source(tmp_path, "int main(void) { int x; return 0; }"), tmp_path / "x", target)


def test_flash_is_limited(tmp_path: Path) -> None:
    target = replace(get_target("cortex-m55"), flash=(0, 1024))
    need_tools(target)
    with pytest.raises(DoesNotFitError, match="bytes more FLASH"):
        build_firmware(source(tmp_path, REPORTS), tmp_path / "x.elf", target)


def test_missing_tools_are_named() -> None:
    target = replace(get_target("cortex-m7"), cc=("no-such-compiler", "-mthumb"))
    assert "no-such-compiler" in missing_tools(target)
    with pytest.raises(UsageError, match="'no-such-compiler' is not installed: run 'apt-get"):
        find_tool("no-such-compiler")
    assert (
        install_command(["qemu-arm", "qemu-aarch64", "gcc"]) == "apt-get install -y gcc qemu-user"
    )
