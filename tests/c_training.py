"""Trains a lowered program as C on the machine of a target."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import (
    STRICT,
    build_firmware,
    build_linux,
    run_firmware,
    run_program,
)
from niwaki.backends.targets import Target
from niwaki.ir.lowered import Lowered
from tests.c_programs import TIMEOUT

Array = np.ndarray[Any, np.dtype[Any]]
POISON = 0xFF
"""Every byte of the arena before every step: nan as f32, -1 as integers."""
MAIN = """
#include "net.h"
#include "net_vectors.h"
#include "platform.h"

#include <string.h>

static uint64_t arena[NET_ARENA_BYTES / 8u];
static uint64_t state[NET_STATE_BYTES / 8u];
static net_context context;

int main(void)
{
    int status = net_init(&context, arena, sizeof arena, state, sizeof state);
    for (int step = 0; step < STEPS && status == NET_OK; ++step) {
        float loss = 0.0f;
        memset(arena, POISON, sizeof arena);
        status = net_train_step(&context, batch_x, batch_y, &loss);
        platform_report_float("loss", loss);
    }
    (void)platform_write("state.bin", state, sizeof state);
    return status;
}
"""


def train_in_c(
    lowered: Lowered, batch: Sequence[Array], steps: int, lr: float, target: Target, folder: Path
) -> tuple[list[float], Array]:
    """Losses of `steps` steps on `batch` (x, y), and the bytes of the state behind them.

    On the host with sanitizers. The linker checks on boards that all fits their RAM.
    """
    package = folder / "net"
    write_c(lowered, package, name="net", learning_rate=lr, vectors=TestVectors([*batch], []))
    main = folder / "main.c"
    main.write_text(MAIN.replace("STEPS", str(steps)).replace("POISON", hex(POISON)))
    sources = [package / "net.c", package / "net_data.c", main]
    flags = (*STRICT, f"-I{package}")
    if target.board is None:
        sanitize = target.name == "host"
        program = build_linux(sources, folder / "net.bin", target, flags, sanitize)
        result = run_program(program, TIMEOUT)
    else:
        firmware = build_firmware(sources, folder / "net.elf", target, flags=flags)
        result = run_firmware(firmware, TIMEOUT)
    assert result.code == 0, result.output
    image = np.frombuffer((folder / "state.bin").read_bytes(), np.uint8)
    return list(result.floats["loss"]), image
