"""Builds and runs C programs: on this machine, as ARM Linux programs, and on emulated boards."""

import re
import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from string import Template
from types import MappingProxyType

from niwaki.backends.targets import Target
from niwaki.ir.errors import DoesNotFitError, UsageError

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic")
"""What every generated file compiles under."""
STACK_BYTES = 8 << 10
"""Stack of a firmware unless told otherwise."""
ICOUNT_SHIFT = 6
"""Under QEMU's -icount, one instruction takes 2^6 ns: 1.3 to 2 ticks of SysTick."""

_PACKAGES = MappingProxyType(
    {
        "gcc": "gcc",
        "g++": "g++",
        "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
        "arm-none-eabi-size": "binutils-arm-none-eabi",
        "aarch64-linux-gnu-gcc": "gcc-aarch64-linux-gnu",
        "arm-linux-gnueabihf-gcc": "gcc-arm-linux-gnueabihf",
        "qemu-system-arm": "qemu-system-arm",
        "qemu-aarch64": "qemu-user",
        "qemu-arm": "qemu-user",
    }
)
_REPORT = re.compile(r"^(\w[\w.]*) = (?:(\d+)|\S+ 0x([0-9a-f]{8}))$", re.MULTILINE)
_OPTIMIZE = ("-O2", "-fno-math-errno")


@dataclass(frozen=True)
class Sizes:
    """Bytes of a firmware's sections."""

    text: int
    """Code and constants."""
    data: int
    bss: int
    stack: int
    """Reserved for the stack."""
    regions: Mapping[str, int] = field(default_factory=dict[str, int])
    """What the model has in other memories of the board."""

    @property
    def flash(self) -> int:
        """Code, constants and the initial values of data."""
        return self.text + self.data

    @property
    def ram(self) -> int:
        """Data, zeroed data and stack, in all memories."""
        return self.data + self.bss + self.stack + sum(self.regions.values())


@dataclass(frozen=True)
class Executable:
    """A linked program."""

    path: Path
    target: Target
    sizes: Sizes | None = None
    """Of firmware only."""


@dataclass(frozen=True)
class Run:
    """What a program did."""

    code: int
    """Its exit status."""
    output: str
    counts: Mapping[str, Sequence[int]]
    """What platform_report_count printed under each name, in order."""
    floats: Mapping[str, Sequence[float]]
    """What platform_report_float printed under each name, in order; exactly the f32."""


def device_file(name: str) -> Path:
    """A file of the platform layer."""
    return Path(str(files("niwaki.backends.c") / "device" / name))


def install_command(tools: Iterable[str]) -> str:
    """The command that installs the programs `tools` on Debian."""
    packages = {p for name in tools for p in _PACKAGES.get(name, name).split()}
    return f"apt-get install -y {' '.join(sorted(packages))}"


def find_tool(name: str) -> str:
    """The path of a program; UsageError with the command that installs it."""
    path = shutil.which(name)
    if path is None:
        raise UsageError(f"'{name}' is not installed: run '{install_command([name])}'")
    return path


def missing_tools(target: Target) -> tuple[str, ...]:
    """The programs that building and running for `target` needs and this machine lacks."""
    needed = [target.cc[0], *target.emulator[:1]]
    if target.board is not None:
        needed += ["arm-none-eabi-size", "qemu-system-arm"]
    return tuple(name for name in needed if shutil.which(name) is None)


def run_compiler(
    command: Sequence[str], sources: Sequence[Path], output: Path, flags: Sequence[str] = ()
) -> None:
    """Compiles and links; DoesNotFitError if a memory region overflows, UsageError with the
    compiler's messages if anything else goes wrong."""
    find_tool(command[0])
    line = [*command, *flags, *map(str, sources), "-o", str(output), "-lm"]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return
    overflow = re.search(r"region [`'](\w+)' overflowed by (\d+) bytes", done.stderr)
    if overflow is not None:
        raise DoesNotFitError(
            f"the firmware needs {overflow[2]} bytes more {overflow[1]} than there is: "
            "update fewer parameters, use a smaller batch, or a board with more memory"
        )
    raise UsageError(f"{' '.join(line)} failed:\n{done.stderr.strip()}")


def build_linux(
    sources: Sequence[Path],
    output: Path,
    target: Target,
    flags: Sequence[str] = STRICT,
    sanitize: bool = False,
) -> Executable:
    """A Linux program, for this machine or another one, with the platform layer.

    `sanitize`: with the address and undefined-behaviour sanitizers.
    """
    checks = ["-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    options = [*flags, *_OPTIMIZE, *(checks if sanitize else []), *_include()]
    layer = [device_file("platform_linux.c"), device_file("report.c")]
    run_compiler(target.cc, [*sources, *layer], output, options)
    return Executable(output, target)


def link_script(
    target: Target, ram_bytes: int | None = None, stack_bytes: int = STACK_BYTES
) -> str:
    """The linker script of the target's board, with `ram_bytes` of RAM (None: the board's).

    Every writable region of the user's board has a section; data and stack of the program are in
    the first one.
    """
    flash, ram, *others = _linked_memories(target)
    if ram_bytes is not None:
        ram = replace(ram, bytes=ram_bytes)
    apart = target.vectors[1] > 0 and not target.regions
    vectors = _LinkedMemory("VECTORS", *target.vectors) if apart else flash
    code = dict.fromkeys((flash, vectors))
    return Template(device_file("link.ld").read_text(encoding="utf-8")).substitute(
        memories="\n".join(
            [f"    {memory.name} (rx) : {memory.place}" for memory in code]
            + [f"    {memory.name} (rwx) : {memory.place}" for memory in (ram, *others)]
        ),
        region_sections="".join(map(_region_section, others)),
        vectors=vectors.name,
        flash=flash.name,
        ram=ram.name,
        stack_length=stack_bytes,
    )


@dataclass(frozen=True)
class _LinkedMemory:
    name: str
    address: int
    bytes: int

    @property
    def place(self) -> str:
        return f"ORIGIN = {hex(self.address)}, LENGTH = {self.bytes}"


def _linked_memories(target: Target) -> list[_LinkedMemory]:
    """What holds the code, what holds the data, and the other writable regions."""
    placed = [
        (r.read_only, _LinkedMemory(r.name, r.address, r.bytes))
        for r in target.regions
        if r.address is not None
    ]
    flash = [memory for read_only, memory in placed if read_only]
    writable = [memory for read_only, memory in placed if not read_only]
    return [
        *(flash or [_LinkedMemory("FLASH", *target.flash)]),
        *(writable or [_LinkedMemory("RAM", *target.ram)]),
    ]


def _region_section(memory: _LinkedMemory) -> str:
    return f"""
    .bss.{memory.name} (NOLOAD) :
    {{
        *(.bss.{memory.name})
    }} > {memory.name}
"""


def firmware_flags(target: Target) -> list[str]:
    """Compiler flags of firmware, but for the linker script."""
    return [
        *_OPTIMIZE,
        "-ffunction-sections",
        "-fdata-sections",
        "-nostartfiles",
        "-Wl,--gc-sections",
        f"-DBOARD_SYSTICK_MHZ={target.systick_mhz}",
        f"-DBOARD_ICOUNT_SHIFT={ICOUNT_SHIFT}",
    ]


def build_firmware(
    sources: Sequence[Path],
    output: Path,
    target: Target,
    ram_bytes: int | None = None,
    stack_bytes: int = STACK_BYTES,
    flags: Sequence[str] = STRICT,
) -> Executable:
    """Firmware for the target's board; DoesNotFitError if it overflows flash or `ram_bytes`."""
    script = output.with_suffix(".ld")
    script.write_text(link_script(target, ram_bytes, stack_bytes), encoding="utf-8")
    board = [device_file(n) for n in ("startup.c", "platform_board.c", "report.c")]
    options = [*flags, *firmware_flags(target), f"-T{script}", *_include()]
    run_compiler(target.cc, [*sources, *board], output, options)
    return Executable(output, target, _section_sizes(output))


def run_program(program: Executable, timeout: float, arguments: Sequence[str] = ()) -> Run:
    """Runs a Linux program, under the target's emulator if it has one."""
    command = [*program.target.emulator, str(program.path.resolve()), *arguments]
    return _run(command, timeout, program.path.parent)


def emulator_command(target: Target, firmware: str) -> list[str]:
    """The command that runs firmware on the target's board."""
    assert target.board is not None
    line = (
        f"qemu-system-arm -M {target.board} -nographic -monitor none -serial none "
        f"-semihosting-config enable=on,target=native -icount shift={ICOUNT_SHIFT} -kernel"
    )
    return [*line.split(), firmware]


def run_firmware(program: Executable, timeout: float) -> Run:
    """Runs firmware on its board; files it names are in the firmware's folder."""
    command = emulator_command(program.target, str(program.path.resolve()))
    return _run(command, timeout, program.path.parent)


def _run(command: Sequence[str], timeout: float, folder: Path) -> Run:
    find_tool(command[0])
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=timeout,
            cwd=folder,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise UsageError(f"{' '.join(command)} did not end within {timeout} s") from None
    output = done.stdout + done.stderr
    counts: dict[str, list[int]] = {}
    floats: dict[str, list[float]] = {}
    for name, count, bits in _REPORT.findall(output):
        if count:
            counts.setdefault(name, []).append(int(count))
        else:
            floats.setdefault(name, []).append(struct.unpack(">f", bytes.fromhex(bits))[0])
    return Run(done.returncode, output, counts, floats)


def _include() -> list[str]:
    return [f"-I{device_file('platform.h').parent}"]


def _section_sizes(path: Path) -> Sizes:
    line = [find_tool("arm-none-eabi-size"), "-A", str(path)]
    text = subprocess.run(line, capture_output=True, text=True, check=True).stdout
    sections = {name: int(size) for name, size in re.findall(r"^(\.\S+)\s+(\d+)", text, re.M)}
    return Sizes(
        text=sum(sections.get(name, 0) for name in (".vectors", ".text", ".ARM.exidx")),
        data=sections.get(".data", 0),
        bss=sections.get(".bss", 0),
        stack=sections.get(".stack", 0),
        regions={
            name.removeprefix(".bss."): size
            for name, size in sections.items()
            if name.startswith(".bss.")
        },
    )
