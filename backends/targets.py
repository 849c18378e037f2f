"""Targets: one row of data each. What a pass or a kernel must know of the machine is here."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

from niwaki.backends.regions import MemoryRegion as MemoryRegion
from niwaki.backends.regions import read_board
from niwaki.ir.errors import UsageError


@dataclass(frozen=True)
class Target:
    """A machine to compile for."""

    name: str
    triple: str
    """LLVM's target triple. Hard-float ARM needs four parts, else its calls are soft-float."""
    cpu: str
    """LLVM's name of the core."""
    features: str
    """LLVM's feature string."""
    lanes: int
    """f32 elements in one vector register; 1 where kernels are scalar."""
    vector_registers: int
    """Registers that hold a vector (or a float, where kernels are scalar)."""
    pointer_bits: int
    cache_bytes: int = 512 << 10
    """Of the largest cache that a core has to itself."""
    packed_halves: bool = False
    """Whether the core multiplies pairs of 16-bit halves (ARM's DSP extension)."""
    spends_scratch: bool = True
    """Whether kernels may take far more scratch where that makes them faster."""
    vector_dots: bool = False
    """Whether it sums the products of two vectors of codes, and C has its vectors (Helium)."""
    alignment: int = 64
    """Bytes; every buffer of the arena starts at a multiple."""
    cc: tuple[str, ...] = ("gcc",)
    """The C compiler with the flags that select the core."""
    board: str | None = None
    """QEMU machine with this core, for bare-metal targets."""
    emulator: tuple[str, ...] = ()
    """Command prefix that runs a Linux program of this target on another machine."""
    flash: tuple[int, int] = (0, 0)
    """Address and size (bytes) of the board's code memory."""
    vectors: tuple[int, int] = (0, 0)
    """Address and size (bytes) of the memory of the vector table, where that is not flash."""
    ram: tuple[int, int] = (0, 0)
    """Address and size (bytes) of the board's data memory."""
    systick_mhz: int = 0
    """Frequency of the board's SysTick timer."""
    regions: tuple[MemoryRegion, ...] = ()
    """The memories of the user's board; empty: one memory, as large as the program needs."""
    jit: bool = False
    """Whether this process can run the code."""
    threads: int = 1
    """Threads that a step runs on."""
    choices: Mapping[str, str] = field(default_factory=dict[str, str], repr=False, hash=False)
    """Label of a kernel -> the alternative that a measurement chose; see `niwaki.tuning`."""

    @property
    def has_flash(self) -> bool:
        """Whether what never changes takes no writable memory."""
        return self.flash[1] > 0

    @property
    def speaks_c(self) -> bool:
        """Whether C expresses its kernels well: scalars, or vectors that C compilers know."""
        return self.lanes == 1 or self.vector_dots

    @property
    def writable(self) -> tuple[MemoryRegion, ...]:
        """The regions that hold what changes, the fastest first."""
        return tuple(sorted((r for r in self.regions if not r.read_only), key=lambda r: r.cost))

    @property
    def read_only(self) -> MemoryRegion | None:
        """The region that holds frozen weights."""
        return next((r for r in self.regions if r.read_only), None)


def _cortex_m(
    name: str,
    triple: str,
    cpu: str,
    flags: str,
    board: str,
    flash: tuple[int, int],
    ram: int,
    systick_mhz: int,
) -> Target:
    return Target(
        name=name,
        triple=triple,
        cpu=cpu,
        features="",
        lanes=1,
        vector_registers=32,
        pointer_bits=32,
        packed_halves=True,
        spends_scratch=False,
        alignment=8,
        cc=("arm-none-eabi-gcc", "-mthumb", *flags.split()),
        board=board,
        flash=flash,
        ram=(ram, 256 << 10),
        systick_mhz=systick_mhz,
    )


_ROWS = (
    Target(
        name="x86-64",
        triple="x86_64-unknown-linux-gnu",
        cpu="x86-64-v3",
        features="",
        lanes=8,
        vector_registers=16,
        pointer_bits=64,
    ),
    Target(
        name="aarch64",
        triple="aarch64-unknown-linux-gnu",
        cpu="cortex-a72",
        features="",
        lanes=4,
        vector_registers=32,
        pointer_bits=64,
        cc=("aarch64-linux-gnu-gcc",),
        emulator=("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    ),
    Target(
        name="armv7",
        triple="armv7-unknown-linux-gnueabihf",
        cpu="cortex-a7",
        features="+neon,+vfp4",
        lanes=4,
        vector_registers=16,
        pointer_bits=32,
        cc=("arm-linux-gnueabihf-gcc", "-mfpu=neon-vfpv4"),
        emulator=("qemu-arm", "-L", "/usr/arm-linux-gnueabihf"),
    ),
    _cortex_m(
        "cortex-m4",
        "thumbv7em-none-unknown-eabihf",
        "cortex-m4",
        "-mcpu=cortex-m4 -mfpu=fpv4-sp-d16 -mfloat-abi=hard",
        "mps2-an386",
        (0x0, 4 << 20),
        0x20000000,
        25,
    ),
    _cortex_m(
        "cortex-m7",
        "thumbv7em-none-unknown-eabihf",
        "cortex-m7",
        "-mcpu=cortex-m7 -mfpu=fpv5-sp-d16 -mfloat-abi=hard",
        "mps2-an500",
        (0x0, 4 << 20),
        0x20000000,
        25,
    ),
    _cortex_m(
        "cortex-m33",
        "thumbv8m.main-none-unknown-eabihf",
        "cortex-m33",
        "-mcpu=cortex-m33 -mfpu=fpv5-sp-d16 -mfloat-abi=hard",
        "mps2-an505",
        (0x10000000, 4 << 20),
        0x38000000,
        20,
    ),
    replace(
        _cortex_m(
            "cortex-m55",
            "thumbv8.1m.main-none-unknown-eabihf",
            "cortex-m55",
            # A conditional conversion to float (vcvtne) is an instruction of MVE to the assembler.
            # GCC's first scheduling takes no account of there being eight vectors only.
            "-mcpu=cortex-m55 -mfloat-abi=hard -fno-if-conversion2 -fno-schedule-insns",
            "mps3-an547",
            (0x01000000, 2 << 20),
            0x20000000,
            32,
        ),
        vectors=(0x0, 512 << 10),
        lanes=4,
        vector_registers=8,
        vector_dots=True,
    ),
)

TARGETS: Mapping[str, Target] = MappingProxyType({t.name: t for t in _ROWS})
"""Every target but "host", which is looked up at run time."""


def get_target(name: str) -> Target:
    """The target `name`; "host" is this machine, with the vector width it has.

    `name` may be the path of a .toml board (see `niwaki.backends.regions`). Raises UsageError with
    the known names, or with what is wrong with the board.
    """
    if name.endswith(".toml"):
        return _on_board(Path(name))
    if name == "host":
        return _host()
    if name not in TARGETS:
        raise UsageError(
            f"unknown target '{name}': use host, {', '.join(TARGETS)} or a .toml board"
        )
    return TARGETS[name]


def _on_board(path: Path) -> Target:
    board = read_board(path)
    if board.core.endswith(".toml"):
        raise UsageError(f"{path}: 'core' must be a target, not a board")
    return replace(get_target(board.core), name=str(path), regions=board.regions)


def _host() -> Target:
    import llvmlite.binding as llvm

    triple = llvm.get_process_triple()
    features = llvm.get_host_cpu_features()
    architecture = triple.split("-")[0]
    base = TARGETS["aarch64" if architecture in ("aarch64", "arm64") else "x86-64"]
    lanes, registers, cache = base.lanes, base.vector_registers, base.cache_bytes
    if architecture == "x86_64":
        if features.get("avx512f"):
            lanes, registers, cache = 16, 32, 1 << 20
        elif not features.get("avx2"):
            lanes = 4
    return replace(
        base,
        name="host",
        triple=triple,
        cpu=llvm.get_host_cpu_name(),
        features=features.flatten(),
        lanes=lanes,
        vector_registers=registers,
        cache_bytes=cache,
        cc=("gcc",),
        emulator=(),
        jit=True,
    )


def with_threads(target: Target, threads: int) -> Target:
    """`target` with steps on `threads` threads.

    Raises UsageError if it has no threads.
    """
    if threads < 1:
        raise UsageError(f"threads must be >= 1, got {threads}")
    able = target.pointer_bits == 64 and "linux" in target.triple and not target.regions
    if threads > 1 and not able:
        raise UsageError(
            f"steps for {target.name} run on one thread: leave threads={threads} out; host, x86-64 "
            "and aarch64 have more, on Linux"
        )
    return replace(target, threads=threads)


def portable_c(target: Target) -> Target:
    """`target` as the C emitter sees it: it has vectors of Helium; other kernels are scalar."""
    if target.vector_dots:
        return target
    registers = min(target.vector_registers, 16)
    return replace(target, lanes=1, vector_registers=registers, threads=1, choices={})
