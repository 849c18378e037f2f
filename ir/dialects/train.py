"""The `train` dialect: parameters, persistent state, updates.

Values are those at the start of the step: `train.parameter` and `train.state` read, an update or
`train.assign` writes, and no operation may read a value after it was written (effect order).
"""

from abc import ABC

from xdsl.dialects.builtin import (
    ArrayAttr,
    BoolAttr,
    DenseArrayBase,
    FloatAttr,
    IntegerAttr,
    StringAttr,
    TensorType,
    UnitAttr,
    f32,
)
from xdsl.ir import Attribute, Dialect, OpResult, SSAValue
from xdsl.irdl import (
    IRDLOperation,
    ParsePropInAttrDict,
    irdl_op_definition,
    operand_def,
    opt_operand_def,
    opt_prop_def,
    prop_def,
    result_def,
    traits_def,
    var_operand_def,
    var_result_def,
)
from xdsl.traits import MemoryWriteEffect, Pure
from xdsl.utils.exceptions import VerifyException

from niwaki.ir.dialects.quantized_type import QuantizedType
from niwaki.ir.dialects.tensor_op import get_ints, require, shape_of, tensor, type_of


class Storage(IRDLOperation, ABC):
    """A named persistent tensor; the result is its value at the start of the step."""

    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(Pure())
    sym = prop_def(StringAttr, prop_name="name")
    value = result_def(TensorType)

    @property
    def key(self) -> str:
        """The name in the weight store or the state."""
        return self.sym.data


@irdl_op_definition
class ParameterOp(Storage):
    """A weight of the model. The array is in the weight store under the same name.

    `sha256`: the start of its content hash, empty where there is no array. `update`: the sizes of
    the leading box that this training step updates; absent = frozen. `source_permutation`: the
    stored array is the model file's, transposed by it (`numpy.transpose(file_array,
    source_permutation)`). `fixed`: no scheme updates it, because it is a buffer of the model or
    was exported without a gradient (running statistics are fixed too: only their batch norm moves
    them). `orders`: for each dimension, which index of the (transposed) model file's array is
    stored at each place; empty where nothing moved. `whole`, `starts`: this is the box of the
    model's parameter `whole` that begins there.
    """

    name = "train.parameter"
    sha256 = prop_def(StringAttr)
    update = opt_prop_def(DenseArrayBase)
    source_permutation = opt_prop_def(DenseArrayBase)
    fixed = opt_prop_def(UnitAttr)
    orders = opt_prop_def(ArrayAttr[DenseArrayBase])
    whole = opt_prop_def(StringAttr)
    starts = opt_prop_def(DenseArrayBase)
    assembly_format = "$name attr-dict `:` type($value)"

    @property
    def update_box(self) -> tuple[int, ...] | None:
        """The sizes of the updated leading box, None where frozen."""
        return None if self.update is None else get_ints(self.properties, "update")

    @property
    def channel_orders(self) -> tuple[tuple[int, ...], ...]:
        """`orders` as numbers; () where no dimension was reordered."""
        if self.orders is None:
            return ()
        orders: list[tuple[int, ...]] = []
        for order in self.orders:
            values = order.get_values()  # pyright: ignore[reportAttributeAccessIssue]
            orders.append(tuple(int(i) for i in values))
        return tuple(orders)

    def verify_(self) -> None:
        box, shape = self.update_box, shape_of(self.value)
        orders = self.channel_orders
        require(
            not orders
            or (
                len(orders) == len(shape)
                and all(
                    not o or sorted(o) == list(range(s)) for o, s in zip(orders, shape, strict=True)
                )
            ),
            "'orders' must permute dimensions",
        )
        if box is not None:
            require(
                len(box) == len(shape) and all(0 < b <= s for b, s in zip(box, shape, strict=True)),
                f"'update' must be a box inside {list(shape)}",
            )


@irdl_op_definition
class StateOp(Storage):
    """Optimizer state or a counter: persistent, starts as `init` in every element."""

    name = "train.state"
    init = prop_def(FloatAttr | IntegerAttr)
    assembly_format = "$name attr-dict `:` type($value)"


def storage_of(value: SSAValue) -> Storage:
    """The parameter or state that `value` is; VerifyException if it is none."""
    if isinstance(value, OpResult) and isinstance(value.op, Storage):
        return value.op
    raise VerifyException("the target must be the value of a train.parameter or train.state")


def _check_box(target: SSAValue, value: SSAValue, element: Attribute) -> None:
    whole, box = shape_of(target), shape_of(value)
    require(
        len(whole) == len(box)
        and all(b <= w for b, w in zip(box, whole, strict=True))
        and type_of(value).element_type == element,
        f"{type_of(value)} is no leading box of {type_of(target)}, or not of {element}",
    )


@irdl_op_definition
class AssignOp(IRDLOperation):
    """Writes `value` to the leading box of `target` (the whole of it when the shapes agree).

    The values of a quantised target are its codes.
    """

    name = "train.assign"
    traits = traits_def(MemoryWriteEffect())
    target = operand_def(TensorType)
    value = operand_def(TensorType)
    assembly_format = "$target `,` $value attr-dict `:` type($target) `,` type($value)"

    def verify_(self) -> None:
        storage_of(self.target)
        element = type_of(self.target).element_type
        stored = element.storage if isinstance(element, QuantizedType) else element
        _check_box(self.target, self.value, stored)


class UpdateOp(IRDLOperation, ABC):
    """Moves the leading box of a parameter along its gradient; `expand-updates` spells it out."""

    irdl_options = (ParsePropInAttrDict(),)

    def verify_(self) -> None:
        parameter, gradient, lr = self.operands[:3]
        require(isinstance(storage_of(parameter), ParameterOp), "only a train.parameter is updated")
        element = type_of(parameter).element_type
        real = f32 if isinstance(element, QuantizedType) else element
        _check_box(parameter, gradient, real)
        scalar = tensor([], real)
        require(type_of(lr) == scalar, f"the learning rate must be a {scalar}")
        for state in self.operands[3:]:
            require(isinstance(storage_of(state), StateOp), "optimizer state must be train.state")


@irdl_op_definition
class SgdOp(UpdateOp):
    """SGD with momentum and weight decay, as torch.optim.SGD (Sutskever et al. 2013).

    d = gradient + weight_decay * p; v = momentum * v + d; p -= lr * (nesterov ? d + momentum * v
    : v). Without `velocity`: p -= lr * d.
    """

    name = "train.sgd"
    traits = traits_def(MemoryWriteEffect())
    parameter = operand_def(TensorType)
    gradient = operand_def(TensorType)
    lr = operand_def(TensorType)
    velocity = opt_operand_def(TensorType)
    momentum = prop_def(FloatAttr)
    weight_decay = prop_def(FloatAttr)
    nesterov = prop_def(BoolAttr)
    assembly_format = "operands attr-dict `:` type(operands)"


@irdl_op_definition
class AdamOp(UpdateOp):
    """Adam (Kingma & Ba 2015, algorithm 1) or AdamW (`decoupled`, Loshchilov & Hutter 2019).

    `power1`, `power2`: scalars beta1^t and beta2^t of this step (t = 1 first), which
    `autodiff` makes a `train.state` each. epsilon is added to sqrt(v_hat), as torch.optim.Adam.
    """

    name = "train.adam"
    traits = traits_def(MemoryWriteEffect())
    parameter = operand_def(TensorType)
    gradient = operand_def(TensorType)
    lr = operand_def(TensorType)
    mean = operand_def(TensorType)
    variance = operand_def(TensorType)
    power1 = operand_def(TensorType)
    power2 = operand_def(TensorType)
    beta1 = prop_def(FloatAttr)
    beta2 = prop_def(FloatAttr)
    epsilon = prop_def(FloatAttr)
    weight_decay = prop_def(FloatAttr)
    decoupled = prop_def(BoolAttr)
    assembly_format = "operands attr-dict `:` type(operands)"

    def verify_(self) -> None:
        super().verify_()
        for power in (self.power1, self.power2):
            require(type_of(power) == type_of(self.lr), "beta powers must be like lr")


@irdl_op_definition
class ClipByNormOp(IRDLOperation):
    """Scales all gradients by min(1, max_norm / (norm + 1e-6)), norm over all of them together.

    As torch.nn.utils.clip_grad_norm_ (Pascanu et al. 2013).
    """

    name = "train.clip_by_norm"
    irdl_options = (ParsePropInAttrDict(),)
    traits = traits_def(Pure())
    gradients = var_operand_def(TensorType)
    clipped = var_result_def(TensorType)
    max_norm = prop_def(FloatAttr)
    assembly_format = "operands attr-dict `:` functional-type(operands, results)"

    def verify_(self) -> None:
        if tuple(self.operand_types) != tuple(self.result_types):
            raise VerifyException("results must have the types of the gradients")


WRITES = (AssignOp, SgdOp, AdamOp)
"""Operations that write persistent storage."""


def written(op: AssignOp | SgdOp | AdamOp) -> tuple[SSAValue, ...]:
    """The storage values that `op` writes."""
    match op:
        case AssignOp():
            return (op.target,)
        case SgdOp():
            return (op.parameter,) if op.velocity is None else (op.parameter, op.velocity)
        case AdamOp():
            return (op.parameter, op.mean, op.variance)


TRAIN = Dialect("train", [ParameterOp, StateOp, AssignOp, SgdOp, AdamOp, ClipByNormOp])
