"""A quantised network trained by the interpreter, the JIT, C and emulated cores: bit for bit."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import (
    STRICT,
    build_firmware,
    build_linux,
    run_firmware,
    run_program,
)
from niwaki.backends.llvm.object import object_code
from niwaki.backends.llvm.session import Session, storage_view
from niwaki.backends.targets import get_target, portable_c
from niwaki.ir.interpreter import run
from niwaki.ir.lowered import Lowered
from niwaki.passes.pipelines import compile_program
from tests.c_programs import TIMEOUT, need_tools
from tests.small_quantized_network import LR, OPTIONS, samples, small_network, trained

Array = np.ndarray[Any, np.dtype[Any]]
STEPS = 6
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
        memset(arena, 0xff, sizeof arena);
        status = net_train_step(&context, batch_x, batch_y, &loss);
        platform_report_float("loss", loss);
    }
    (void)platform_write("state.bin", state, sizeof state);
    return status;
}
"""


@cache
def reference(case: str) -> tuple[list[float], dict[str, Array]]:
    """Losses and the state at the end, by the interpreter."""
    program = trained(small_network(), OPTIONS[case], upto="integer-backward")
    x, labels = samples()
    state: dict[str, Array] = {}
    losses = [
        float(run(program, "train_step", [x, labels, np.float32(LR)], state)[0])
        for _ in range(STEPS)
    ]
    return losses, state


def compare(case: str, losses: list[float], image: Array, lowered: Lowered) -> None:
    """Everything that training leaves is equal; losses are sums of logarithms."""
    expected, state = reference(case)
    np.testing.assert_allclose(losses, expected, rtol=1e-5, atol=1e-6)
    found = {e.name: storage_view(image, e) for e in lowered.state}
    assert set(state) <= set(found)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name, strict=True)


@pytest.mark.parametrize("case", OPTIONS)
def test_every_parameter_learns(case: str) -> None:
    losses, state = reference(case)
    weights = small_network().weights

    assert losses[-1] < losses[0]
    for name in weights:
        assert np.any(state[name] != weights[name]), name


@pytest.mark.parametrize("case", OPTIONS)
def test_jit(case: str) -> None:
    target = get_target("host")
    lowered = compile_program(small_network(), OPTIONS[case], target)
    session = Session(lowered, object_code(lowered, target))
    x, labels = samples()
    losses: list[float] = []
    for _ in range(STEPS):
        session.arena[:] = 0xFF
        losses.append(float(session.run("train_step", [x, labels, np.float32(LR)])[0]))
    compare(case, losses, session.state, lowered)


@pytest.mark.parametrize(
    ("case", "name"),
    [
        *(("sgd", name) for name in ("host", "armv7", "cortex-m4", "cortex-m7", "cortex-m55")),
        ("momentum", "host"),
        ("momentum", "cortex-m7"),
        ("adam", "host"),
        ("adam", "cortex-m7"),
    ],
)
def test_c(case: str, name: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    lowered = compile_program(small_network(), OPTIONS[case], portable_c(target))
    folder = tmp_path / "net"
    write_c(lowered, folder, name="net", learning_rate=LR, vectors=TestVectors([*samples()], []))
    main = tmp_path / "main.c"
    main.write_text(MAIN.replace("STEPS", str(STEPS)))
    sources = [folder / "net.c", folder / "net_data.c", main]
    flags = (*STRICT, f"-I{folder}")
    if target.board is None:
        result = run_program(
            build_linux(sources, tmp_path / "net.bin", target, flags, name == "host"), TIMEOUT
        )
    else:
        result = run_firmware(
            build_firmware(sources, tmp_path / "net.elf", target, flags=flags), TIMEOUT
        )
    assert result.code == 0, result.output
    image = np.frombuffer((tmp_path / "state.bin").read_bytes(), np.uint8)
    compare(case, list(result.floats["loss"]), image, lowered)
