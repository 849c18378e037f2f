"""Kernels against what this core can do: matrix products, and the convolutions of networks.

    python -m benchmarks.kernels [--quick] [--json PATH]

One thread. `roofline.share` is the least time that the core's limits allow, over the kernel's:
its operations at the rate of a loop that only multiplies and adds (for matrix products
`peak.share`), or its operands and results once at the rate of a loop that copies as many bytes,
whichever takes longer. Both loops run in turn with the kernel, so load from elsewhere slows all
alike, and time is the thread's own. `ms.lost` is what a network's convolutions take beyond that in
one full training step.

Where a convolution has fewer multiplications (Winograd), its share may exceed 1; `winograd.tile`
is the side of its tiles, with the time of the kernel that multiplies tap by tap over its own, both
timed in turn. `ms.step` is the whole training step, with that of tap by tap over it.
"""

import re
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import prod

import numpy as np
from xdsl.dialects.func import FuncOp
from xdsl.ir import Operation

import niwaki
from benchmarks.common import Row, interleaved, main
from niwaki.backends.kernels.spec import memref_of
from niwaki.backends.llvm.compile import LoadedObject
from niwaki.backends.llvm.machine_limits import copy_loop, entry_call, peak_loop
from niwaki.backends.llvm.object import object_code
from niwaki.backends.targets import Target, get_target
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import shape_of, type_of
from niwaki.passes.kernel_library import Kernel, KernelLibrary
from niwaki.passes.lower_to_plan import lower
from tests import networks

PRODUCTS = (
    (1024, 1024, 1024),
    (256, 256, 256),
    (64, 256, 784),
    (128, 1376, 512),
    (128, 512, 1376),
    (1376, 512, 128),
)
"""Rows, columns, length of the sum; the last ones are of a decoder, and of its gradients."""
NETWORKS: dict[str, Callable[[int], niwaki.Program]] = {
    "resnet18-224": partial(networks.resnet18, size=224),
    "mobilenetv2-w1.0-224": partial(networks.mobilenet_v2, size=224, width=1.0),
    "mobilenetv2-w0.35-128": networks.mobilenet_v2,
}


@dataclass(frozen=True)
class Layer:
    """A convolution: input NHWC, filter OHWI, window."""

    x: tuple[int, ...]
    w: tuple[int, ...]
    window: nn.Window

    @property
    def name(self) -> str:
        """As in "112x112x32-32.k3.s2.g32"."""
        parts = [f"{self.x[1]}x{self.x[2]}x{self.x[3]}-{self.w[0]}.k{self.w[1]}"]
        if self.window.strides[0] > 1:
            parts.append(f"s{self.window.strides[0]}")
        if self.window.groups > 1:
            parts.append(f"g{self.window.groups}")
        return ".".join(parts)

    def kernels(self) -> Iterator[tuple[str, Callable[[ProgramBuilder], Value]]]:
        """(name, what builds the program) of the layer and its cotangents.

        There is none of the input of a network.
        """
        window, size = self.window, self.x[1:3]

        def forward(b: ProgramBuilder) -> Value:
            return b.conv2d(
                b.input(self.x), b.input(self.w), window.strides, window.padding, window.dilation,
                window.groups,
            )  # fmt: skip

        dy = shape_of(forward(ProgramBuilder()))
        yield "forward", forward
        if self.x[3] > 3:
            yield "dx", lambda b: b.conv2d_dx(b.input(dy), b.input(self.w), window, size)
        kernel = self.w[1:3]
        yield "dw", lambda b: b.conv2d_dw(b.input(self.x), b.input(dy), window, kernel)


@dataclass(frozen=True)
class Timing:
    """Milliseconds of a kernel and of the loops that bound it."""

    kernel: float
    compute: float
    memory: float
    tile: int | None
    """The side of Winograd's tiles; None: the kernel multiplies tap by tap."""
    taps: float
    """Of the kernel that does."""

    @property
    def share(self) -> float:
        """Of the roofline."""
        return max(self.compute, self.memory) / self.kernel


def tap_by_tap(kernels: Iterable[Kernel]) -> dict[str, str]:
    """Label -> the best alternative that is not Winograd's, where that is chosen."""
    return {
        kernel.label: next(a.name for a in kernel.alternatives if winograd_tile(a.name) is None)
        for kernel in kernels
        if winograd_tile(kernel.choice) is not None
    }


def winograd_tile(choice: str) -> int | None:
    """The side of the tiles of an alternative; None if it is another algorithm's."""
    match = re.fullmatch(r"winograd F\((\d+)x\d+\)", choice)
    return None if match is None else int(match[1])


def _kernel(value: Value, target: Target) -> Kernel:
    op = value.owner
    assert isinstance(op, Operation)
    operands, results = ([memref_of(type_of(v)) for v in vs] for vs in (op.operands, op.results))
    return KernelLibrary(target).compute(op, operands, results)


@dataclass(frozen=True)
class Call:
    """A compiled kernel on arrays of its own."""

    run: Callable[[], object]
    flops: int
    port_bytes: int


def _call(builder: ProgramBuilder, value: Value, target: Target) -> Call:
    lowered = lower(builder.finish(value), target)
    entry = lowered.entries["forward"]
    rng = np.random.default_rng(0)
    ports = [rng.standard_normal(p.shape, np.float32) for p in (*entry.inputs, *entry.outputs)]
    empty = np.zeros(1, np.uint8)
    arena = np.zeros(max(lowered.arena_bytes, 1) + 64, np.uint8)
    start = -arena.ctypes.data % 64
    loaded = LoadedObject(object_code(lowered, target), ["forward"])
    run = entry_call(loaded, "forward", [arena[start:], empty, empty, *ports])
    return Call(run, sum(c.flops for c in entry.calls), sum(p.nbytes for p in ports))


def time_kernel(make: Callable[[ProgramBuilder], Value], seconds: float) -> Timing:
    """Times the kernel of the program that `make` builds, on this machine."""
    target, builder = get_target("host"), ProgramBuilder()
    value = make(builder)
    kernel = _kernel(value, target)
    tile = winograd_tile(kernel.choice)
    calls = [_call(builder, value, target)]
    if tile is not None:
        builder = ProgramBuilder()
        other = replace(target, choices=tap_by_tap([kernel]))
        calls.append(_call(builder, make(builder), other))
    peak, flops = peak_loop(target)
    copy = copy_loop(calls[0].port_bytes, target)
    steps = [peak, copy, *(call.run for call in calls)]
    peak_ms, copy_ms, kernel_ms, *taps = interleaved(steps, seconds, 7, time.thread_time)
    compute = peak_ms * calls[0].flops / flops
    return Timing(kernel_ms, compute, copy_ms, tile, taps[0] if taps else kernel_ms)


def _product(rows: int, columns: int, length: int, a: bool, b: bool) -> Timing:
    def make(builder: ProgramBuilder) -> Value:
        left = builder.input((length, rows) if a else (rows, length))
        right = builder.input((columns, length) if b else (length, columns))
        return builder.matmul(left, right, transpose_a=a, transpose_b=b)

    return time_kernel(make, 0.5)


def _layers(program: niwaki.Program) -> dict[Layer, int]:
    """The convolutions of a network and how often each occurs."""
    counts: dict[Layer, int] = {}
    forward = program.function("forward")
    assert isinstance(forward, FuncOp)
    for op in forward.body.block.ops:
        if isinstance(op, nn.Conv2dOp):
            layer = Layer(shape_of(op.x), shape_of(op.w), op.window)
            counts[layer] = counts.get(layer, 0) + 1
    return counts


def _network(name: str, batch: int, quick: bool) -> list[Row]:
    rows: list[Row] = []
    shares: list[float] = []
    total = lost = 0.0
    for layer, count in list(_layers(NETWORKS[name](batch)).items())[: 3 if quick else None]:
        for kind, make in layer.kernels():
            timing = time_kernel(make, 0.02 if quick else 0.1)
            case = f"{name}/b{batch}/{layer.name}/{kind}"
            rows.append(Row(case, "ms.kernel", timing.kernel, "ms"))
            rows.append(Row(case, "roofline.share", timing.share, "of 1"))
            if timing.tile is not None:
                ratio = timing.taps / timing.kernel
                rows.append(Row(case, "winograd.tile", timing.tile, "outputs", "taps", ratio))
            shares.append(timing.share)
            total += count * timing.kernel
            lost += count * timing.kernel * (1 - timing.share)
    case = f"{name}/b{batch}"
    return [
        *rows,
        Row(case, "roofline.median", statistics.median(shares), "of 1"),
        Row(case, "ms.convolutions", total, "ms"),
        Row(case, "ms.lost", lost, "ms"),
        *(() if quick else _step(name, batch)),
    ]


def _step(name: str, batch: int) -> list[Row]:
    """The full training step of a network, and the arena that it needs."""
    program, rng = NETWORKS[name](batch), np.random.default_rng(0)
    forward = program.function("forward")
    assert isinstance(forward, FuncOp)
    x = rng.standard_normal(shape_of(forward.body.block.args[0]), np.float32)
    y = rng.integers(0, 10, batch).astype(np.int32)
    step = niwaki.compile(program, optimizer=niwaki.SGD(1e-3))
    tuning = niwaki.Tuning().updated(step.target, tap_by_tap(step.choices))
    other = niwaki.compile(program, optimizer=niwaki.SGD(1e-3), tuning=tuning)
    ours, taps = interleaved(
        [lambda: step(x, y), lambda: other(x, y)], 2.0 * batch, 7, time.thread_time
    )
    arenas = [s.lowered.arena_bytes / 1e6 for s in (step, other)]
    case = f"{name}/b{batch}"
    return [
        Row(case, "ms.step", ours, "ms", "taps", taps / ours),
        Row(case, "mb.arena", arenas[0], "MB", "taps", arenas[1] / arenas[0]),
    ]


def run(quick: bool) -> list[Row]:
    """Matrix products in all forms, then every distinct convolution of the networks."""
    rows: list[Row] = []
    for sizes in PRODUCTS[1:] if quick else PRODUCTS:
        for form in ("nn", "nt", "tn", "tt"):
            timing = _product(*sizes, form[0] == "t", form[1] == "t")
            case = f"gemm/{'x'.join(map(str, sizes))}/{form}"
            rate = 2e-6 * prod(sizes) / timing.kernel
            rows.append(Row(case, "gflops", rate, "GFLOP/s"))
            rows.append(Row(case, "peak.share", timing.compute / timing.kernel, "of 1"))
    for name in ["mobilenetv2-w0.35-128"] if quick else NETWORKS:
        for batch in (1,) if quick else (1, 8):
            rows += _network(name, batch, quick)
    return rows


if __name__ == "__main__":
    main(__doc__, run)
