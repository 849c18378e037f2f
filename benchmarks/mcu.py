"""Firmware of the digits demo on every emulated core: RAM, flash, instructions per step.

    python -m benchmarks.mcu [--quick] [--json PATH]

Instructions, not cycles. Needs the cross compiler and QEMU (`make demo` installs both).
"""

import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import Row, main
from examples import demo

CORES = ("cortex-m7", "cortex-m4", "cortex-m33", "cortex-m55")


def run(quick: bool) -> list[Row]:
    """Every core, full and sparse update, over a few steps."""
    rows: list[Row] = []
    steps = 2 if quick else 10
    with np.load(demo.HERE / "digits.npz", allow_pickle=False) as digits:
        train = demo.Batches.of(digits, digits["finetune_train"][: steps * demo.BATCH])
        test = demo.Batches.of(digits, digits["finetune_test"][: demo.BATCH])
    for core in CORES[:1] if quick else CORES:
        for name, update in (("full", "full"), ("sparse", demo.SCHEME)):
            step = demo.compiled(core, update)
            with tempfile.TemporaryDirectory() as folder:
                firmware = demo.on_core(step, train, test, Path(folder))
            label, sizes = f"digits/{name}/{core}/b{demo.BATCH}", firmware.sizes
            entry = step.lowered.entries["train_step"]
            rows += [
                Row(label, "instructions.step", firmware.instructions, "instructions"),
                Row(label, "sram.bytes", sizes.data + sizes.bss + firmware.stack, "bytes"),
                Row(label, "flash.bytes", sizes.flash, "bytes"),
                Row(label, "arena.bytes", entry.arena_bytes, "bytes"),
                Row(label, "bound.bytes", entry.bound_bytes, "bytes"),
            ]
    return rows


if __name__ == "__main__":
    main(__doc__, run)
