"""Merges dimensions that every operand and result of a kernel walks through alike."""

from collections.abc import Sequence
from dataclasses import dataclass

from xdsl.dialects.builtin import MemRefType, StridedLayoutAttr, i8
from xdsl.ir import Block, Operation, SSAValue

from niwaki.backends.kernels.pointwise import Group
from niwaki.backends.kernels.spec import stored_element, strides_of
from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import Tensor, TensorOp, get_ints, i1, ints, tensor, type_of


@dataclass(frozen=True)
class Collapsed:
    """A group with fewer dimensions that computes the same."""

    group: Group
    shape: tuple[int, ...]
    """The full shape. What varies along the last dimension is contiguous along it."""
    refs: tuple[MemRefType, ...]
    """The operands, then the results, under the new shape."""
    block: Block
    """Owns the operations of `group`."""


@dataclass(frozen=True)
class _Dimension:
    size: int
    members: tuple[int, ...]
    """The original dimensions, outer ones first."""
    steps: tuple[int | None, ...]
    """Stride of each operand and result (of masks: in bits); None where it repeats."""
    reduced: bool


def collapse(
    group: Group,
    shape: Sequence[int],
    operands: Sequence[MemRefType],
    results: Sequence[MemRefType],
) -> Collapsed:
    """Collapses a group of elementwise operations and reductions over the same axes.

    Every value of the group broadcasts to `shape`. A reduction over nothing disappears.
    """
    values = [*group.inputs, *group.outputs]
    refs = [*operands, *results]
    axes = {a for op in group.ops if isinstance(op, nn.Reduction) for a in _axes(op)}
    steps = [_steps(type_of(v), r, shape) for v, r in zip(values, refs, strict=True)]
    dimensions = _merged(
        [
            _Dimension(size, (d,), tuple(s[d] for s in steps), d in axes)
            for d, size in enumerate(shape)
            if size != 1
        ],
        len(values),
    )
    kinds = [
        _kind(type_of(v), [d.steps[n] for d in dimensions], dimensions)
        for n, v in enumerate(values)
    ]
    block = Block(arg_types=[kind for kind, _ in kinds[: len(group.inputs)]])
    mapping: dict[SSAValue, SSAValue] = dict(zip(group.inputs, block.args, strict=True))
    for op in group.ops:
        _remake(op, mapping, block, [n for n, d in enumerate(dimensions) if d.reduced])
    return Collapsed(
        Group(tuple(block.args), tuple(block.ops), tuple(mapping[v] for v in group.outputs)),
        tuple(d.size for d in dimensions),
        tuple(ref for _, ref in kinds),
        block,
    )


def _axes(op: nn.Reduction) -> tuple[int, ...]:
    return get_ints(op.properties, "axes")


def _steps(kind: Tensor, ref: MemRefType, full: Sequence[int]) -> list[int | None]:
    """The stride along each dimension of `full`, None where `kind` has size 1 or nothing."""
    sizes, strides = kind.get_shape(), strides_of(ref)
    if kind.element_type == i1:
        strides = (*(8 * s for s in strides[:-1]), 1)[: len(sizes)]
    own = [None if size == 1 else s for size, s in zip(sizes, strides, strict=True)]
    return [None] * (len(full) - len(sizes)) + own


def _merged(dimensions: Sequence[_Dimension], count: int) -> list[_Dimension]:
    """`dimensions` merged where they can be, the last one contiguous for `count` values."""
    result: list[_Dimension] = []
    for inner in dimensions:
        if result and _mergeable(result[-1], inner):
            outer = result.pop()
            members = outer.members + inner.members
            inner = _Dimension(outer.size * inner.size, members, inner.steps, inner.reduced)
        result.append(inner)
    if not result or any(s not in (None, 1) for s in result[-1].steps):
        result.append(_Dimension(1, (), (None,) * count, False))
    return result


def _mergeable(outer: _Dimension, inner: _Dimension) -> bool:
    return outer.reduced == inner.reduced and all(
        (a is None) == (b is None) and (b is None or a == b * inner.size)
        for a, b in zip(outer.steps, inner.steps, strict=True)
    )


def _kind(
    kind: Tensor, steps: Sequence[int | None], dimensions: Sequence[_Dimension]
) -> tuple[Tensor, MemRefType]:
    """The type of a value under the new shape, and its place in memory."""
    pairs = list(zip(steps, dimensions, strict=True))
    shape = [1 if step is None else d.size for step, d in pairs]
    strides = [1 if step is None else step for step in steps]
    collapsed = tensor(shape, kind.element_type)
    if kind.element_type != i1:
        element = stored_element(kind.element_type)
        return collapsed, MemRefType(element, shape, StridedLayoutAttr(strides))
    bytes_shape = [*shape[:-1], (shape[-1] + 7) // 8]
    bytes_strides = [*((s + 7) // 8 for s in strides[:-1]), 1]
    return collapsed, MemRefType(i8, bytes_shape, StridedLayoutAttr(bytes_strides))


def _remake(
    op: Operation, mapping: dict[SSAValue, SSAValue], block: Block, axes: Sequence[int]
) -> None:
    """Appends `op` on the new values to `block`; what only spreads values needs no operation."""
    (result,) = op.results
    operands = [mapping[o] for o in op.operands]
    if isinstance(op, nn.BroadcastOp) or (isinstance(op, nn.Reduction) and not axes):
        mapping[result] = operands[0]
        return
    attributes = dict(op.properties)
    if isinstance(op, nn.ConstantOp):
        attributes["shape"] = ints([])
    if isinstance(op, nn.Reduction):
        attributes["axes"] = ints(axes)
    assert isinstance(op, TensorOp)
    new = op.make(*operands, **attributes)
    block.add_op(new)
    mapping[result] = new.results[0]
