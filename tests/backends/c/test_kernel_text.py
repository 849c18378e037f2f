"""Kernels that differ only in numbers are one C function."""

from pathlib import Path

import pytest
from xdsl.dialects.builtin import MemRefType, f32
from xdsl.dialects.func import FuncOp

from niwaki.backends.c.emit import PRELUDE
from niwaki.backends.c.emit_kernel import KernelEmitter
from niwaki.backends.c.kernel_text import KernelText, kernel_functions
from niwaki.backends.c.toolchain import build_linux, run_program
from niwaki.backends.kernels.builder import KernelBuilder
from niwaki.backends.targets import get_target
from tests.c_programs import need_tools


def scaled(name: str, size: int, factor: float, twice: bool = False) -> FuncOp:
    """y = x * factor, or x * factor * factor."""
    kind = MemRefType(f32, [size])
    k = KernelBuilder(name, [kind, kind])
    x, y = k.args
    number = k.constant(factor)

    def element(i: object) -> None:
        product = k.mul(k.load(x, [i]), number)  # pyright: ignore[reportArgumentType]
        k.store(k.mul(product, number) if twice else product, y, [i])  # pyright: ignore[reportArgumentType]

    k.each(0, size, 1, element)
    return k.finish()


def texts(*kernels: FuncOp) -> list[KernelText]:
    return [KernelEmitter(kernel).text() for kernel in kernels]


def test_what_differs_is_an_argument() -> None:
    kernels = texts(scaled("a", 8, 3.0), scaled("b", 16, 3.0), scaled("c", 8, 3.0))

    functions, calls = kernel_functions(kernels, {}, shared=True)

    (function,) = functions
    assert "const int32_t n0)" in function
    assert "3.0f" in function
    assert {call.function for call in calls.values()} == {"kernel_a"}
    assert [calls[name].numbers for name in "abc"] == [("8",), ("16",), ("8",)]


def test_numbers_that_differ_alike_are_one_argument() -> None:
    kernels = texts(scaled("a", 8, 3.0, twice=True), scaled("b", 8, 5.0, twice=True))

    _, calls = kernel_functions(kernels, {}, shared=True)

    assert calls["b"].numbers == ("5.0f",)


def test_other_statements_are_another_function() -> None:
    kernels = texts(scaled("a", 8, 3.0), scaled("b", 8, 3.0, twice=True))

    assert len(kernel_functions(kernels, {}, shared=True)[0]) == 2


def test_one_aliased_call_takes_restrict_from_all() -> None:
    kernels = texts(scaled("a", 8, 3.0), scaled("b", 16, 3.0))

    (function,), _ = kernel_functions(kernels, {"a": set(), "b": {1}}, shared=True)

    assert "const float *NIWAKI_RESTRICT a0, float *a1," in function


@pytest.mark.parametrize("shared", [False, True])
def test_each_call_computes_its_kernel(shared: bool, tmp_path: Path) -> None:
    target = get_target("x86-64")
    need_tools(target)
    kernels = texts(scaled("a", 2, 3.0), scaled("b", 4, 5.0))
    functions, calls = kernel_functions(kernels, {}, shared)
    body = "\n".join(
        f"    {call.function}({', '.join(['x', 'y', *call.numbers])});\n"
        f'    platform_report_count("{name}", (uint64_t)(y[0] + 10 * y[1] + 100 * y[2]));'
        for name, call in calls.items()
    )
    source = tmp_path / "calls.c"
    source.write_text(
        "\n".join(
            [
                PRELUDE,
                '#include "platform.h"',
                *functions,
                "int main(void)\n{",
                "    const float x[4] = {1.0f, 1.0f, 1.0f, 1.0f};",
                "    float y[4] = {0};",
                body,
                "    return 0;\n}\n",
            ]
        )
    )

    done = run_program(build_linux([source], tmp_path / "calls", target), timeout=60)

    assert len(functions) == (1 if shared else 2)
    assert {name: count[0] for name, count in done.counts.items()} == {"a": 33, "b": 555}
