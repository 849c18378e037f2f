"""Vectors of kernels as C has them on cores with Helium: the same bits as from the JIT."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from xdsl.dialects.builtin import MemRefType, f32, i8, i16, i32
from xdsl.dialects.func import FuncOp
from xdsl.ir import Attribute

from niwaki.backends.kernels import masks
from niwaki.backends.kernels.builder import KernelBuilder, Value
from niwaki.backends.targets import get_target
from niwaki.ir.dialects.kernel import PREDICATES, element_of
from tests.c_programs import c_text, need_tools, run_c, run_jit

Array = np.ndarray[Any, np.dtype[Any]]
Binary = Callable[[KernelBuilder, Value, Value], Value]

LANES = 8
NUMBERS = np.array([5, -7, 0, 2**31 - 1, -(2**31), 123456789, -128, 300], np.int32)
OTHERS = np.array([5, 9, -1, -(2**30), 77, -987654321, 127, -300], np.int32)
REALS = np.array([0.5, -1.5, np.nan, np.inf, -0.0, 2.5, -3.7e4, 1e-3], np.float32)
OTHER_REALS = np.array([0.5, 2.0, 1.0, -np.inf, 0.0, np.nan, 3.3e4, 7.0], np.float32)


def _choice(k: KernelBuilder, mask: Value) -> Value:
    return k.select(mask, k.constant(1, i32, LANES), k.constant(0, i32, LANES))


def _compare(predicate: str) -> Binary:
    return lambda k, a, b: _choice(k, k.compare(a, b, predicate))


def _compare_with_scalar(predicate: str) -> Binary:
    return lambda k, a, _: _choice(k, k.compare(a, k.constant(5, i32, LANES), predicate))


def _scalar(k: KernelBuilder, a: Value) -> Value:
    return k.broadcast(k.extract(a, 3), LANES)


def _product_of_scalar_added(k: KernelBuilder, a: Value, b: Value) -> Value:
    return k.add(b, k.mul(a, _scalar(k, a)))


def _both(k: KernelBuilder, a: Value, b: Value) -> Value:
    return _choice(k, k.bit_and(k.compare(a, b, "slt"), k.compare(a, a, "eq")))


def _carried(k: KernelBuilder, a: Value, b: Value) -> Value:
    return k.loop(0, 3, 1, lambda _, v: [k.sub(v[1], a), k.add(v[0], b)], [a, b])[1]


INTEGERS: dict[str, Binary] = {
    "add": lambda k, a, b: k.add(a, b),
    "add scalar": lambda k, a, _: k.add(a, _scalar(k, a)),
    "sub": lambda k, a, b: k.sub(a, b),
    "sub scalar": lambda k, a, _: k.sub(a, _scalar(k, a)),
    "mul": lambda k, a, b: k.mul(a, b),
    "mul and add": _product_of_scalar_added,
    "min": lambda k, a, b: k.min(a, b),
    "max": lambda k, a, b: k.max(a, b),
    "and": lambda k, a, b: k.bit_and(a, b),
    "or": lambda k, a, b: k.bit_or(a, b),
    "xor": lambda k, a, b: k.bit_xor(a, b),
    "left": lambda k, a, _: k.shift_left(a, k.constant(5, i32, LANES)),
    "right": lambda k, a, _: k.shift_right(a, k.constant(5, i32, LANES)),
    "right signed": lambda k, a, _: k.shift_right_signed(a, k.constant(31, i32, LANES)),
    "right by a vector": lambda k, a, b: k.shift_right(a, k.bit_and(b, k.constant(7, i32, LANES))),
    "multiply high": lambda k, a, b: k.multiply_high(a, b, a),
    "multiply high scalar": lambda k, a, b: k.multiply_high(a, b, k.constant(9, i32, LANES)),
    "narrow and wide": lambda k, a, _: k.extend(k.cast(a, i8), i32),
    "halves and wide": lambda k, a, _: k.extend(k.cast(a, i16), i32),
    "sum": lambda k, a, _: k.broadcast(k.sum_lanes(a), LANES),
    "both": _both,
    "carried": _carried,
    **{p: _compare(p) for p, real in PREDICATES.items() if not real},
    **{f"{p} scalar": _compare_with_scalar(p) for p, real in PREDICATES.items() if not real},
}
FLOATS: dict[str, Binary] = {
    "add": lambda k, a, b: k.add(a, b),
    "sub": lambda k, a, b: k.sub(a, b),
    "mul": lambda k, a, b: k.mul(a, b),
    "mul scalar": lambda k, a, _: k.mul(a, _scalar(k, a)),
    "div": lambda k, a, b: k.div(a, b),
    "fma": lambda k, a, b: k.fma(a, b, a),
    "fma scalar": lambda k, a, b: k.fma(_scalar(k, b), a, b),
    "neg": lambda k, a, _: k.neg(a),
    "abs": lambda k, a, _: k.abs(a),
    "round": lambda k, a, _: k.round(a),
    "bits": lambda k, a, _: k.bitcast(k.bitcast(a, i32), f32),
    "from integers": lambda k, a, _: k.cast(k.bitcast(a, i32), f32),
    **{p: _compare(p) for p, real in PREDICATES.items() if real},
}


def _together(kernels: dict[str, Binary], element: Attribute) -> FuncOp:
    """All of `kernels` in one function, each one's result a row."""
    source = MemRefType(element, [LANES])
    k = KernelBuilder("kernel", [source, source, MemRefType(i32, [len(kernels), LANES])])
    a, b = (k.load(ref, [0], LANES) for ref in k.args[:2])
    for row, build in enumerate(kernels.values()):
        value = build(k, a, b)
        value = value if element_of(value.type) == i32 else k.bitcast(value, i32)
        k.store(value, k.args[2], [row, 0])
    return k.finish()


def _check_on_core(kernel: FuncOp, operands: list[Array], instruction: str, folder: Path) -> Array:
    """The words of the only result, alike as JIT and on the core; numbers that are none as 0."""
    target = get_target("cortex-m55")
    need_tools(target)
    assert instruction in c_text(kernel, operands, vectorized=True)
    (right, *_), ((words, *_), _) = (
        run_jit(kernel, operands),
        run_c(kernel, operands, target, folder),
    )
    right, words = (np.where(np.isnan(x.view(np.float32)), 0, x) for x in (right, words))
    assert np.array_equal(words, right)
    return right


def test_integers(tmp_path: Path) -> None:
    kernel = _together(INTEGERS, i32)

    rows = _check_on_core(kernel, [NUMBERS, OTHERS], "vmulhq_s32", tmp_path)

    assert len(np.unique(rows, axis=0)) > len(INTEGERS) // 2


def test_floats(tmp_path: Path) -> None:
    """Without subnormal numbers, which vectors take for 0."""
    kernel = _together(FLOATS, f32)

    rows = _check_on_core(kernel, [REALS, OTHER_REALS], "vfmaq_n_f32", tmp_path)

    assert len(np.unique(rows, axis=0)) > len(FLOATS) // 2


def test_memory(tmp_path: Path) -> None:
    """Narrow numbers, some of them apart from one another, and bits."""
    bytes_, halves = MemRefType(i8, [64]), MemRefType(i16, [64])
    k = KernelBuilder("kernel", [bytes_, halves, MemRefType(i32, [8, LANES]), bytes_, halves])
    codes, numbers, words, narrow, apart = k.args
    near, far = k.load(codes, [3], LANES), k.load_apart(codes, 1, 7, LANES)
    wide, wide_far = k.load(numbers, [5], LANES), k.load_apart(numbers, 2, 7, LANES)
    bits = masks.load(k, codes, [8], LANES)
    rows = [k.extend(v, i32) for v in (near, far, wide, wide_far)]
    for row, value in enumerate([*rows, _choice(k, bits)]):
        k.store(value, words, [row, 0])
    k.store(near, narrow, [40])
    k.store_apart(far, narrow, 0, 5)
    masks.store(k, bits, narrow, [8 * 50])
    k.store_apart(k.cast(rows[0], i16), apart, 3, 6)
    rng = np.random.default_rng(0)
    operands: list[Array] = [
        rng.integers(-128, 128, 64).astype(np.int8),
        rng.integers(-(2**15), 2**15, 64).astype(np.int16),
    ]
    target, kernel = get_target("cortex-m55"), k.finish()
    need_tools(target)

    results = run_c(kernel, operands, target, tmp_path)[0]

    for result, right in zip(results, run_jit(kernel, operands), strict=True):
        assert np.array_equal(result, right)
