"""Runs kernels as C: one call on given arrays, on any target, and beside it as JIT."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from xdsl.dialects.builtin import IntegerAttr, MemRefType, StringAttr, SymbolRefAttr, i64
from xdsl.dialects.func import FuncOp
from xdsl.ir import Block, Region

from niwaki.backends.c.emit import emit_module
from niwaki.backends.c.literals import C_TYPES, initializer
from niwaki.backends.c.toolchain import (
    STRICT,
    Run,
    build_firmware,
    build_linux,
    device_file,
    missing_tools,
    run_compiler,
    run_firmware,
    run_program,
)
from niwaki.backends.llvm.compile import LoadedObject, compile_object, pointer_block
from niwaki.backends.llvm.emit import emit_module as emit_llvm
from niwaki.backends.targets import Target, get_target
from niwaki.ir.dialects import plan
from niwaki.ir.dtypes import dtype_of
from niwaki.ir.lowered import EntryPoint, Port

Array = np.ndarray[Any, np.dtype[Any]]
TIMEOUT = 120.0


def need_tools(target: Target) -> None:
    """Skips where the toolchain is missing; fails instead in continuous integration."""
    missing = missing_tools(target)
    if not missing:
        return
    reason = f"not installed: {', '.join(missing)}"
    if "CI" in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def one_call(kernel: FuncOp, reads: int) -> tuple[plan.ProgramOp, EntryPoint]:
    """@program: one call of `kernel` on the caller's arrays, the first `reads` of them inputs."""
    block = Block()
    kinds = [a.type for a in kernel.body.block.args]
    ports: list[Port] = []
    for number, kind in enumerate(kinds):
        assert isinstance(kind, MemRefType)
        space, index = ("input", number) if number < reads else ("output", number - reads)
        properties = {
            "space": StringAttr(space),
            "offset": IntegerAttr(0, i64),
            "index": IntegerAttr(index, i64),
        }
        block.add_op(plan.ViewOp.create(properties=properties, result_types=[kind]))
        ports.append(Port(space, kind.get_shape(), dtype_of(kind.element_type).name))
    call = plan.CallOp.create(
        operands=[op.results[0] for op in block.ops],
        properties={
            "kernel": SymbolRefAttr(kernel.sym_name.data),
            "reads": IntegerAttr(reads, i64),
            "writes": IntegerAttr(len(kinds) - reads, i64),
        },
    )
    block.add_op(call)
    program = plan.ProgramOp.create(
        properties={
            "sym_name": StringAttr("program"),
            "arena": IntegerAttr(0, i64),
            "bound": IntegerAttr(0, i64),
        },
        regions=[Region(block)],
    )
    program.verify()
    entry = EntryPoint("program", tuple(ports[:reads]), tuple(ports[reads:]), 0, 0, (), ())
    return program, entry


def run_jit(kernel: FuncOp, inputs: Sequence[Array]) -> list[Array]:
    """The results of one call in this process; they start as zeros."""
    target = get_target("host")
    program, entry = one_call(kernel, len(inputs))
    code = compile_object(emit_llvm([kernel], [program], target), target)
    loaded = LoadedObject(code, ["program"])
    outputs = [np.zeros(p.shape, p.dtype) for p in entry.outputs]
    empty = np.zeros(1, np.uint8)
    pointers = pointer_block([empty, empty, empty, *inputs, *outputs])
    loaded.functions["program"](pointers.ctypes.data)
    return outputs


def c_text(kernel: FuncOp, inputs: Sequence[Array], vectorized: bool = False) -> str:
    """A program that calls the kernel once and prints every word of its results.

    `vectorized`: as `niwaki.backends.c.emit.emit_module` has it.
    """
    program, entry = one_call(kernel, len(inputs))
    text = emit_module([kernel], [program], {"program": entry}, vectorized=vectorized)
    lines = [text, '#include "platform.h"']
    for number, (port, array) in enumerate(zip(entry.inputs, inputs, strict=True)):
        head = f"static const {C_TYPES[port.dtype]} operand{number}[{max(array.size, 1)}]"
        lines.append(f"{head} = {{\n{initializer(array)}\n}};")
    for number, port in enumerate(entry.outputs):
        lines.append(f"static {C_TYPES[port.dtype]} result{number}[{port.elements}];")
    arguments = [f"operand{n}" for n in range(len(inputs))]
    arguments += [f"result{n}" for n in range(len(entry.outputs))]
    lines += [
        "int main(void) {",
        "    const uint64_t before = platform_instructions();",
        f"    run_program(NULL, NULL, {', '.join(arguments)});",
        '    platform_report_count("instructions", platform_instructions() - before);',
    ]
    for number, port in enumerate(entry.outputs):
        value = f"result{number}[i]"
        if port.dtype == "float32":
            report = f'platform_report_float("v", {value});'
        else:
            report = f'platform_report_count("v", (uint64_t)({_unsigned(port.dtype)}_t){value});'
        lines.append(f"    for (int i = 0; i < {port.elements}; ++i) {{ {report} }}")
    return "\n".join([*lines, "    return 0;", "}", ""])


def _unsigned(dtype: str) -> str:
    return f"u{dtype}"


def compile_at(
    level: str, kernel: FuncOp, inputs: Sequence[Array], folder: Path, core: str = "cortex-m7"
) -> Path:
    """The object that a core's compiler makes at an optimisation level; it must accept."""
    target = get_target(core)
    need_tools(target)
    source, made = folder / "kernel.c", folder / "kernel.o"
    source.write_text(c_text(kernel, inputs, target.vector_dots))
    include = f"-I{device_file('platform.h').parent}"
    run_compiler(target.cc, [source], made, [*STRICT, level, "-c", include])
    return made


def run_c(
    kernel: FuncOp,
    inputs: Sequence[Array],
    target: Target,
    folder: Path,
    flags: Sequence[str] = STRICT,
    sanitize: bool = False,
) -> tuple[list[Array], Run]:
    """The results of one call as C on `target`, and the run that printed them."""
    source = folder / "kernel.c"
    source.write_text(c_text(kernel, inputs, target.vector_dots))
    if target.board is None:
        program = build_linux([source], folder / "kernel", target, flags, sanitize)
        run = run_program(program, TIMEOUT)
    else:
        run = run_firmware(build_firmware([source], folder / "k.elf", target, flags=flags), TIMEOUT)
    assert run.code == 0, run.output
    lines = [line.split() for line in run.output.splitlines() if line.startswith("v = ")]
    words = [int(x[-1], 16) if len(x) == 4 else int(x[-1]) for x in lines]
    results: list[Array] = []
    for port in one_call(kernel, len(inputs))[1].outputs:
        mine, words = words[: port.elements], words[port.elements :]
        width = np.uint32 if port.dtype == "float32" else _unsigned(port.dtype)
        results.append(np.array(mine, width).view(port.dtype).reshape(port.shape))
    assert not words
    return results, run
