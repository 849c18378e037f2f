"""Inputs in the arena: nothing lies on them before they were read, and nothing comes out other."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest

import niwaki
from niwaki.backends.c.arguments import arguments_of
from niwaki.backends.c.blocks import arena_blocks, state_blocks
from niwaki.backends.c.example import TestVectors
from niwaki.backends.c.input_places import InputPlaces, place_inputs
from niwaki.backends.c.package import write_c
from niwaki.backends.c.toolchain import (
    STRICT,
    build_firmware,
    build_linux,
    run_firmware,
    run_program,
)
from niwaki.backends.targets import get_target
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.lowered import Lowered
from tests.boards import write_board
from tests.c_programs import TIMEOUT, need_tools
from tests.networks import lenet
from tests.passes.test_quantized import small_network

PROGRAM = Path(__file__).parent / "batches_program.c"
RANDOM = np.random.default_rng(5)
REGIONS = (
    {"name": "sram", "bytes": 256 << 10, "cost": 2, "address": 0x20100000, "reserved": 64 << 10},
    {"name": "dtcm", "bytes": 8 << 10, "address": 0x20000000},
)
"""Data and stack of the program are in the first one."""


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_board(tmp_path_factory.mktemp("board") / "b.toml", "cortex-m7", *REGIONS))


@cache
def lowered_for(network: str, target: str, update: str = "full") -> Lowered:
    program = small_network() if network == "quantized" else lenet(2, 12)
    step = niwaki.compile(program, optimizer=niwaki.SGD(lr=0.05), update=update, target=target)
    return step.lowered


def _bytes(lowered: Lowered) -> dict[str, int]:
    entries = lowered.entries.values()
    arguments = [a for e in entries for a in arguments_of(e) if a.read]
    return {a.name: a.port.elements * np.dtype(a.port.dtype).itemsize for a in arguments}


def _check(lowered: Lowered, found: InputPlaces) -> None:
    """Replays every function byte by byte: what an input has is not written before it was read."""
    sizes, blocks = _bytes(lowered), arena_blocks(lowered)
    used = {n: set(range(p.offset, p.offset + sizes[n])) for n, p in found.places.items()}
    for name, place in found.places.items():
        assert place.offset % 8 == 0
        assert place.offset + sizes[name] <= found.sizes[place.block]
        for other, there in found.places.items():
            apart = other == name or there.block != place.block
            assert apart or not used[name] & used[other]
    for op in lowered.module.body.block.ops:
        if not isinstance(op, plan.ProgramOp):
            continue
        entry = lowered.entries[op.sym_name.data]
        arguments = [a.name for a in arguments_of(entry) if a.read]
        starts = {part.region: part.start for part in entry.regions}
        calls = [call for call in op.body.block.ops if isinstance(call, plan.CallOp)]
        for number, name in enumerate(arguments):
            region = blocks[found.places[name].block].region
            reads = [n for n, call in enumerate(calls) if number in _inputs(call)]
            for buffer in entry.buffers:
                if not reads or buffer.region != region or buffer.first > max(reads):
                    continue
                start = buffer.offset - starts.get(region, 0)
                assert not used[name] & set(range(start, start + buffer.bytes)), (name, buffer)


def _inputs(call: plan.CallOp) -> set[int]:
    """The numbers of the inputs that a call reads."""
    views = (argument.owner for argument in call.arguments)
    return {
        get_int(view.properties, "index")
        for view in views
        if isinstance(view, plan.ViewOp) and view.space.data == "input"
    }


@pytest.mark.parametrize("network", ["quantized", "lenet"])
@pytest.mark.parametrize("update", ["full", "head"])
def test_places(network: str, update: str) -> None:
    lowered = lowered_for(network, "cortex-m7", update)
    _check(lowered, place_inputs(lowered))


def test_places_in_regions(board: str) -> None:
    lowered = lowered_for("lenet", board)
    assert len(arena_blocks(lowered)) == 2
    _check(lowered, place_inputs(lowered))


def test_an_image_fits_where_later_layers_are() -> None:
    """Nothing reads the image again: it costs nothing where a later layer needs more."""
    lowered = lowered_for("lenet", "cortex-m7", "head")
    found = place_inputs(lowered)
    assert found.places["x"].offset + _bytes(lowered)["x"] <= lowered.arena_bytes


@pytest.mark.parametrize("network", ["quantized", "lenet"])
@pytest.mark.parametrize("emulated", [False, True])
def test_batches_from_a_source(network: str, emulated: bool, board: str, tmp_path: Path) -> None:
    """On the core, and here with sanitizers; LeNet in two memories."""
    core = get_target(board if network == "lenet" else "cortex-m7")
    target, lowered = core if emulated else get_target("host"), lowered_for(network, core.name)
    need_tools(target)
    shape = lowered.entries["infer"].inputs[0].shape
    vectors = TestVectors(
        [RANDOM.uniform(-2, 2, shape).astype(np.float32), np.array([0, 2], np.int32)], []
    )
    package = write_c(lowered, tmp_path / "net", name="net", vectors=vectors)
    main = tmp_path / "main.c"
    main.write_text(_program(lowered), encoding="utf-8")
    files, flags = [package / "net.c", package / "net_data.c", main], (*STRICT, f"-I{package}")
    if emulated:
        run = run_firmware(build_firmware(files, tmp_path / "n.elf", target, flags=flags), TIMEOUT)
    else:
        built = build_linux(files, tmp_path / "net.bin", target, flags, sanitize=True)
        run = run_program(built, TIMEOUT)
    assert run.code == 0, f"a check failed: its line is {run.code}\n{run.output}"


def _program(lowered: Lowered) -> str:
    """The program with arrays of exactly the bytes that the library asks for."""
    arena, state = arena_blocks(lowered), state_blocks(lowered)
    sizes = {b.name: f"NET_INPUT_{b.name.upper()}_BYTES" for b in arena}
    sizes |= {b.name: f"NET_{b.name.upper()}_BYTES" for b in state}
    sections = {b.name: f"NET_IN_{b.region.upper()} " if b.region else "" for b in (*arena, *state)}
    arrays = [
        f"{sections[name]}static uint64_t {name}[{size} / 8u];" for name, size in sizes.items()
    ]
    grown = f"NET_INPUT_{arena[-1].name.upper()}_BYTES - 1u"
    passed = [f"{name}, sizeof {name}" for name in sizes]
    small = [*passed]
    small[len(arena) - 1] = f"{arena[-1].name}, {grown}"
    poison = " ".join(f"memset({b.name}, 0xff, sizeof {b.name});" for b in arena)
    return (
        PROGRAM.read_text(encoding="utf-8")
        .replace("ARRAYS", "\n".join(arrays))
        .replace("SMALL_ARGUMENTS", ", ".join(small))
        .replace("ARGUMENTS", ", ".join(passed))
        .replace("POISON", poison)
    )
