"""Kernels as C: every operation of the kernel level against the JIT, on every kind of machine."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from xdsl.dialects.builtin import MemRefType, bf16, f32, i8, i16, i32
from xdsl.dialects.func import FuncOp

from niwaki.backends.c.emit import emit_module
from niwaki.backends.kernels import narrow
from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.backends.targets import get_target
from niwaki.ir.errors import DoesNotFitError
from tests.c_programs import c_text, need_tools, run_c, run_jit

Array = np.ndarray[Any, np.dtype[Any]]
CPP = ("-x", "c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-Wconversion", "-pedantic")
RANDOM = np.random.default_rng(7)


def floats(*shape: int) -> NDArray[np.float32]:
    return RANDOM.standard_normal(shape).astype(np.float32)


def arithmetic(lanes: int) -> FuncOp:
    """Everything on floats that is exact."""
    n = 32
    k = KernelBuilder("arithmetic", [MemRefType(f32, [n])] * 2 + [MemRefType(f32, [14, n])])
    x, y, out = k.args

    def body(i: Value) -> None:
        a, b = k.load(x, [i], lanes), k.load(y, [i], lanes)
        half = k.constant(-0.5, f32, lanes)
        results = [k.add(a, b), k.sub(a, b), k.mul(a, b), k.div(a, b), k.neg(a), k.abs(b)]
        results += [k.max(a, b), k.min(a, b), k.sqrt(k.abs(a))]
        for predicate in ("ogt", "oge", "olt", "ole", "oeq"):
            results.append(k.select(k.compare(a, half, predicate), b, half))
        for row, value in enumerate(results):
            k.store(value, out, [row, i])

    k.each(0, n, lanes, body)
    return k.finish()


def functions(lanes: int) -> FuncOp:
    """What rounds differently from library to library, and fma."""
    n = 32
    k = KernelBuilder("exp", [MemRefType(f32, [n])] * 2 + [MemRefType(f32, [5, n])])
    x, y, out = k.args

    def body(i: Value) -> None:
        a, b = k.load(x, [i], lanes), k.load(y, [i], lanes)
        results = [k.exp(a), k.log(k.abs(a)), k.tanh(a), k.erf(a), k.fma(a, b, a)]
        for row, value in enumerate(results):
            k.store(value, out, [row, i])

    k.each(0, n, lanes, body)
    return k.finish()


def integers(lanes: int) -> FuncOp:
    """Wrapping arithmetic, bits, comparisons and casts on i32."""
    n = 16
    k = KernelBuilder(
        "integers",
        [MemRefType(i32, [n])] * 2 + [MemRefType(i32, [16, n]), MemRefType(f32, [n])],
    )
    x, y, out, real = k.args

    def body(i: Value) -> None:
        a, b = k.load(x, [i], lanes), k.load(y, [i], lanes)
        shift = k.constant(13, i32, lanes)
        big = k.constant(-1640531527, i32, lanes)
        results = [k.add(a, b), k.sub(a, b), k.mul(a, big), k.bit_and(a, b), k.bit_or(a, b)]
        results += [k.bit_xor(a, b), k.shift_left(a, shift), k.shift_right(a, shift)]
        for predicate in ("eq", "ne", "slt", "sle", "sgt", "sge", "ult"):
            results.append(k.select(k.compare(a, b, predicate), a, big))
        results.append(k.cast(k.cast(k.add(k.cast(a, i8), k.cast(b, i8)), i8), i32))
        for row, value in enumerate(results):
            k.store(value, out, [row, i])
        k.store(k.cast(a, f32), real, [i])

    k.each(0, n, lanes, body)
    return k.finish()


def conversions(lanes: int) -> FuncOp:
    """f32 to bf16 and i8 and back."""
    n = 16
    kinds = [MemRefType(f32, [n]), MemRefType(i16, [n]), MemRefType(i8, [n])]
    k = KernelBuilder("conversions", [*kinds, MemRefType(f32, [2, n])])
    x, half, quarter, out = k.args

    def body(i: Value) -> None:
        value = k.load(x, [i], lanes)
        for row, (element, ref) in enumerate(((bf16, half), (i8, quarter))):
            k.store(narrow.narrow(k, value, element), ref, [i])
            k.store(narrow.load(k, ref, [i], lanes), out, [row, i])

    k.each(0, n, lanes, body)
    return k.finish()


def matmul() -> FuncOp:
    """Nested loops with carried values and all index arithmetic."""
    m, n, depth = 5, 7, 9
    k = KernelBuilder(
        "matmul", [MemRefType(f32, s) for s in ([m, depth], [depth, n], [m * n], [m, n])]
    )
    a, b, flat, out = k.args

    def element(place: Value) -> None:
        row, column = k.idiv(place, n), k.imod(place, n)

        def step(i: Value, sums: Sequence[Value]) -> Sequence[Value]:
            clipped = k.imin(k.imax(k.isub(k.iadd(i, 3), 3), 0), depth - 1)
            product = k.mul(k.load(a, [row, clipped]), k.load(b, [i, column]))
            return [k.add(sums[0], product)]

        (total,) = k.loop(0, depth, 1, step, [k.constant(0.0)])
        k.store(total, flat, [k.affine([(row, n), (column, 1)])])
        inside = k.icompare(column, n - 2, "slt")
        k.choose(
            inside,
            lambda: k.store(total, out, [row, k.iadd(column, 2)]),
            lambda: k.store(k.neg(total), out, [row, k.isub(column, n - 2)]),
        )

    k.each(0, m * n, 1, element)
    return k.finish()


def carried() -> FuncOp:
    """Values that change places from one iteration to the next, among them an index."""
    n = 12
    k = KernelBuilder("carried", [MemRefType(i32, [n])])
    (out,) = k.args
    start = [k.constant(0, i32), k.constant(1, i32), k.index(n - 1)]

    def step(_: Value, values: Sequence[Value]) -> Sequence[Value]:
        a, b, place = values
        k.store(a, out, [place])
        return [b, k.add(a, b), k.index(k.isub(place, 1))]

    k.loop(0, n, 1, step, start)
    return k.finish()


def lanes_of_vectors() -> FuncOp:
    """Reductions, broadcast, extraction, carried vectors, and masks as bits."""
    n = 32
    k = KernelBuilder(
        "vectors",
        [
            MemRefType(f32, [n]),
            MemRefType(f32, [4]),
            MemRefType(i8, [n // 8]),
            MemRefType(f32, [n]),
        ],
    )
    x, sums, bits, out = k.args

    def step(i: Value, values: Sequence[Value]) -> Sequence[Value]:
        a = k.load(x, [i], 8)
        mask = k.compare(a, k.constant(0.0, f32, 8), "ogt")
        k.store(k.pack_bits(mask), bits, [k.idiv(i, 8)])
        return [k.add(values[0], a)]

    (total,) = k.loop(0, n, 8, step, [k.constant(0.0, f32, 8)])
    pair = k.from_elements([k.max_lanes(total), k.extract(total, 3)])
    k.store(pair, k.view(sums, MemRefType(f32, [2, 2])), [0, 0])
    k.store(k.extract(k.broadcast(k.load(x, [5]), 4), 2), sums, [2])
    first = k.compare(total, k.broadcast(k.extract(total, 0), 8), "oeq")
    # All lanes but the first are zero: the order of the sum is free.
    k.store(k.sum_lanes(k.select(first, total, k.constant(0.0, f32, 8))), sums, [3])

    def unpack(i: Value) -> None:
        mask = k.unpack_bits(k.load(bits, [k.idiv(i, 8)], 2))
        chosen = k.select(mask, k.load(x, [i], 16), k.constant(-1.0, f32, 16))
        k.store(chosen, out, [i])

    k.each(0, n, 16, unpack)
    return k.finish()


def viewed() -> FuncOp:
    """Bytes as floats, as scratch memory is used."""
    k = KernelBuilder("viewed", [MemRefType(f32, [4]), MemRefType(f32, [4]), MemRefType(i8, [16])])
    x, out, scratch = k.args
    words = k.view(scratch, MemRefType(f32, [2, 2]))
    k.nest([2, 2], lambda at: k.store(k.load(x, [k.affine([(at[0], 2), (at[1], 1)])]), words, at))
    k.store(k.load_vector(words, [1, 1], 1), out, [0])
    k.store(k.load(words, [0, 0], 2), out, [2])
    return k.finish()


def with_dead_values() -> FuncOp:
    """Arguments, values and loop results that nothing uses."""
    k = KernelBuilder("dead", [MemRefType(f32, [4])] * 2 + [MemRefType(f32, [4])])
    x, _, out = k.args
    k.constant(3.0)
    k.add(k.load(x, [0]), k.load(x, [1]))
    k.loop(0, 4, 1, lambda i, v: [k.add(v[0], k.load(x, [i]))], [k.constant(0.0)])
    k.store(k.constant(1.0), out, [2])
    return k.finish()


def special_literals() -> FuncOp:
    values = [float("inf"), -float("inf"), -0.0, 1e-45, 3.4028235e38, 0.1, 16777216.0, 1e-7]
    k = KernelBuilder("literals", [MemRefType(f32, [1]), MemRefType(f32, [len(values)])])
    for place, value in enumerate(values):
        k.store(k.constant(value), k.args[1], [place])
    return k.finish()


def pair_of_integers() -> list[Array]:
    edges = np.array([0, 1, -1, 2**31 - 1, -(2**31), 127, 128, 255], np.int32)
    return [np.concatenate([edges, edges]), np.concatenate([edges, edges[::-1]])]


def edges_of_rounding() -> Array:
    """Ties, ends of ranges, a subnormal number, nan."""
    numbers = [0.5, 1.5, -2.5, 126.5, 127.5, -1e30, np.inf, -np.inf, 1e-40, 1.00390625,
               1.01171875, -0.0, 3.4028235e38, 5.999, 1e-3, np.nan]  # fmt: skip
    return np.array(numbers, np.float32)


EXACT: dict[str, tuple[FuncOp, list[Array]]] = {
    "arithmetic": (arithmetic(1), [floats(32), floats(32)]),
    "arithmetic by 8": (arithmetic(8), [floats(32), floats(32)]),
    "integers": (integers(1), pair_of_integers()),
    "integers by 4": (integers(4), pair_of_integers()),
    "conversions": (conversions(1), [edges_of_rounding()]),
    "conversions by 4": (conversions(4), [edges_of_rounding()]),
    "matmul": (matmul(), [floats(5, 9), floats(9, 7)]),
    "carried": (carried(), []),
    "vectors": (lanes_of_vectors(), [floats(32)]),
    "viewed": (viewed(), [floats(4)]),
    "dead": (with_dead_values(), [floats(4), floats(4)]),
    "literals": (special_literals(), [floats(1)]),
}
BOARDS = ("cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")


def assert_same_bits(kernel: FuncOp, inputs: list[Array], results: list[Array]) -> None:
    for expected, result in zip(run_jit(kernel, inputs), results, strict=True):
        np.testing.assert_array_equal(result.view(np.uint8), expected.view(np.uint8))


@pytest.mark.parametrize("case", EXACT)
def test_host_under_sanitizers_is_the_jit(case: str, tmp_path: Path) -> None:
    target = get_target("host")
    need_tools(target)
    kernel, inputs = EXACT[case]
    results, _ = run_c(kernel, inputs, target, tmp_path, sanitize=True)
    assert_same_bits(kernel, inputs, results)


@pytest.mark.parametrize("case", EXACT)
def test_the_text_is_cpp_too(case: str, tmp_path: Path) -> None:
    target = replace(get_target("host"), cc=("g++",))
    need_tools(target)
    kernel, inputs = EXACT[case]
    results, _ = run_c(kernel, inputs, target, tmp_path, flags=CPP)
    assert_same_bits(kernel, inputs, results)


@pytest.mark.parametrize("name", ["aarch64", "armv7", *BOARDS])
@pytest.mark.parametrize(
    "case", ["arithmetic", "integers", "conversions", "matmul", "carried", "vectors"]
)
def test_other_machines_are_the_jit(name: str, case: str, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    kernel, inputs = EXACT[case]
    results, run = run_c(kernel, inputs, target, tmp_path)
    assert_same_bits(kernel, inputs, results)
    assert (run.counts["instructions"][0] > 0) == (target.board is not None)


@pytest.mark.parametrize("name", ["host", "aarch64", "armv7", *BOARDS])
@pytest.mark.parametrize("lanes", [1, 4])
def test_functions_are_within_a_few_ulp(name: str, lanes: int, tmp_path: Path) -> None:
    target = get_target(name)
    need_tools(target)
    inputs: list[Array] = [floats(32), floats(32)]
    kernel = functions(lanes)
    results, _ = run_c(kernel, inputs, target, tmp_path)
    np.testing.assert_allclose(results[0], run_jit(kernel, inputs)[0], rtol=1e-6, atol=1e-7)


def test_instruction_counts_repeat(tmp_path: Path) -> None:
    target = get_target("cortex-m7")
    need_tools(target)
    kernel, inputs = EXACT["matmul"]
    counts = [
        run_c(kernel, inputs, target, tmp_path)[1].counts["instructions"][0] for _ in range(2)
    ]
    assert counts[0] == counts[1]
    multiplications = 5 * 7 * 9
    assert multiplications < counts[0] < 30 * multiplications


def test_same_kernel_same_text() -> None:
    assert c_text(matmul(), EXACT["matmul"][1]) == c_text(matmul(), EXACT["matmul"][1])


def test_buffers_beyond_32_bits_are_refused() -> None:
    k = KernelBuilder("large", [MemRefType(f32, [1 << 29])])
    k.store(k.constant(0.0), k.args[0], [0])
    with pytest.raises(DoesNotFitError, match="2147483648 bytes"):
        emit_module([k.finish()], [], {})
