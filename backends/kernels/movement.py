"""Kernels that move elements: transposition, padding, slices, concatenation, copies.

All are copies between two strided walks over one memory each, so one emitter serves them. Masks
move as bytes: their last dimension must stay as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from xdsl.dialects.builtin import MemRefType

from niwaki.backends.kernels.alone import spec_alone
from niwaki.backends.kernels.blocks import each_block
from niwaki.backends.kernels.builder import Index, KernelBuilder, Value
from niwaki.backends.kernels.spec import (
    KernelSpec,
    buffer_bytes,
    element_bytes,
    is_contiguous,
    strides_of,
)
from niwaki.backends.targets import Target
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import get_int, get_ints, i1, type_of

_AHEAD = 16
"""Rows between what is copied and what is prefetched, where they are far apart."""


@dataclass(frozen=True)
class _Walk:
    """Element `offset` + sum of index * stride of argument `ref`, for each index."""

    ref: int
    offset: int
    strides: tuple[int, ...]


@dataclass(frozen=True)
class _Move:
    """Copies every element of a walk of `shape` to another walk."""

    shape: tuple[int, ...]
    source: _Walk
    destination: _Walk


def transpose(
    op: nn.TransposeOp,
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    target: Target,
) -> KernelSpec:
    """The kernel of `nn.transpose`."""
    (x,), (y,) = operands, results
    strides = strides_of(x)
    permuted = tuple(strides[p] for p in get_ints(op.properties, "permutation"))
    move = _Move(y.get_shape(), _Walk(0, 0, permuted), _Walk(1, 0, strides_of(y)))
    return _spec(operands, results, [move], target)


def slice_(
    op: nn.SliceOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.slice`."""
    (x,), (y,) = operands, results
    starts, steps = (get_ints(op.properties, key) for key in ("starts", "steps"))
    strides = strides_of(x)
    source = _Walk(0, _dot(starts, strides), _product(steps, strides))
    move = _Move(y.get_shape(), source, _Walk(1, 0, strides_of(y)))
    return _spec(operands, results, [move], target)


def concat(
    op: nn.ConcatOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.concat`."""
    (y,) = results
    axis, start, moves = get_int(op.properties, "axis"), 0, list[_Move]()
    for number, x in enumerate(operands):
        offset = start * strides_of(y)[axis]
        destination = _Walk(len(operands), offset, strides_of(y))
        moves.append(_Move(x.get_shape(), _Walk(number, 0, strides_of(x)), destination))
        start += x.get_shape()[axis]
    return _spec(operands, results, moves, target)


def pad(
    op: nn.PadOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.pad`: fills the result, then copies."""
    (x,), (y,) = operands, results
    low, interior = (get_ints(op.properties, key) for key in ("low", "interior"))
    strides = strides_of(y)
    steps = _product([gap + 1 for gap in interior], strides)
    move = _Move(x.get_shape(), _Walk(0, 0, strides_of(x)), _Walk(1, _dot(low, strides), steps))
    return _spec(operands, results, [move], target, op.value.value.data)


def reshape(
    op: nn.ReshapeOp, operands: Sequence[MemRefType], results: Sequence[MemRefType], target: Target
) -> KernelSpec:
    """The kernel of `nn.reshape` where it is no view: copies between contiguous layouts.

    Raises NotImplementedError for masks whose rows change.
    """
    (x,), (y,) = operands, results
    rows = [type_of(v).get_shape()[-1:] for v in (op.x, op.y)]
    bits = type_of(op.x).element_type == i1 and rows[0] != rows[1]
    if bits or not is_contiguous(x) or not is_contiguous(y):
        raise NotImplementedError(f"no kernel for 'nn.reshape' of {x} to {y}")
    walks = _Walk(0, 0, (1,)), _Walk(1, 0, (1,))
    return _spec(operands, results, [_Move((prod(x.get_shape()),), *walks)], target)


def copy(source: MemRefType, destination: MemRefType, target: Target) -> KernelSpec:
    """Copies between two layouts of one shape."""
    walks = _Walk(0, 0, strides_of(source)), _Walk(1, 0, strides_of(destination))
    return _spec([source], [destination], [_Move(source.get_shape(), *walks)], target)


def _dot(a: Sequence[int], b: Sequence[int]) -> int:
    return sum(_product(a, b))


def _product(a: Sequence[int], b: Sequence[int]) -> tuple[int, ...]:
    return tuple(x * y for x, y in zip(a, b, strict=True))


def _spec(
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
    moves: Sequence[_Move],
    target: Target,
    fill: float | None = None,
) -> KernelSpec:
    kinds = [*operands, *results]

    def emit(k: KernelBuilder) -> None:
        flat = [k.view(ref, _flat(kind)) for ref, kind in zip(k.args, kinds, strict=True)]
        if fill is not None:
            _fill(k, flat[-1], results[0], fill, target)
        for move in moves:
            _emit(k, flat[move.source.ref], flat[move.destination.ref], move, target)

    return spec_alone(operands, results, emit)


def _flat(kind: MemRefType) -> MemRefType:
    return MemRefType(kind.element_type, [buffer_bytes(kind) // element_bytes(kind.element_type)])


def _fill(k: KernelBuilder, flat: Value, kind: MemRefType, value: float, target: Target) -> None:
    *outer, (row, _, step) = _merged(kind.get_shape(), strides_of(kind), strides_of(kind))

    def run(indices: list[Index]) -> None:
        start = k.affine([(i, stride) for i, (_, _, stride) in zip(indices, outer, strict=True)])

        def block(column: Index, lanes: int) -> None:
            place = k.iadd(start, k.imul(column, step))
            k.store(k.constant(value, kind.element_type, lanes), flat, [place])

        each_block(k, row, target.lanes if step == 1 else 1, block)

    k.nest([size for size, _, _ in outer], run)


def _merged(
    shape: Sequence[int], source: Sequence[int], destination: Sequence[int]
) -> list[tuple[int, int, int]]:
    """(size, source stride, destination stride) of as few dimensions as there can be."""
    result: list[tuple[int, int, int]] = []
    for size, a, b in zip(shape, source, destination, strict=True):
        if size == 1:
            continue
        if result and result[-1][1:] == (a * size, b * size):
            size *= result.pop()[0]
        result.append((size, a, b))
    return result or [(1, 1, 1)]


def _emit(k: KernelBuilder, source: Value, destination: Value, move: _Move, target: Target) -> None:
    """Blocks along the last dimension, inside them the source's contiguous dimension.

    A transposition so writes whole vectors and walks `width` source rows at once, each of which
    stays in the cache until it is used up.
    """
    dims = _merged(move.shape, move.source.strides, move.destination.strides)
    *outer, (row, row_from, row_to) = dims
    inner = [d for d in outer if d[1] == 1 and row_from != 1]
    outer = [d for d in outer if d not in inner[:1]]
    loops = [*outer, *inner[:1]]
    lanes = target.lanes if row_to == 1 else 1
    # Without vectors, eight scalars are as good a tile.
    width = max(lanes, 8) if inner else lanes
    times, apart, _ = loops[-1] if loops else (1, row, row)
    # Rows that are close are a stream, which the machine prefetches.
    far = target.lanes > 1 and times > 2 * _AHEAD and apart > 2 * row

    def block(start: Index, count: int, indices: Sequence[Index]) -> None:
        pairs = list(zip(indices, loops, strict=True))
        place = k.affine([(i, d[1]) for i, d in pairs], move.source.offset)
        goal = k.affine([(i, d[2]) for i, d in pairs], move.destination.offset)
        goal = k.iadd(goal, k.imul(start, row_to))
        if row_from == 1 and row_to == 1:
            if far:
                k.prefetch(source, [k.iadd(k.iadd(place, start), _AHEAD * apart)])
            k.store(k.load(source, [k.iadd(place, start)], count), destination, [goal])
            return
        columns = [k.iadd(place, k.imul(k.iadd(start, i), row_from)) for i in range(count)]
        values = [k.load(source, [column]) for column in columns]
        if lanes > 1:
            value = values[0] if count == 1 else k.from_elements(values)
            k.store(value, destination, [goal])
            return
        for number, value in enumerate(values):
            k.store(value, destination, [k.iadd(goal, number * row_to)])

    def blocks_of(indices: list[Index]) -> None:
        def tile(start: Index, count: int) -> None:
            inside = [size for size, _, _ in inner[:1]]
            k.nest(inside, lambda last: block(start, count, [*indices, *last]))

        each_block(k, row, width, tile)

    k.nest([size for size, _, _ in outer], blocks_of)
