"""Builds tensor-level IR: for frontends, gradient rules, passes, tests and examples."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from xdsl.dialects.builtin import (
    FloatAttr,
    IntegerAttr,
    IntegerType,
    LocationAttr,
    ModuleOp,
    UnitAttr,
    UnknownLoc,
)
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, Region, SSAValue
from xdsl.rewriter import InsertPoint, Rewriter

from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import (
    Tensor,
    f32,
    i32,
    ints,
    shape_of,
    tensor,
    to_attribute,
    type_of,
)
from niwaki.ir.program import Program
from niwaki.ir.weights import WeightStore

Value: TypeAlias = SSAValue
Pair: TypeAlias = int | Sequence[int]


def _pair(value: Pair) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _four(value: Pair) -> tuple[int, int, int, int]:
    """[top, left, bottom, right] from one number, [vertical, horizontal] or all four."""
    if not isinstance(value, int) and len(value) == 4:
        return (value[0], value[1], value[2], value[3])
    vertical, horizontal = _pair(value)
    return (vertical, horizontal, vertical, horizontal)


class Builder:
    """Inserts operations at one point; one method per operation.

    Every operation gets `location`; passes set it to that of the operation they replace.
    """

    def __init__(self, point: InsertPoint, location: LocationAttr | None = None) -> None:
        self.point = point
        self.location: LocationAttr = UnknownLoc() if location is None else location

    @classmethod
    def before(cls, op: Operation) -> "Builder":
        """Inserts before `op`, with its location."""
        return cls(InsertPoint.before(op), op.location)

    @classmethod
    def at_end(cls, block: Block) -> "Builder":
        """Appends to `block`."""
        return cls(InsertPoint.at_end(block))

    def insert(self, op: Operation) -> Operation:
        """Inserts `op` with the current location, unless it has one of its own."""
        if isinstance(op.location, UnknownLoc):
            op.location = self.location
        Rewriter.insert_op(op, self.point)
        return op

    def one(self, op: Operation) -> Value:
        """Inserts `op` and returns its only result."""
        return self.insert(op).results[0]

    # --- constants, parameters, state

    def constant(
        self, value: float | int, shape: Sequence[int] = (), element: Attribute = f32
    ) -> Value:
        """One value everywhere; a scalar unless `shape` is given."""
        attribute = (
            IntegerAttr(int(value), element)  # pyright: ignore[reportArgumentType, reportCallIssue]
            if isinstance(element, IntegerType)
            else FloatAttr(float(value), element)  # pyright: ignore[reportArgumentType, reportCallIssue]
        )
        return self.one(nn.ConstantOp.make(value=attribute, shape=ints(shape)))

    def number(self, value: float, like: Value) -> Value:
        """A scalar constant of the element type of `like`."""
        return self.constant(value, (), type_of(like).element_type)

    def parameter(
        self,
        store: WeightStore,
        name: str,
        array: NDArray[np.generic],
        source_permutation: Sequence[int] | None = None,
        fixed: bool = False,
        element: Attribute | None = None,
    ) -> Value:
        """Stores `array` (canonical layout) and reads it; `fixed`: never updated.

        `element`: the quantised type of its codes; None: f32 or i32, as the array.
        """
        digest = store.add(name, array)
        if element is None:
            element = {"float32": f32, "int32": i32}[str(array.dtype)]
        properties: dict[str, Attribute] = {
            "name": to_attribute(name),
            "sha256": to_attribute(digest),
        }
        if source_permutation is not None:
            properties["source_permutation"] = ints(source_permutation)
        if fixed:
            properties["fixed"] = UnitAttr()
        return self.one(
            train.ParameterOp.create(
                properties=properties, result_types=[tensor(array.shape, element)]
            )
        )

    def declare(self, name: str, kind: Tensor, fixed: bool = False) -> Value:
        """Reads a parameter that has no array: its memory can be planned, but nothing can run."""
        properties: dict[str, Attribute] = {
            "name": to_attribute(name),
            "sha256": to_attribute(""),
        }
        if fixed:
            properties["fixed"] = UnitAttr()
        return self.one(train.ParameterOp.create(properties=properties, result_types=[kind]))

    def state(self, name: str, like: Tensor, init: float | int = 0.0) -> Value:
        """Persistent state of type `like`."""
        attribute = (
            IntegerAttr(int(init), like.element_type)
            if isinstance(like.element_type, IntegerType)
            else FloatAttr(float(init), f32)
        )
        return self.one(
            train.StateOp.create(
                properties={"name": to_attribute(name), "init": attribute}, result_types=[like]
            )
        )

    def assign(self, target: Value, value: Value) -> None:
        """Writes `value` to the leading box of the storage `target`."""
        self.insert(train.AssignOp.create(operands=[target, value]))

    # --- elementwise

    def add(self, a: Value, b: Value) -> Value:
        """a + b."""
        return self.one(nn.AddOp.make(a, b))

    def sub(self, a: Value, b: Value) -> Value:
        """a - b."""
        return self.one(nn.SubOp.make(a, b))

    def mul(self, a: Value, b: Value) -> Value:
        """a * b."""
        return self.one(nn.MulOp.make(a, b))

    def div(self, a: Value, b: Value) -> Value:
        """a / b."""
        return self.one(nn.DivOp.make(a, b))

    def max(self, a: Value, b: Value) -> Value:
        """Elementwise maximum."""
        return self.one(nn.MaxOp.make(a, b))

    def min(self, a: Value, b: Value) -> Value:
        """Elementwise minimum."""
        return self.one(nn.MinOp.make(a, b))

    def scale(self, x: Value, factor: float) -> Value:
        """x * factor, a number."""
        return self.mul(x, self.number(factor, x))

    def neg(self, x: Value) -> Value:
        """-x."""
        return self.one(nn.NegOp.make(x))

    def abs(self, x: Value) -> Value:
        """|x|."""
        return self.one(nn.AbsOp.make(x))

    def exp(self, x: Value) -> Value:
        """e to the x."""
        return self.one(nn.ExpOp.make(x))

    def log(self, x: Value) -> Value:
        """Natural logarithm."""
        return self.one(nn.LogOp.make(x))

    def sqrt(self, x: Value) -> Value:
        """Square root."""
        return self.one(nn.SqrtOp.make(x))

    def rsqrt(self, x: Value) -> Value:
        """1 / sqrt(x)."""
        return self.one(nn.RsqrtOp.make(x))

    def erf(self, x: Value) -> Value:
        """Error function."""
        return self.one(nn.ErfOp.make(x))

    def relu(self, x: Value) -> Value:
        """max(x, 0)."""
        return self.one(nn.ReluOp.make(x))

    def relu6(self, x: Value) -> Value:
        """min(max(x, 0), 6)."""
        return self.one(nn.Relu6Op.make(x))

    def leaky_relu(self, x: Value, slope: float) -> Value:
        """x where positive, else slope * x."""
        return self.one(nn.LeakyReluOp.make(x, slope=float(slope)))

    def sigmoid(self, x: Value) -> Value:
        """Logistic function."""
        return self.one(nn.SigmoidOp.make(x))

    def tanh(self, x: Value) -> Value:
        """Hyperbolic tangent."""
        return self.one(nn.TanhOp.make(x))

    def hard_sigmoid(self, x: Value) -> Value:
        """clip(x / 6 + 1/2, 0, 1)."""
        return self.one(nn.HardSigmoidOp.make(x))

    def hard_swish(self, x: Value) -> Value:
        """x * hard_sigmoid(x)."""
        return self.one(nn.HardSwishOp.make(x))

    def silu(self, x: Value) -> Value:
        """x * sigmoid(x)."""
        return self.one(nn.SiluOp.make(x))

    def softplus(self, x: Value) -> Value:
        """log(1 + exp(x))."""
        return self.one(nn.SoftplusOp.make(x))

    def gelu(self, x: Value, approximate: str = "none") -> Value:
        """x * Phi(x)."""
        return self.one(nn.GeluOp.make(x, approximate=approximate))

    def compare(self, a: Value, b: Value, predicate: str) -> Value:
        """a `predicate` b as a mask."""
        return self.one(nn.CompareOp.make(a, b, predicate=predicate))

    def logical_and(self, a: Value, b: Value) -> Value:
        """Both masks."""
        return self.one(nn.AndOp.make(a, b))

    def select(self, mask: Value, a: Value, b: Value) -> Value:
        """a where mask, else b."""
        return self.one(nn.SelectOp.make(mask, a, b))

    def cast(self, x: Value, to: Attribute = f32) -> Value:
        """Another element type, where the numbers fit it."""
        return self.one(nn.CastOp.make(x, to=to))

    def narrow(self, x: Value, to: Attribute) -> Value:
        """Rounded to bf16 or i8."""
        return self.one(nn.NarrowOp.make(x, to=to))

    # --- contractions

    def conv2d(
        self,
        x: Value,
        w: Value,
        strides: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Value:
        """NHWC input, OHWI filter."""
        return self.one(
            nn.Conv2dOp.make(
                x,
                w,
                strides=_pair(strides),
                padding=_four(padding),
                dilation=_pair(dilation),
                groups=groups,
            )
        )

    def conv2d_dx(self, dy: Value, w: Value, window: nn.Window, input_size: Sequence[int]) -> Value:
        """Cotangent of the input of a convolution with `window`."""
        return self.one(nn.Conv2dDxOp.make(dy, w, **asdict(window), input_size=input_size))

    def conv2d_dw(
        self, x: Value, dy: Value, window: nn.Window, kernel_size: Sequence[int]
    ) -> Value:
        """Cotangent of the filter of a convolution with `window`."""
        return self.one(nn.Conv2dDwOp.make(x, dy, **asdict(window), kernel_size=kernel_size))

    def matmul(
        self, a: Value, b: Value, transpose_a: bool = False, transpose_b: bool = False
    ) -> Value:
        """a @ b."""
        return self.one(nn.MatmulOp.make(a, b, transpose_a=transpose_a, transpose_b=transpose_b))

    def dense(self, x: Value, w: Value, bias: Value | None = None) -> Value:
        """x [N, I] @ w [O, I] transposed + bias [O]."""
        y = self.matmul(x, w, transpose_b=True)
        return y if bias is None else self.add(y, bias)

    # --- quantised tensors and integers

    def quantize(self, x: Value, to: Attribute) -> Value:
        """Codes of type `to` (where they were not clamped is the second result)."""
        return self.insert(nn.QuantizeOp.make(x, to=to)).results[0]

    def dequantize(self, x: Value) -> Value:
        """The real numbers that codes stand for."""
        return self.one(nn.DequantizeOp.make(x))

    def codes(self, x: Value) -> Value:
        """Codes as plain integers."""
        return self.one(nn.CodesOp.make(x))

    def from_codes(self, x: Value, to: Attribute) -> Value:
        """Plain integers as codes of type `to`."""
        return self.one(nn.FromCodesOp.make(x, to=to))

    def scales(self, x: Value) -> Value:
        """The scales of a quantised tensor."""
        return self.one(nn.ScalesOp.make(x))

    def quantized_conv2d(
        self,
        x: Value,
        w: Value,
        bias: Value,
        to: Attribute,
        strides: Pair = 1,
        padding: Pair = 0,
        dilation: Pair = 1,
        groups: int = 1,
    ) -> Value:
        """A convolution with bias, as codes of type `to`."""
        op = nn.QuantizedConv2dOp.make(
            x,
            w,
            bias,
            to=to,
            strides=_pair(strides),
            padding=_four(padding),
            dilation=_pair(dilation),
            groups=groups,
        )
        return self.insert(op).results[0]

    def quantized_add(self, a: Value, b: Value, to: Attribute) -> Value:
        """a + b, as codes of type `to`."""
        return self.insert(nn.QuantizedAddOp.make(a, b, to=to)).results[0]

    def quantized_mean(self, x: Value, axes: Sequence[int]) -> Value:
        """The mean; the axes stay with size 1."""
        return self.one(nn.QuantizedMeanOp.make(x, axes=sorted(axes)))

    def integer_conv2d_dx(
        self, dy: Value, w: Value, window: nn.Window, input_size: Sequence[int]
    ) -> Value:
        """Cotangent of the input of a convolution with `window`, of whole numbers."""
        return self.one(nn.IntegerConv2dDxOp.make(dy, w, **asdict(window), input_size=input_size))

    def integer_conv2d_dw(
        self, x: Value, dy: Value, window: nn.Window, kernel_size: Sequence[int], zero_point: int
    ) -> Value:
        """Cotangent of the filter of a convolution with `window`, of whole numbers."""
        return self.one(
            nn.IntegerConv2dDwOp.make(
                x, dy, **asdict(window), kernel_size=kernel_size, zero_point=zero_point
            )
        )

    def rescale(self, x: Value, multiplier: Value, shift: int, zero_point: int = 0) -> Value:
        """x * multiplier / 2^shift, rounded, + zero point."""
        return self.one(nn.RescaleOp.make(x, multiplier, shift=shift, zero_point=zero_point))

    def round(self, x: Value) -> Value:
        """The nearest integer, ties to even."""
        return self.one(nn.RoundOp.make(x))

    def random_uniform(self, like: Value, counter: Value, seed: int) -> Value:
        """Numbers in [0, 1), others in each step."""
        return self.one(nn.RandomUniformOp.make(like, counter, seed=seed))

    # --- pooling

    def max_pool2d(self, x: Value, kernel_size: Pair, strides: Pair, padding: Pair = 0) -> Value:
        """Maximum of each window (the index is the operation's second result)."""
        op = nn.MaxPool2dOp.make(
            x, kernel_size=_pair(kernel_size), strides=_pair(strides), padding=_four(padding)
        )
        return self.insert(op).results[0]

    def avg_pool2d(
        self,
        x: Value,
        kernel_size: Pair,
        strides: Pair,
        padding: Pair = 0,
        count_include_pad: bool = True,
    ) -> Value:
        """Mean of each window."""
        return self.one(
            nn.AvgPool2dOp.make(
                x,
                kernel_size=_pair(kernel_size),
                strides=_pair(strides),
                padding=_four(padding),
                count_include_pad=count_include_pad,
            )
        )

    def global_avg_pool(self, x: Value) -> Value:
        """[N, H, W, C] to [N, C]: mean over height and width."""
        shape = shape_of(x)
        return self.reshape(self.reduce_mean(x, [1, 2]), [shape[0], shape[3]])

    # --- reductions and shapes

    def reduce_sum(self, x: Value, axes: Sequence[int]) -> Value:
        """Sum; the axes stay with size 1."""
        return self.one(nn.ReduceSumOp.make(x, axes=sorted(axes)))

    def reduce_mean(self, x: Value, axes: Sequence[int]) -> Value:
        """Mean; the axes stay with size 1."""
        return self.one(nn.ReduceMeanOp.make(x, axes=sorted(axes)))

    def reduce_max(self, x: Value, axes: Sequence[int]) -> Value:
        """Maximum; the axes stay with size 1."""
        return self.one(nn.ReduceMaxOp.make(x, axes=sorted(axes)))

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements under `shape` (no -1); x itself where nothing changes."""
        if shape_of(x) == tuple(shape):
            return x
        return self.one(nn.ReshapeOp.make(x, shape=shape))

    def broadcast(self, x: Value, shape: Sequence[int]) -> Value:
        """Repeats x to `shape`; x itself where nothing changes."""
        if shape_of(x) == tuple(shape):
            return x
        return self.one(nn.BroadcastOp.make(x, shape=shape))

    def transpose(self, x: Value, permutation: Sequence[int]) -> Value:
        """Permutes dimensions; x itself where nothing changes."""
        if list(permutation) == list(range(len(permutation))):
            return x
        return self.one(nn.TransposeOp.make(x, permutation=permutation))

    def pad(
        self,
        x: Value,
        low: Sequence[int],
        high: Sequence[int],
        interior: Sequence[int] | None = None,
        value: float = 0.0,
    ) -> Value:
        """`value` around and between the elements."""
        return self.one(
            nn.PadOp.make(
                x,
                low=low,
                high=high,
                interior=[0] * len(low) if interior is None else interior,
                value=float(value),
            )
        )

    def slice(
        self,
        x: Value,
        starts: Sequence[int],
        sizes: Sequence[int],
        steps: Sequence[int] | None = None,
    ) -> Value:
        """A box of x; x itself where it is the whole."""
        if shape_of(x) == tuple(sizes):
            return x
        steps = [1] * len(starts) if steps is None else steps
        return self.one(nn.SliceOp.make(x, starts=starts, sizes=sizes, steps=steps))

    def concat(self, xs: Sequence[Value], axis: int) -> Value:
        """One after another along `axis`."""
        return self.one(nn.ConcatOp.make(*xs, axis=axis))

    def one_hot(self, labels: Value, depth: int, element: Attribute = f32) -> Value:
        """Integer labels [...] to rows of 0 and 1, [..., depth]."""
        column = self.reshape(labels, [*shape_of(labels), 1])
        if depth == 1:
            return self.cast(self.compare(column, self.number(0, column), "eq"), element)
        other = {} if element == f32 else {"to": element}
        return self.one(nn.OneHotOp.make(column, depth=depth, **other))

    def gather(self, table: Value, indices: Value) -> Value:
        """The rows of `table` at `indices`."""
        return self.one(nn.GatherOp.make(table, indices))

    def scatter_add(self, x: Value, indices: Value, rows: int) -> Value:
        """A table of `rows` sums of the rows of x, each at its index."""
        return self.one(nn.ScatterAddOp.make(x, indices, rows=rows))

    def add_rows(self, table: Value, x: Value, indices: Value) -> Value:
        """`table` with each row of x added to the row at its index."""
        return self.one(nn.AddRowsOp.make(table, x, indices))

    def count_correct(self, logits: Value, labels: Value) -> Value:
        """How many rows have their maximum at the label."""
        return self.one(nn.CountCorrectOp.make(logits, labels))

    # --- composites

    def softmax(self, x: Value, axis: int = -1) -> Value:
        """Softmax along `axis`."""
        return self.one(nn.SoftmaxOp.make(x, axis=axis % len(shape_of(x))))

    def log_softmax(self, x: Value, axis: int = -1) -> Value:
        """Log-softmax along `axis`."""
        return self.one(nn.LogSoftmaxOp.make(x, axis=axis % len(shape_of(x))))

    def batch_norm(
        self,
        x: Value,
        gamma: Value,
        beta: Value,
        mean: Value,
        var: Value,
        epsilon: float = 1e-5,
        momentum: float = 0.1,
        training: bool = False,
    ) -> Value:
        """Batch norm over the last dimension, as a model file states it."""
        return self.one(
            nn.BatchNormOp.make(
                x,
                gamma,
                beta,
                mean,
                var,
                epsilon=float(epsilon),
                momentum=float(momentum),
                training=training,
            )
        )

    def layer_norm(self, x: Value, gamma: Value, beta: Value, epsilon: float) -> Value:
        """x, of mean 0 and variance 1 along the last dimension, times gamma plus beta."""
        return self.one(nn.LayerNormOp.make(x, gamma, beta, epsilon=float(epsilon)))

    def rms_norm(self, x: Value, gamma: Value, epsilon: float) -> Value:
        """x divided by the root of its mean square along the last dimension, times gamma."""
        return self.one(nn.RmsNormOp.make(x, gamma, epsilon=float(epsilon)))

    def inverse_rms(self, x: Value, epsilon: float) -> Value:
        """1 / sqrt(mean(x^2) + epsilon) along the last dimension, which stays with size 1."""
        square = self.reduce_mean(self.mul(x, x), [len(shape_of(x)) - 1])
        return self.rsqrt(self.add(square, self.number(epsilon, x)))

    def centred(self, x: Value, epsilon: float) -> tuple[Value, Value]:
        """x minus its mean along the last dimension, and 1 / sqrt(its variance + epsilon)."""
        axes = [len(shape_of(x)) - 1]
        centred = self.sub(x, self.reduce_mean(x, axes))
        return centred, self.inverse_rms(centred, epsilon)

    def dropout(self, x: Value, rate: float, seed: int) -> Value:
        """Identity outside training."""
        return self.one(nn.DropoutOp.make(x, rate=float(rate), seed=seed))

    def cross_entropy(self, x: Value, target: Value) -> Value:
        """Mean cross-entropy of logits [N, C] and labels [N] or probabilities [N, C]."""
        return self.one(nn.CrossEntropyOp.make(x, target))

    def mse(self, x: Value, target: Value) -> Value:
        """Mean squared error."""
        return self.one(nn.MseOp.make(x, target))

    def bce_with_logits(self, x: Value, target: Value) -> Value:
        """Mean binary cross-entropy of logits."""
        return self.one(nn.BceWithLogitsOp.make(x, target))


class ProgramBuilder(Builder):
    """Builds a whole program: `input`s, operations, `parameter`s, then `finish`.

    >>> b = ProgramBuilder()
    >>> x = b.input([1, 8, 8, 1])
    >>> w = b.weight("conv.weight", np.zeros((4, 3, 3, 1), np.float32))
    >>> program = b.finish(b.relu(b.conv2d(x, w)))
    """

    def __init__(self) -> None:
        self.store = WeightStore()
        self.block = Block()
        super().__init__(InsertPoint.at_end(self.block))

    def input(self, shape: Sequence[int], element: Attribute = f32, name: str = "x") -> Value:
        """A new argument of the function."""
        argument = self.block.insert_arg(tensor(shape, element), len(self.block.args))
        argument.name_hint = name
        return argument

    def weight(
        self,
        name: str,
        array: NDArray[np.generic],
        source_permutation: Sequence[int] | None = None,
        fixed: bool = False,
        element: Attribute | None = None,
    ) -> Value:
        """A parameter of the program; see `parameter`."""
        return self.parameter(self.store, name, array, source_permutation, fixed, element)

    def finish(self, *outputs: Value, source: str = "builder") -> Program:
        """Ends the function `@forward`, verifies and returns the program."""
        self.insert(ReturnOp(*outputs))
        function = FuncOp.from_region(
            "forward",
            [a.type for a in self.block.args],
            [o.type for o in outputs],
            Region(self.block),
        )
        module = ModuleOp([function])
        module.verify()
        return Program(module, self.store, source)
