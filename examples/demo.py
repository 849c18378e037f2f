"""Fine-tunes a digit recogniser on this machine and on an emulated Cortex-M7, and compares them.

The network in digits.pt2 knows the digits 0 to 4 (make_digits.py). A sparse update teaches it 5 to
9: the last two biases, the head, and the first half of the last convolution's input channels. The
firmware is linked into 256 KiB of RAM.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import niwaki
from niwaki.backends.c.toolchain import (
    STRICT,
    Sizes,
    build_firmware,
    install_command,
    missing_tools,
    run_firmware,
)
from niwaki.backends.targets import get_target
from niwaki.tools.report.contents import report_on
from niwaki.tools.report.page import html_page
from niwaki.tools.report.picture import png_picture
from niwaki.tools.report.savings import Ablation

HERE = Path(__file__).parent
CORE = "cortex-m7"
RAM_BYTES = 256 << 10
BATCH = 8
SCHEME = niwaki.Scheme.channels({"conv3.weight": 0.5}, biases=2)
OPTIMIZER = niwaki.SGD(lr=0.03)
LOSS_TOLERANCE = 1e-4
"""Of a loss on the core, relative to 1 + the host's: the two round differently, step after step."""
EMULATOR_SECONDS = 300.0

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Batches:
    """Whole batches: images [batches, BATCH, 1, 8, 8] in 0..1, labels [batches, BATCH]."""

    images: Floats
    labels: NDArray[np.int32]

    @classmethod
    def of(cls, digits: "np.lib.npyio.NpzFile", indices: NDArray[np.int32]) -> "Batches":
        """The images `indices` in this order; what fills no batch is left out."""
        chosen = indices[: len(indices) // BATCH * BATCH].reshape(-1, BATCH)
        images = digits["images"][chosen].astype(np.float32) / 16
        return cls(images[:, :, None], digits["labels"][chosen])

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Outcome:
    """What fine-tuning did on one machine."""

    before: float
    after: float
    """Accuracy on held-out images."""
    losses: Floats
    """Of each step."""
    compile_seconds: float
    """From the model file to code: machine code on the host, C for the core."""


@dataclass(frozen=True)
class Firmware:
    """What the core needed."""

    outcome: Outcome
    sizes: Sizes
    instructions: int
    """Of one training step."""
    stack: int
    """Deepest, in bytes."""


def on_host(train: Batches, test: Batches) -> Outcome:
    """Fine-tunes in this process."""
    step = compiled("host", SCHEME)

    def accuracy() -> float:
        right = [step.evaluate(x, y)[1] for x, y in zip(test.images, test.labels, strict=True)]
        return sum(r or 0 for r in right) / test.labels.size

    before = accuracy()
    losses = [step(x, y) for x, y in zip(train.images, train.labels, strict=True)]
    seconds = sum(step.compile_seconds.values())
    return Outcome(before, accuracy(), np.array(losses, np.float32), seconds)


def on_core(step: niwaki.TrainingStep, train: Batches, test: Batches, folder: Path) -> Firmware:
    """Fine-tunes on the emulated core; `folder` receives the C, the firmware and its files."""
    start = time.perf_counter()
    package = step.write_c(folder / "c", name="digits")
    writing = time.perf_counter() - start
    with (folder / "batches.bin").open("wb") as file:
        for batches in (train, test):
            for images, labels in zip(batches.images, batches.labels, strict=True):
                file.write(images.tobytes() + labels.tobytes())
    counts = [f"-DTRAIN_BATCHES={len(train)}", f"-DTEST_BATCHES={len(test)}"]
    firmware = build_firmware(
        [package / "digits.c", package / "digits_data.c", HERE / "demo_firmware.c"],
        folder / "demo.elf",
        step.target,
        ram_bytes=RAM_BYTES,
        flags=[*STRICT, f"-I{package}", *counts],
    )
    assert firmware.sizes is not None
    run = run_firmware(firmware, EMULATOR_SECONDS)
    if run.code != 0:
        raise niwaki.MismatchError(f"the firmware ended with status {run.code}:\n{run.output}")
    count = {name: values[-1] for name, values in run.counts.items()}
    outcome = Outcome(
        count["correct.before"] / test.labels.size,
        count["correct.after"] / test.labels.size,
        np.fromfile(folder / "losses.bin", np.float32),
        sum(step.compile_seconds.values()) + writing,
    )
    return Firmware(outcome, firmware.sizes, count["instructions.step"], count["bytes.stack"])


def compiled(target: str, update: niwaki.Scheme | str) -> niwaki.TrainingStep:
    """The training step of the demo."""
    return niwaki.compile(
        HERE / "digits.pt2", optimizer=OPTIMIZER, update=update, batch=BATCH, target=target
    )


def curve(losses: Floats, width: int = 60) -> str:
    """The losses as one line of text, on a logarithmic scale from 0.01 to 100."""
    parts = np.array_split(losses, min(width, len(losses)))
    heights = np.log10(np.maximum([part.mean() for part in parts], 0.01)) + 2
    return "".join("▁▂▃▄▅▆▇█"[min(int(h * 2), 7)] for h in heights)


def show_memory(sparse: niwaki.TrainingStep, full: niwaki.TrainingStep) -> None:
    """Peak memory of both updates beside the least that is possible."""
    print(f"{'memory of a step on the core':<30}{'arena':>10}{'lower bound':>13}{'state':>10}")
    for name, step in (("full update", full), ("sparse update", sparse)):
        entry, memory = step.lowered.entries["train_step"], step.memory
        print(
            f"{name:<30}{entry.arena_bytes:>10,}{entry.bound_bytes:>13,}{memory.state_bytes:>10,}"
        )


def show_core(firmware: Firmware) -> None:
    """Sizes and instructions."""
    sizes = firmware.sizes
    print(f"\nfirmware for the {CORE}, linked into {RAM_BYTES:,} bytes of RAM")
    for name, value in (
        ("code and constants (flash)", sizes.flash),
        ("data, arena and state (RAM)", sizes.data + sizes.bss),
        ("stack, deepest (RAM)", firmware.stack),
        ("instructions per step (not cycles)", firmware.instructions),
    ):
        print(f"{name:<36}{value:>12,}")


def compare(host: Outcome, core: Outcome) -> None:
    """Prints both outcomes; MismatchError if the loss curves differ."""
    print(f"\n{'accuracy on held-out 5-9':<30}{'before':>10}{'after':>10}")
    for name, outcome in (("host", host), (CORE, core)):
        print(f"{name:<30}{outcome.before:>10.1%}{outcome.after:>10.1%}")
    print(
        f"\nseconds to compile: {host.compile_seconds:.1f} to machine code of this host, "
        f"{core.compile_seconds:.1f} to C for the {CORE}"
    )
    print(f"\nloss over {len(host.losses)} steps (logarithmic)")
    for name, outcome in (("host", host), (CORE, core)):
        print(f"{name:<10} {curve(outcome.losses)}")
    error = np.abs(host.losses - core.losses) / (1 + np.abs(host.losses))
    largest = float(error.max())
    print(f"largest difference {largest:.2g} of 1 + loss, allowed {LOSS_TOLERANCE:g}")
    if not largest <= LOSS_TOLERANCE:
        raise niwaki.MismatchError("the loss curves of host and core differ")


def write_pictures(sparse: niwaki.TrainingStep, full: niwaki.TrainingStep, folder: Path) -> None:
    """Where the memory goes, as a page and as a picture."""
    report = report_on(
        sparse.lowered,
        sparse.target,
        "Digits: memory of a training step",
        [("update", "sparse"), ("batch", str(BATCH)), ("target", CORE)],
        [Ablation("sparse update", "compiled with a full update", full.lowered.entries)],
    )
    (folder / "memory.html").write_text(html_page(report), encoding="utf-8")
    (folder / "memory.png").write_bytes(png_picture(report.entries[0], report.title))
    print(f"\npictures: {folder / 'memory.html'}, {folder / 'memory.png'}")


def main() -> int:
    """Runs everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder for the files")
    parser.add_argument("--epochs", type=int, default=2, help="over the 627 images (%(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with np.load(HERE / "digits.npz", allow_pickle=False) as digits:
        random = np.random.default_rng(0)
        order = [random.permutation(digits["finetune_train"]) for _ in range(args.epochs)]
        train = Batches.of(digits, np.concatenate(order))
        test = Batches.of(digits, digits["finetune_test"])

    sparse, full = compiled(CORE, SCHEME), compiled(CORE, "full")
    show_memory(sparse, full)
    host = on_host(train, test)
    missing = missing_tools(get_target(CORE))
    if missing:
        print(f"\nhost: accuracy {host.before:.1%} before, {host.after:.1%} after")
        print(f"loss {curve(host.losses)}")
        print(f"\nTo run it on the {CORE} too, install the cross compiler and the emulator:")
        print(f"  sudo {install_command(missing)}")
    else:
        firmware = on_core(sparse, train, test, args.out)
        show_core(firmware)
        compare(host, firmware.outcome)

    write_pictures(sparse, full, args.out)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except niwaki.NiwakiError as error:
        sys.exit(f"demo: error: {error}")
