"""int8 networks trained on emulated cores: instructions, SRAM, flash, and whether all bits agree.

    python -m benchmarks.int8 [--quick] [--json PATH]

The published networks at 128 x 128, batch 1, under the schemes of examples/schemes. Instructions,
not cycles. `sram.bytes` is arena, state and measured stack; `sram_with_inputs.bytes` the same with
the inputs in the arena, where the C library places them. `bytes.different` counts what is not as
the JIT has it: outputs, losses, and all that the steps changed. Needs the cross compiler and QEMU
(`make demo` installs both) and the pretrained networks (see tests/quantized_networks.py).
"""

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import niwaki
from benchmarks.common import Row, main
from benchmarks.learning_problem import load_pictures
from niwaki.backends.c.input_places import place_inputs
from niwaki.backends.c.saved_state import pack
from niwaki.backends.c.toolchain import STRICT, Executable, Run, build_firmware, run_firmware
from niwaki.ir.errors import DoesNotFitError
from tests.quantized_networks import NETWORKS, load

HERE = Path(__file__).parent
SCHEMES = HERE.parent / "examples" / "schemes"
OPTIMIZER = niwaki.SGD(lr=0.01)
CLASSES = 10
CORES = ("cortex-m7", "cortex-m4", "cortex-m55")
RAM_BYTES = 1 << 20
"""Of the emulated board: what the firmware takes of it is measured."""
EMULATOR_SECONDS = 600
LIMITS = {"mcunet-5fps": 101_600, "mbv2-w0.35": 99_000}
"""Bytes of arena and state, of the builds with a memory limit. The first leaves the stack its part
of 100 KiB."""

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Case:
    """A network, its update scheme, and the samples of the steps."""

    network: str
    scheme: str
    images: Array
    labels: Array
    limit: int | None = None
    """Most bytes of arena and state; None: whatever the fastest plan takes."""

    @property
    def label(self) -> str:
        """For rows."""
        limit = "" if self.limit is None else f"/limit{self.limit}"
        return f"{self.network}/{self.scheme}{limit}"

    def compiled(self, target: str) -> niwaki.TrainingStep:
        """The training step for a target."""
        path = SCHEMES / f"{self.network}-{self.scheme}.toml"
        update = niwaki.Scheme.from_toml(path)
        program = load(self.network, CLASSES)
        return niwaki.compile(
            program,
            optimizer=OPTIMIZER,
            update=update,
            batch=1,
            target=target,
            memory_limit=self.limit,
        )

    def samples(self) -> list[tuple[Array, Array]]:
        """Batches of one."""
        return [(self.images[i : i + 1], self.labels[i : i + 1]) for i in range(len(self.labels))]


@dataclass(frozen=True)
class Outcome:
    """What one inference on the first sample and a step on each one gave."""

    outputs: bytes
    losses: bytes
    state: bytes
    """As the library saves it."""

    @property
    def bytes(self) -> Array:
        """All of it."""
        return np.frombuffer(self.outputs + self.losses + self.state, np.uint8)


def on_host(case: Case) -> Outcome:
    """By the JIT, without the limit: the host's vectors take other workspace."""
    step = replace(case, limit=None).compiled("host")
    outputs = np.asarray(step.infer(case.images[:1]))
    losses = np.array([step(x, y) for x, y in case.samples()], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "state"
        step.save_c(saved)
        return Outcome(outputs.tobytes(), losses.tobytes(), saved.read_bytes())


def on_core(step: niwaki.TrainingStep, case: Case, folder: Path) -> tuple[Outcome, Run, Executable]:
    """On the emulated core; `folder` receives the C, the firmware and its files."""
    package = step.write_c(folder / "c", name="net")
    with (folder / "samples.bin").open("wb") as file:
        for x, y in case.samples():
            file.write(x.tobytes() + y.tobytes())
    firmware = build_firmware(
        [package / "net.c", package / "net_data.c", HERE / "int8_firmware.c"],
        folder / "net.elf",
        step.target,
        ram_bytes=RAM_BYTES,
        flags=[*STRICT, f"-I{package}", f"-DSTEPS={len(case.labels)}"],
    )
    run = run_firmware(firmware, EMULATOR_SECONDS)
    if run.code != 0:
        raise niwaki.MismatchError(f"the firmware ended with status {run.code}:\n{run.output}")
    state = np.fromfile(folder / "state.bin", np.uint8)
    outputs, losses = ((folder / f"{name}.bin").read_bytes() for name in ("outputs", "losses"))
    return Outcome(outputs, losses, pack(step.lowered, state, step.lr)), run, firmware


def measure(case: Case, cores: tuple[str, ...]) -> list[Row]:
    """The rows of one network and scheme; a core whose board is too small has none."""
    rows: list[Row] = []
    expected: Outcome | None = None
    for core in cores:
        step = case.compiled(core)
        label = f"{case.label}/{core}"
        with tempfile.TemporaryDirectory() as folder:
            try:
                outcome, run, firmware = on_core(step, case, Path(folder))
            except DoesNotFitError as error:
                print(f"{label}: {error}", file=sys.stderr)
                continue
        expected = expected or on_host(case)
        count = {name: values[-1] for name, values in run.counts.items()}
        entry = step.lowered.entries["train_step"]
        kept = len(step.lowered.state_image) + count["bytes.stack"]
        with_inputs = sum(place_inputs(step.lowered).sizes)
        assert firmware.sizes is not None
        different = int(np.count_nonzero(outcome.bytes != expected.bytes))
        rows += [
            Row(label, "instructions.infer", count["instructions.infer"], "instructions"),
            Row(label, "instructions.step", count["instructions.step"], "instructions"),
            Row(label, "sram.bytes", step.lowered.arena_bytes + kept, "bytes"),
            Row(label, "sram_with_inputs.bytes", with_inputs + kept, "bytes"),
            Row(label, "flash.bytes", firmware.sizes.flash, "bytes"),
            Row(label, "arena.bytes", entry.arena_bytes, "bytes"),
            Row(label, "bound.bytes", entry.bound_bytes, "bytes"),
            Row(label, "bytes.different", different, f"of {outcome.bytes.size}"),
        ]
    return rows


def run(quick: bool) -> list[Row]:
    """Both networks under their smallest scheme on every core, and within a memory limit."""
    pictures, _ = load_pictures()
    numbers = np.arange(1 if quick else 3)
    images, labels = pictures.codes(numbers), pictures.y[numbers]
    rows: list[Row] = []
    for network in NETWORKS[:1] if quick else NETWORKS:
        case = Case(network, "49kb", images, labels)
        rows += measure(case, CORES[:1] if quick else CORES)
        if not quick:
            rows += measure(replace(case, limit=LIMITS[network]), CORES[:1])
    return rows


if __name__ == "__main__":
    main(__doc__, run)
