"""The example program of a package: one batch, a few training steps, the losses to expect."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from niwaki.backends.c.arguments import Argument, arguments_of
from niwaki.backends.c.contract import Contract, fill
from niwaki.backends.c.literals import C_TYPES, float_literal, initializer
from niwaki.ir.errors import UsageError


@dataclass(frozen=True)
class TestVectors:
    """A batch to train on, and what should come out."""

    __test__ = False

    arrays: Sequence[NDArray[np.generic]]
    """The inputs of train_step without the learning rate: x..., y."""
    losses: Sequence[float]
    """Of as many consecutive steps on the batch."""
    relative_tolerance: float = 1e-4
    """Of the losses: the cores' libraries round differently."""


def vectors_header(contract: Contract, vectors: TestVectors | None) -> str:
    """<prefix>_vectors.h: the batch (zeros if there are no vectors) and the expected losses."""
    if vectors is not None and len(vectors.arrays) != len(_batch(contract)):
        raise UsageError(
            f"test vectors need {len(_batch(contract))} arrays: the inputs, the target"
        )
    big = contract.prefix.upper()
    lines = [
        "/* Written by niwaki; do not edit. */",
        f"#ifndef {big}_VECTORS_H",
        f"#define {big}_VECTORS_H",
        "\n#include <stdint.h>\n",
    ]
    for number, argument in enumerate(_batch(contract)):
        array = None if vectors is None else vectors.arrays[number]
        lines.append(_array_text(argument, array))
    if vectors is not None and vectors.losses:
        expected = initializer(np.array(vectors.losses, np.float32))
        lines.append(f"static const float expected[{len(vectors.losses)}] = {{\n{expected}\n}};")
    return "\n".join([*lines, "\n#endif", ""])


def main_file(contract: Contract, vectors: TestVectors | None) -> str:
    """main.c."""
    entries = contract.lowered.entries
    lines: list[str] = []
    if "train_step" in entries:
        lines += _training(contract, vectors)
    for name in ("infer", "evaluate"):
        if name in entries:
            lines += _single(contract, name)
    body = "\n".join(f"    {line}" if line else "" for line in lines)
    memory = {
        "arrays": "\n".join(contract.arrays()),
        "array_arguments": contract.array_arguments(),
    }
    return fill("main.c", {**contract.names, **memory, "body": body})


def _batch(contract: Contract) -> list[Argument]:
    """The arrays that the example passes in: those of train_step, or else of infer."""
    entries = contract.lowered.entries
    entry = entries["train_step"] if "train_step" in entries else entries["infer"]
    return [a for a in arguments_of(entry) if a.read]


def _array_text(argument: Argument, array: NDArray[np.generic] | None) -> str:
    port = argument.port
    head = f"static const {C_TYPES[port.dtype]} batch_{argument.name}[{max(port.elements, 1)}]"
    if array is None:
        return f"{head} = {{0}};"
    if array.shape != port.shape or array.dtype != np.dtype(port.dtype):
        raise UsageError(
            f"test vector '{argument.name}' is {array.dtype}{list(array.shape)}, "
            f"the model takes {port.dtype}{list(port.shape)}"
        )
    return f"{head} = {{\n{initializer(array)}\n}};"


def _training(contract: Contract, vectors: TestVectors | None) -> list[str]:
    p, big = contract.prefix, contract.prefix.upper()
    passed = [f"batch_{a.name}" for a in _batch(contract)]
    expected = [] if vectors is None else vectors.losses
    check: list[str] = []
    if vectors is not None and expected:
        tolerance = float_literal(vectors.relative_tolerance)
        check = [
            "    {",
            "        const float error = loss > expected[step] ? loss - expected[step]",
            "                                                  : expected[step] - loss;",
            "        const float size = expected[step] < 0.0f ? -expected[step] : expected[step];",
            f"        wrong += !(error <= {tolerance} * (size + 1.0f));",
            "    }",
        ]
    return [
        f"for (int step = 0; step < {max(len(expected), 1)}; ++step) {{",
        "    const uint64_t before = platform_instructions();",
        "    float loss = 0.0f;",
        f"    status = {p}_train_step(&context, {', '.join(passed)}, &loss);",
        f"    if (status != {big}_OK) {{",
        "        return status;",
        "    }",
        '    platform_report_count("instructions.step", platform_instructions() - before);',
        '    platform_report_float("loss", loss);',
        *check,
        "}",
    ]


def _single(contract: Contract, name: str) -> list[str]:
    """One call of a function that leaves the state alone."""
    p, big = contract.prefix, contract.prefix.upper()
    arguments = arguments_of(contract.lowered.entries[name])
    written = [a for a in arguments if not a.read]
    lines = ["{"]
    for argument in written:
        ctype, size = C_TYPES[argument.port.dtype], argument.port.elements
        lines.append(f"    static {ctype} {argument.name}[{size}];")
    names = [f"batch_{a.name}" if a.read else a.name for a in arguments]
    lines += [
        "    const uint64_t before = platform_instructions();",
        f"    status = {p}_{name}(&context, {', '.join(names)});",
        f"    if (status != {big}_OK) {{",
        "        return status;",
        "    }",
        f'    platform_report_count("instructions.{name}", platform_instructions() - before);',
    ]
    for argument in written:
        value = f"{argument.name}[0]"
        if argument.port.dtype == "float32":
            lines.append(f'    platform_report_float("{name}.{argument.name}", {value});')
        else:
            lines.append(f'    platform_report_count("{name}.{argument.name}", (uint64_t){value});')
    return [*lines, "}"]
