"""Builds channels-last programs from models whose tensors are channels-first.

Model files name dimensions in their own order ("file order", NCHW for images). An `Imported`
value keeps that order towards the frontend, whatever the order of the SSA value behind it: a
permutation in the file costs nothing until an operation needs one certain order.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import i32
from xdsl.ir import Attribute

from niwaki.frontends.conversion import Unsupported
from niwaki.ir.builder import ProgramBuilder, Value
from niwaki.ir.dialects.quantized_type import QuantizedType, quantized
from niwaki.ir.dialects.tensor_op import broadcast_shapes, f32, require, shape_of, type_of
from niwaki.ir.program import Program
from niwaki.ir.quantization import from_codes, to_codes

Permutation: TypeAlias = tuple[int, ...]
Shape: TypeAlias = tuple[int, ...]
Array: TypeAlias = NDArray[np.generic]

MAX_ELEMENTS = 2**31 - 1
"""Larger tensors are taken for damage: no target of Niwaki could hold one."""

MAX_RANK = 16
MAX_PARTS = 1024

NHWC: Permutation = (0, 2, 3, 1)
"""Of an NCHW image; of an OIHW filter it gives OHWI."""


@dataclass(frozen=True)
class Weight:
    """An array of the model file, in file order."""

    name: str
    array: Array
    fixed: bool
    """A buffer, or a parameter exported without a gradient: never updated."""
    element: QuantizedType | None = None
    """Of an array of codes, in file order."""
    real: bool = False
    """Codes: the tensor is the numbers that they stand for."""


@dataclass(eq=False)
class Orders:
    """One tensor as SSA values in several orders of its dimensions.

    Dimension i of `forms[p]` is dimension p[i] of the tensor. A weight has no form until an
    operation reads it.
    """

    shape: Shape
    forms: dict[Permutation, Value]
    weight: Weight | None = None


@dataclass(frozen=True, eq=False)
class Imported:
    """A value of the model: dimension i is dimension `permutation[i]` of `tensor`."""

    tensor: Orders
    permutation: Permutation

    @property
    def shape(self) -> Shape:
        """The sizes, in file order."""
        return tuple(self.tensor.shape[p] for p in self.permutation)

    @property
    def array(self) -> Array | None:
        """The content in file order, where the file states it."""
        weight = self.tensor.weight
        if weight is None:
            return None
        array = weight.array
        if weight.element is not None and weight.real:
            array = from_codes(array, weight.element)
        return array.transpose(self.permutation)


def _identity(rank: int) -> Permutation:
    return tuple(range(rank))


def _channels_last(rank: int) -> Permutation:
    return (0, *range(2, rank), 1)


def _keeps_memory(shape: Shape, permutation: Permutation) -> bool:
    """Whether permuting leaves the elements where they are, so that a reshape does it."""
    moved = [p for p in permutation if shape[p] != 1]
    return moved == sorted(moved)


def _permuted(element: QuantizedType, permutation: Permutation) -> QuantizedType:
    """The element type of a tensor whose dimensions are permuted."""
    if element.axis is None:
        return element
    return QuantizedType.of(element.storage, element.scales, 0, permutation.index(element.axis))


def elements_of(array: Array) -> Attribute:
    """The element type of a stored array."""
    return i32 if array.dtype == np.int32 else f32


def as_f32(value: float) -> float:
    """`value` rounded to f32; VerifyException where only infinity is near."""
    with np.errstate(over="ignore"):
        rounded = float(np.float32(value))
    require(np.isinf(value) or not np.isinf(rounded), f"{value} is too large for float32")
    return rounded


def small(values: Sequence[int], name: str) -> list[int]:
    """`values`, all of 32 bits; VerifyException naming `name` otherwise."""
    require(all(abs(v) < 2**31 for v in values), f"'{name}' is absurdly large")
    return list(values)


def narrowed(array: Array) -> Array:
    """Integers as the 32-bit ones that Niwaki computes in; Unsupported if one is larger."""
    if array.dtype.kind in "iu" and array.dtype.itemsize == 1:
        return array.astype(np.int32)
    if array.dtype != np.int64:
        return array
    if array.size and (array.min() < -(2**31) or array.max() >= 2**31):
        raise Unsupported("integers that do not fit into 32 bits")
    return array.astype(np.int32)


def checked_axis(axis: int, rank: int) -> int:
    """`axis` counted from the front; VerifyException if there is no such dimension."""
    require(-rank <= axis < rank, f"no dimension {axis} in a tensor of rank {rank}")
    return axis % rank


def checked_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """`axes` counted from the front, ascending; VerifyException if one is missing or double."""
    result = sorted(checked_axis(a, rank) for a in axes)
    require(len(set(result)) == len(result), f"a dimension is named twice in {list(axes)}")
    return tuple(result)


class NchwBuilder:
    """Emits operations on `Imported` values; every shape, axis and size is in file order.

    Raises Unsupported for what the nn dialect cannot say, VerifyException for what makes no
    sense at all.
    """

    def __init__(self) -> None:
        self.b = ProgramBuilder()
        self._frozen_norms = 0
        self._dropouts = 0
        self._tables: dict[str, Imported] = {}

    # --- values

    def argument(self, shape: Sequence[int], element: Attribute, name: str) -> Imported:
        """A new argument of `@forward`, in the user's order."""
        self._check_size(shape)
        hint = re.sub(r"\W", "_", name, flags=re.ASCII).lstrip("0123456789") or "x"
        return self._wrap(self.b.input(shape, element, hint), _identity(len(shape)))

    def weight(self, name: str, array: Array, fixed: bool) -> Imported:
        """A parameter or constant; the first operation that reads it decides its stored order."""
        tensor = Orders(array.shape, {}, Weight(name, array, fixed))
        return Imported(tensor, _identity(array.ndim))

    def table(self, name: str, compute: Callable[[], Array]) -> Imported:
        """A constant array that the importer adds; made once for each name."""
        if name not in self._tables:
            self._tables[name] = self.weight(name, compute(), fixed=True)
        return self._tables[name]

    def scalar(self, value: float, like: Imported | None = None) -> Imported:
        """A constant of rank 0, of the element type of `like`."""
        if like is not None and self.element(like) == i32:
            if not float(value).is_integer() or abs(value) >= 2**31:
                raise Unsupported(f"{value} with an integer tensor")
            return self._wrap(self.b.constant(int(value), (), i32), ())
        return self.full(value, ())

    def full(self, value: float, shape: Sequence[int]) -> Imported:
        """One f32 value everywhere."""
        return self._wrap(self.b.constant(as_f32(value), shape), _identity(len(shape)))

    def element(self, x: Imported) -> Attribute:
        """The element type of `x`."""
        return type_of(next(iter(self._forms(x).values()))).element_type

    def finish(self, outputs: Sequence[Imported]) -> Program:
        """Returns `outputs` in the user's order."""
        require(len(outputs) > 0, "the model returns nothing")
        program = self.b.finish(*(self._in_order(x) for x in outputs))
        if self._frozen_norms:
            program.notes.append(
                f"{self._frozen_norms} batch norm(s) were exported for inference: training keeps"
                " their running statistics; export in training mode to train with those of the"
                " batch"
            )
        return program

    # --- orders

    def _wrap(self, value: Value, permutation: Permutation) -> Imported:
        """The tensor whose dimension permutation[i] is dimension i of `value`."""
        sizes = shape_of(value)
        self._check_size(sizes)
        shape = tuple(sizes[permutation.index(i)] for i in range(len(sizes)))
        return Imported(Orders(shape, {permutation: value}), _identity(len(sizes)))

    def _check_size(self, shape: Sequence[int]) -> None:
        require(len(shape) <= MAX_RANK, f"a tensor of rank {len(shape)} is absurd")
        require(min(shape, default=1) > 0, f"a tensor of shape {list(shape)} has no elements")
        require(prod(shape) <= MAX_ELEMENTS, f"a tensor of shape {list(shape)} is absurdly large")

    def _materialise(self, tensor: Orders, order: Permutation) -> Value:
        """Reads the weight behind `tensor` for the first time, stored in `order`."""
        weight = tensor.weight
        assert weight is not None, "a tensor is a weight or has a form"
        require(weight.array.size > 0, f"{weight.name!r} has no elements")
        if weight.fixed and not tensor.shape:
            return self.b.constant(weight.array.item(), (), elements_of(weight.array))
        name = self._free_name(weight.name)
        element = None if weight.element is None else _permuted(weight.element, order)
        permutation = None if order == _identity(len(order)) else order
        array = weight.array.transpose(order)
        value = self.b.weight(name, array, permutation, weight.fixed, element)
        return self.b.dequantize(value) if weight.real else value

    def _free_name(self, name: str) -> str:
        """`name`, or one like it: a file may use the same array as numbers and as codes."""
        while name in self.b.store:
            name += ".again"
        return name

    def _forms(self, x: Imported) -> dict[Permutation, Value]:
        """The orders of x's own dimensions in which it exists; a weight comes to exist."""
        forms = x.tensor.forms
        if not forms:
            order = _identity(len(x.tensor.shape))
            forms[order] = self._materialise(x.tensor, order)
        return {tuple(x.permutation.index(d) for d in p): value for p, value in forms.items()}

    def _form(self, x: Imported, permutation: Permutation) -> Value:
        """x with dimension i = x's dimension permutation[i], made once."""
        forms = x.tensor.forms
        order = tuple(x.permutation[p] for p in permutation)
        if order not in forms and not forms:
            forms[order] = self._materialise(x.tensor, order)
        if order not in forms:
            have, value = next(iter(forms.items()))
            forms[order] = self._permute(value, tuple(have.index(d) for d in order))
        return forms[order]

    def _permute(self, value: Value, permutation: Permutation) -> Value:
        shape = shape_of(value)
        if _keeps_memory(shape, permutation):
            return self.b.reshape(value, [shape[p] for p in permutation])
        return self.b.transpose(value, permutation)

    def _in_order(self, x: Imported) -> Value:
        """x in file order."""
        return self.b.reshape(self._row_major(x), x.shape)

    def _row_major(self, x: Imported) -> Value:
        """A value whose elements lie in file order, whatever its dimensions."""
        for permutation, value in self._forms(x).items():
            if _keeps_memory(x.shape, permutation):
                return value
        return self._form(x, _identity(len(x.shape)))

    def _order_of(self, xs: Sequence[Imported]) -> Permutation:
        """The order to compute in: channels last if one of `xs` has it, else the first one's."""
        have = [p for x in xs if x.tensor.forms for p in self._forms(x)]
        if not have:
            return next(iter(self._forms(xs[0])))
        last = _channels_last(len(xs[0].shape))
        return last if last in have else have[0]

    # --- elementwise

    def elementwise(self, function: Callable[..., Value], *xs: Imported) -> Imported:
        """`function` of the values, broadcast by NumPy's rule.

        >>> builder.elementwise(builder.b.add, x, bias)
        """
        if len({self.element(x) for x in xs}) > 1:
            raise Unsupported("operands of different element types")
        rank = len(broadcast_shapes(*(x.shape for x in xs)))
        whole = [x for x in xs if len(x.shape) == rank]
        order = self._order_of(sorted(whole, key=lambda x: -prod(x.shape)))
        return self._wrap(function(*(self._aligned(x, order) for x in xs)), order)

    def select(self, mask: Imported, a: Imported, b: Imported) -> Imported:
        """a where mask, else b."""
        rank = len(broadcast_shapes(mask.shape, a.shape, b.shape))
        order = self._order_of([x for x in (mask, a, b) if len(x.shape) == rank])
        return self._wrap(self.b.select(*(self._aligned(x, order) for x in (mask, a, b))), order)

    def _aligned(self, x: Imported, order: Permutation) -> Value:
        """x so that it broadcasts against values in `order`."""
        missing = len(order) - len(x.shape)
        if missing == 0:
            return self._form(x, order)
        if prod(x.shape) == 1 or order == _identity(len(order)):
            return self._in_order(x)
        wide = (1,) * missing + x.shape
        if not _keeps_memory(wide, order):
            wide_value = self.b.reshape(self._row_major(x), wide)
            return self.b.transpose(wide_value, order)
        sizes = [wide[p] for p in order]
        while sizes and sizes[0] == 1:
            sizes.pop(0)
        return self.b.reshape(self._row_major(x), sizes)

    def one_hot(self, labels: Imported, depth: int) -> Imported:
        """Rows of 0 and 1 from integer labels."""
        y = self.b.one_hot(self._in_order(labels), depth)
        return self._wrap(y, _identity(len(shape_of(y))))

    def loss(
        self, function: Callable[[Value, Value], Value], x: Imported, target: Imported
    ) -> Imported:
        """`function` (a loss of the builder), a scalar."""
        return self._wrap(function(self._in_order(x), self._in_order(target)), ())

    def dropout(self, x: Imported, rate: float) -> Imported:
        """Dropout with a seed of its own."""
        if rate == 0.0:
            return x
        self._dropouts += 1
        seeded = partial(self.b.dropout, rate=as_f32(rate), seed=self._dropouts)
        return self.elementwise(seeded, x)

    # --- codes

    def is_codes(self, x: Imported) -> bool:
        """Whether `x` is quantised."""
        weight = x.tensor.weight
        if weight is not None:
            return weight.element is not None and not weight.real
        return isinstance(self.element(x), QuantizedType)

    def element_of_codes(self, x: Imported) -> QuantizedType:
        """The type of quantised `x`, in file order."""
        weight = x.tensor.weight
        if weight is None:
            return quantized(self.element(x))
        assert weight.element is not None
        return _permuted(weight.element, x.permutation)

    def codes(self, name: str, array: Array, element: QuantizedType) -> Imported:
        """A parameter of codes; as in `weight`, its first reader decides its order."""
        tensor = Orders(array.shape, {}, Weight(name, array, False, element))
        return Imported(tensor, _identity(array.ndim))

    def quantize(self, x: Imported, element: QuantizedType) -> Imported:
        """Codes of type `element`; those of a weight are computed now."""
        array, weight = x.array, x.tensor.weight
        if array is not None and weight is not None:
            return self.codes(weight.name, to_codes(array, element), element)
        if self.element(x) != f32:
            raise Unsupported("of integers")
        if element.axis is not None:
            raise Unsupported("a scale per channel of what is no weight")
        return self.elementwise(partial(self.b.quantize, to=element), x)

    def dequantize(self, x: Imported) -> Imported:
        """The numbers that codes stand for."""
        weight = x.tensor.weight
        if weight is not None:
            numbers = Orders(x.tensor.shape, {}, replace(weight, real=True))
            return Imported(numbers, x.permutation)
        return self.elementwise(self.b.dequantize, x)

    # --- contractions

    def conv2d(
        self,
        x: Imported,
        w: Imported,
        bias: Imported | None,
        strides: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
        groups: int,
    ) -> Imported:
        """Convolution of an image by an OIHW filter; padding [top, left, bottom, right]."""
        if len(x.shape) != 4 or len(w.shape) != 4:
            raise Unsupported(f"input of rank {len(x.shape)}; only 2-D convolution of a batch")
        image, filters = self._form(x, NHWC), self._form(w, NHWC)
        y = self.b.conv2d(image, filters, strides, padding, dilation, groups)
        if bias is not None:
            y = self.b.add(y, self._vector(bias))
        return self._wrap(y, NHWC)

    def matmul(self, a: Imported, b: Imported) -> Imported:
        """a @ b: the rows of `a`, in however many dimensions, or each pair of two stacks."""
        if len(a.shape) < 2 or len(b.shape) < 2:
            raise Unsupported(f"ranks {len(a.shape)} and {len(b.shape)}; only matrix products")
        if len(b.shape) == 2 < len(a.shape):
            rows = self.matmul(self.reshape(a, [-1, a.shape[-1]]), b)
            return self.reshape(rows, [*a.shape[:-1], b.shape[1]])
        stack = broadcast_shapes(a.shape[:-2], b.shape[:-2])
        a, b = (self.expand(x, [*stack, *x.shape[-2:]]) for x in (a, b))
        (left, transpose_a), (right, transpose_b) = self._matrices(a), self._matrices(b)
        y = self.b.matmul(left, right, transpose_a, transpose_b)
        return self._wrap(y, _identity(len(a.shape)))

    def _matrices(self, x: Imported) -> tuple[Value, bool]:
        """A matrix or a stack of them, and whether each is transposed."""
        forms, rank = self._forms(x), len(x.shape)
        plain = _identity(rank)
        turned = (*plain[:-2], rank - 1, rank - 2)
        # What lies in order already, else what keeps neighbours in memory together.
        order = next((p for p in (plain, turned) if p in forms), next(iter(forms)))
        swapped = order.index(rank - 2) > order.index(rank - 1)
        return self._form(x, turned if swapped else plain), swapped

    def linear(self, x: Imported, w: Imported, bias: Imported | None) -> Imported:
        """x @ w transposed + bias."""
        if len(w.shape) != 2:
            raise Unsupported(f"weight of rank {len(w.shape)}")
        y = self.matmul(x, self.transpose(w, (1, 0)))
        return y if bias is None else self.elementwise(self.b.add, y, bias)

    def gather(self, table: Imported, indices: Imported) -> Imported:
        """The rows of a matrix at integer indices."""
        if len(table.shape) != 2 or self.element(indices) != i32:
            raise Unsupported(f"of a table of rank {len(table.shape)}; only rows of a matrix")
        y = self.b.gather(self._form(table, (0, 1)), self._in_order(indices))
        return self._wrap(y, _identity(len(shape_of(y))))

    def layer_norm(
        self, x: Imported, scale: Imported | None, shift: Imported | None, epsilon: float
    ) -> Imported:
        """Layer norm along the last dimension."""
        scale, shift = self._row_values(x, scale, 1.0), self._row_values(x, shift, 0.0)
        normalised = partial(self.b.layer_norm, epsilon=as_f32(epsilon))
        y = normalised(self._in_order(x), self._vector(scale), self._vector(shift))
        return self._wrap(y, _identity(len(x.shape)))

    def rms_norm(self, x: Imported, scale: Imported | None, epsilon: float) -> Imported:
        """RMS norm along the last dimension."""
        scale = self._row_values(x, scale, 1.0)
        y = self.b.rms_norm(self._in_order(x), self._vector(scale), as_f32(epsilon))
        return self._wrap(y, _identity(len(x.shape)))

    def _row_values(self, x: Imported, values: Imported | None, default: float) -> Imported:
        return self.full(default, x.shape[-1:]) if values is None else values

    def batch_norm(
        self,
        x: Imported,
        scale: Imported | None,
        shift: Imported | None,
        mean: Imported,
        var: Imported,
        epsilon: float,
        momentum: float,
        training: bool,
    ) -> Imported:
        """Batch norm over dimension 1."""
        require(len(x.shape) >= 2, "batch norm needs a batch and channels")
        channels = x.shape[1:2]
        scale = self.full(1.0, channels) if scale is None else scale
        shift = self.full(0.0, channels) if shift is None else shift
        self._frozen_norms += not training
        order = _channels_last(len(x.shape))
        y = self.b.batch_norm(
            self._form(x, order),
            self._vector(scale),
            self._vector(shift),
            self._vector(mean),
            self._vector(var),
            as_f32(epsilon),
            as_f32(momentum),
            training,
        )
        return self._wrap(y, order)

    def _vector(self, x: Imported) -> Value:
        """x, one value per channel."""
        require(len(x.shape) == 1, f"expected one value per channel, got shape {list(x.shape)}")
        return self._form(x, (0,))

    # --- pooling

    def max_pool2d(
        self, x: Imported, kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]
    ) -> Imported:
        """Maximum of each window; padding [top, left, bottom, right]."""
        if prod(kernel) > 128:
            raise Unsupported(f"window of {prod(kernel)} elements; at most 128")
        return self._wrap(self.b.max_pool2d(self._image(x), kernel, strides, padding), NHWC)

    def avg_pool2d(
        self,
        x: Imported,
        kernel: Sequence[int],
        strides: Sequence[int],
        padding: Sequence[int],
        count_include_pad: bool,
    ) -> Imported:
        """Mean of each window; padding [top, left, bottom, right]."""
        y = self.b.avg_pool2d(self._image(x), kernel, strides, padding, count_include_pad)
        return self._wrap(y, NHWC)

    def _image(self, x: Imported) -> Value:
        if len(x.shape) != 4:
            raise Unsupported(f"input of rank {len(x.shape)}; only 2-D pooling of a batch")
        return self._form(x, NHWC)

    # --- reductions and shapes

    def reduce(
        self,
        function: Callable[[Value, Sequence[int]], Value],
        x: Imported,
        axes: Sequence[int],
        keep: bool,
    ) -> Imported:
        """`function` (a reduction of the builder) over `axes`; `keep`: with size 1."""
        gone = checked_axes(axes, len(x.shape))
        order = self._order_of([x])
        y = function(self._form(x, order), sorted(order.index(a) for a in gone))
        if keep:
            return self._wrap(y, order)
        rest = [d for d in order if d not in gone]
        kept = sorted(rest)
        y = self.b.reshape(y, [x.shape[d] for d in rest])
        return self._wrap(y, tuple(kept.index(d) for d in rest))

    def along(self, function: Callable[[Value, int], Value], x: Imported, axis: int) -> Imported:
        """`function` (softmax and the like) along one dimension."""
        axis = checked_axis(axis, len(x.shape))
        order = self._order_of([x])
        return self._wrap(function(self._form(x, order), order.index(axis)), order)

    def reshape(self, x: Imported, shape: Sequence[int]) -> Imported:
        """The elements in file order under `shape`; one size may be -1."""
        known = prod(s for s in shape if s != -1)
        require(all(s >= -1 for s in shape) and list(shape).count(-1) <= 1, f"shape {list(shape)}")
        if -1 in shape:
            require(known > 0 and prod(x.shape) % known == 0, f"{list(x.shape)} to {list(shape)}")
            shape = [prod(x.shape) // known if s == -1 else s for s in shape]
        if tuple(shape) == x.shape:
            return x
        return self._wrap(self.b.reshape(self._row_major(x), shape), _identity(len(shape)))

    def squeeze(self, x: Imported, axes: Sequence[int]) -> Imported:
        """Drops `axes`, all of size 1."""
        gone = checked_axes(axes, len(x.shape))
        require(all(x.shape[a] == 1 for a in gone), f"sizes {list(x.shape)} are not 1 to squeeze")
        return self.reshape(x, [s for a, s in enumerate(x.shape) if a not in gone])

    def unsqueeze(self, x: Imported, axes: Sequence[int]) -> Imported:
        """Inserts dimensions of size 1 so that they are `axes` of the result."""
        new = checked_axes(axes, len(x.shape) + len(axes))
        sizes = iter(x.shape)
        return self.reshape(
            x, [1 if a in new else next(sizes) for a in range(len(x.shape) + len(new))]
        )

    def transpose(self, x: Imported, permutation: Sequence[int]) -> Imported:
        """Permutes dimensions; emits nothing."""
        rank = len(x.shape)
        require(len(permutation) == rank, f"{list(permutation)} does not permute rank {rank}")
        checked_axes(permutation, rank)
        return Imported(x.tensor, tuple(x.permutation[p % rank] for p in permutation))

    def expand(self, x: Imported, shape: Sequence[int]) -> Imported:
        """Repeats x to its broadcast with `shape`; x itself where nothing changes."""
        whole = broadcast_shapes(x.shape, shape)
        if whole == x.shape:
            return x
        self._check_size(whole)
        wide = self.reshape(x, (1,) * (len(whole) - len(x.shape)) + x.shape)
        order = self._order_of([wide])
        y = self.b.broadcast(self._form(wide, order), [whole[p] for p in order])
        return self._wrap(y, order)

    def pad(self, x: Imported, low: Sequence[int], high: Sequence[int], value: float) -> Imported:
        """`value` around x; negative sizes cut off."""
        require(len(low) == len(high) == len(x.shape), "padding must name each dimension")
        cut = [
            (max(-lo, 0), size - max(-lo, 0) - max(-hi, 0), 1)
            for lo, hi, size in zip(low, high, x.shape, strict=True)
        ]
        x = self.slice(x, *zip(*cut, strict=True)) if cut else x
        order = self._order_of([x])
        y = self.b.pad(
            self._form(x, order),
            [max(low[p], 0) for p in order],
            [max(high[p], 0) for p in order],
            value=as_f32(value),
        )
        return self._wrap(y, order)

    def slice(
        self, x: Imported, starts: Sequence[int], sizes: Sequence[int], steps: Sequence[int]
    ) -> Imported:
        """A box of x."""
        if min(sizes, default=1) < 1:
            raise Unsupported("slice without elements")
        order = self._order_of([x])
        box = [[values[p] for p in order] for values in (starts, sizes, steps)]
        return self._wrap(self.b.slice(self._form(x, order), *box), order)

    def slice_axis(self, x: Imported, axis: int, start: int, stop: int, step: int) -> Imported:
        """x[start:stop:step] along one dimension, by Python's rules."""
        axis = checked_axis(axis, len(x.shape))
        if step < 1:
            raise Unsupported(f"slice with step {step}")
        first, last, _ = slice(start, stop, step).indices(x.shape[axis])
        starts, sizes, steps = [0] * len(x.shape), list(x.shape), [1] * len(x.shape)
        starts[axis], steps[axis] = first, step
        sizes[axis] = len(range(first, last, step))
        return self.slice(x, starts, sizes, steps)

    def split(self, x: Imported, sizes: Sequence[int], axis: int) -> list[Imported]:
        """Parts of `sizes`, one after another along `axis`."""
        axis = checked_axis(axis, len(x.shape))
        if len(sizes) > MAX_PARTS:
            raise Unsupported(f"split into {len(sizes)} parts; at most {MAX_PARTS}")
        require(
            sum(sizes) == x.shape[axis] and min(sizes, default=0) >= 0,
            f"{x.shape[axis]} elements do not split into {list(sizes)}",
        )
        ends = np.cumsum(sizes).tolist()
        return [
            self.slice_axis(x, axis, end - size, end, 1)
            for size, end in zip(sizes, ends, strict=True)
        ]

    def concat(self, xs: Sequence[Imported], axis: int) -> Imported:
        """One after another along `axis`."""
        require(len(xs) > 0, "nothing to concatenate")
        ranks = {len(x.shape) for x in xs}
        require(len(ranks) == 1, f"ranks {sorted(ranks)} do not concatenate")
        axis = checked_axis(axis, len(xs[0].shape))
        if len({self.element(x) for x in xs}) > 1:
            raise Unsupported("operands of different element types")
        order = self._order_of(xs)
        y = self.b.concat([self._form(x, order) for x in xs], order.index(axis))
        return self._wrap(y, order)

    # --- windows

    @staticmethod
    def same_padding(
        size: Sequence[int],
        kernel: Sequence[int],
        strides: Sequence[int],
        dilation: Sequence[int],
        upper: bool,
    ) -> list[int]:
        """[top, left, bottom, right] for outputs of ceil(size / stride).

        `upper`: an odd total puts the extra element at the end (ONNX SAME_UPPER, torch "same").
        """
        low: list[int] = []
        high: list[int] = []
        for n, k, s, d in zip(size, kernel, strides, dilation, strict=True):
            require(s > 0, "'strides' must be positive")
            total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            small = total // 2
            low.append(small if upper else total - small)
            high.append(total - small if upper else small)
        return [*low, *high]

    @staticmethod
    def ceil_padding(
        size: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]
    ) -> list[int]:
        """`padding`, grown at the end so that a pooling rounds its output size up.

        No window may start behind the padded input's end, as in torch and ONNX.
        """
        grown = list(padding)
        for a in (0, 1):
            require(strides[a] > 0, "'strides' must be positive")
            room = size[a] + padding[a] + padding[a + 2] - kernel[a]
            count = -(-room // strides[a])
            if count * strides[a] >= size[a] + padding[a]:
                count -= 1
            grown[a + 2] += max(count * strides[a] - room, 0)
        return grown
