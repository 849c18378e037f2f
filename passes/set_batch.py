"""`set-batch`: gives @forward another batch size and infers all types anew."""

from collections.abc import Callable
from dataclasses import dataclass

from xdsl.context import Context
from xdsl.dialects.builtin import BoolAttr, ModuleOp
from xdsl.dialects.func import FuncOp, ReturnOp
from xdsl.ir import Attribute, Block, Operation, SSAValue
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.dialects import nn
from niwaki.ir.dialects.tensor_op import (
    Tensor,
    TensorOp,
    get_int,
    get_ints,
    ints,
    require,
    shape_of,
    tensor,
    type_of,
)
from niwaki.ir.errors import UsageError


@dataclass(frozen=True)
class SetBatchPass(ModulePass):
    """Dimension 0 of every input of @forward becomes `batch`; the types behind it follow.

    A value carries the batch when its rows (dimension 0) are `k` rows of each sample, one sample
    after another. Operations that keep samples apart are re-typed by their shape rule, with the
    attributes that state shapes rescaled.

    Raises UsageError if an operation mixes samples or has the old batch built in.
    """

    name = "set-batch"
    batch: int

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.batch < 1:
            raise UsageError(f"the batch must be at least 1, got {self.batch}")
        for function in op.body.block.ops:
            if isinstance(function, FuncOp) and function.sym_name.data == "forward":
                rebatch(function, _old_batch(function), self.batch)


def rebatch(function: FuncOp, old: int, new: int) -> None:
    """Dimension 0 of every argument that is no scalar becomes `new`; raises as SetBatchPass."""
    _Rebatch(old, new).run(function)


def _old_batch(function: FuncOp) -> int:
    sizes = {shape_of(a)[:1] for a in function.body.block.args}
    if len(sizes) != 1 or () in sizes:
        raise UsageError(
            "the inputs of the model have no common batch in dimension 0: "
            "export it with the wanted batch"
        )
    ((size,),) = sizes
    return size


class _Rebatch:
    """The change of one function from batch `old` to batch `new`."""

    def __init__(self, old: int, new: int) -> None:
        self.old = old
        self.new = new
        self.batched: set[SSAValue] = set()
        """Values that carry the batch."""

    def run(self, function: FuncOp) -> None:
        if self.old == self.new:
            return
        block = function.body.block
        for argument in [a for a in block.args if shape_of(a)]:
            self._retype(argument, tensor((self.new, *shape_of(argument)[1:]), _element(argument)))
        self._rebatch_block(block)
        function.update_function_type()

    def _rebatch_block(self, block: Block) -> None:
        for op in block.ops:
            if isinstance(op, ReturnOp) or not any(o in self.batched for o in op.operands):
                continue
            try:
                self._rebatch_op(op)
            except VerifyException as error:
                raise UsageError(
                    f"cannot change the batch from {self.old} to {self.new}: "
                    f"'{op.name}' at {op.location}: {error}; "
                    "export the model with the wanted batch"
                ) from None

    def _rebatch_op(self, op: Operation) -> None:
        require(isinstance(op, TensorOp), "the batch of this operation is fixed")
        assert isinstance(op, TensorOp)
        for attribute in ("shape", "sizes"):
            if attribute in op.properties:
                op.properties[attribute] = self._rescaled(op, attribute)
        types = op.infer([type_of(o) for o in op.operands], op.properties)
        if isinstance(op, _SUMMARIES):
            return
        _check_samples_stay_apart(op, self.batched)
        for result, result_type in zip(list(op.results), types, strict=True):
            self._retype(result, result_type)

    def _rescaled(self, op: TensorOp, attribute: str) -> Attribute:
        sizes = list(get_ints(op.properties, attribute))
        require(
            len(sizes) > 0 and sizes[0] % self.old == 0,
            f"dimension 0 of its result {sizes} is no multiple of the batch",
        )
        return ints([sizes[0] // self.old * self.new, *sizes[1:]])

    def _retype(self, value: SSAValue, new_type: Tensor) -> None:
        self.batched.add(Rewriter.replace_value_with_new_type(value, new_type))


def _element(value: SSAValue) -> Attribute:
    return type_of(value).element_type


# --- what keeps samples apart; each check raises VerifyException where they would mix

_SUMMARIES = (nn.CrossEntropyOp, nn.MseOp, nn.BceWithLogitsOp, nn.CountCorrectOp)
"""Their scalar is about the whole batch, whatever its size."""

_Check = Callable[[TensorOp, set[SSAValue]], None]


def _only_first(op: TensorOp, batched: set[SSAValue]) -> None:
    require(
        not any(o in batched for o in op.operands[1:]), "only its first operand may hold the batch"
    )


def _elementwise(op: TensorOp, batched: set[SSAValue]) -> None:
    rank = len(shape_of(op.results[0]))
    require(
        rank > 0 and all(len(shape_of(o)) == rank for o in op.operands if o in batched),
        "the batch is not dimension 0 of its result",
    )


def _matmul(op: TensorOp, batched: set[SSAValue]) -> None:
    if len(shape_of(op.operands[0])) > 2:
        require(all(o in batched for o in op.operands), "only one of its stacks holds the batch")
        return
    _only_first(op, batched)
    require(op.properties["transpose_a"] == BoolAttr.from_bool(False), "it sums over the batch")


def _gather(op: TensorOp, batched: set[SSAValue]) -> None:
    require(op.operands[0] not in batched, "it looks up rows of the batch")


def _row_norm(op: TensorOp, batched: set[SSAValue]) -> None:
    _only_first(op, batched)
    require(len(shape_of(op.results[0])) > 1, "it works along the batch")


def _not_axis_0(op: TensorOp, batched: set[SSAValue]) -> None:
    axes = (
        get_ints(op.properties, "axes")
        if "axes" in op.properties
        else (get_int(op.properties, "axis"),)
    )
    require(0 not in axes, "it works along the batch")
    require(all(o in batched for o in op.operands), "some operands do not hold the batch")


def _transpose(op: TensorOp, batched: set[SSAValue]) -> None:
    require(get_ints(op.properties, "permutation")[0] == 0, "it moves the batch dimension")


def _pad(op: TensorOp, batched: set[SSAValue]) -> None:
    at_0 = [get_ints(op.properties, k)[0] for k in ("low", "high", "interior")]
    require(at_0 == [0, 0, 0], "it pads the batch")


def _slice(op: TensorOp, batched: set[SSAValue]) -> None:
    rows = get_ints(op.properties, "sizes")[0]
    require(rows == shape_of(op.operands[0])[0], "it takes a part of the batch")


def _keeps_rank(op: TensorOp, batched: set[SSAValue]) -> None:
    require(
        len(shape_of(op.operands[0])) == len(shape_of(op.results[0])),
        "the batch is not dimension 0 of its result",
    )


def _anything(op: TensorOp, batched: set[SSAValue]) -> None:
    """Row-major order keeps each sample's elements together under every shape."""


_CHECKS: tuple[tuple[type[TensorOp] | tuple[type[TensorOp], ...], _Check], ...] = (
    (nn.Elementwise, _elementwise),
    ((nn.Conv2dOp, nn.QuantizedConv2dOp, nn.MaxPool2dOp, nn.AvgPool2dOp), _only_first),
    ((nn.QuantizeOp, nn.DequantizeOp), _anything),
    (nn.QuantizedAddOp, _elementwise),
    (nn.QuantizedMeanOp, _not_axis_0),
    ((nn.BatchNormOp, nn.DropoutOp, nn.RandomMaskOp), _only_first),
    ((nn.LayerNormOp, nn.RmsNormOp), _row_norm),
    (nn.GatherOp, _gather),
    (nn.MatmulOp, _matmul),
    ((nn.Reduction, nn.ConcatOp, nn.SoftmaxOp, nn.LogSoftmaxOp), _not_axis_0),
    (nn.TransposeOp, _transpose),
    (nn.PadOp, _pad),
    (nn.SliceOp, _slice),
    (nn.BroadcastOp, _keeps_rank),
    (nn.ReshapeOp, _anything),
)


def _check_samples_stay_apart(op: TensorOp, batched: set[SSAValue]) -> None:
    for kinds, check in _CHECKS:
        if isinstance(op, kinds):
            check(op, batched)
            return
    raise VerifyException("the batch of this operation is fixed")
