"""`constant-fold`: computes ahead what depends on constants and frozen parameters only."""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.interpreter import Interpreter
from xdsl.ir import Block, Operation, OpResult, SSAValue
from xdsl.passes import ModulePass

from niwaki.ir.builder import Builder, Value
from niwaki.ir.context import weights_of
from niwaki.ir.dialects import nn, train
from niwaki.ir.dialects.tensor_op import TensorOp, f32, i32, shape_of, tensor_bytes, type_of
from niwaki.ir.interpreter import STATELESS
from niwaki.ir.weights import WeightStore, content_hash

Array = np.ndarray[Any, np.dtype[Any]]

_PREFIX = "folded."


@dataclass(frozen=True)
class ConstantFoldPass(ModulePass):
    """Results that are one number everywhere become `nn.constant`, others new parameters.

    A parameter takes part if no function of the module updates or assigns it and its array is in
    the weight store. The new ones are named "folded.<number>.<name of the first parameter>". An
    operation whose result takes more bytes than its operands stays, as does every broadcast, and
    what multiplies, converts or reshapes one number per channel that is stored anyway.
    """

    name = "constant-fold"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        store = weights_of(ctx)
        mutable = _mutable_names(op)
        frozen = {name: array for name, array in store.items() if name not in mutable}
        folder = _Folder(store, frozen, op)
        for function in op.body.block.ops:
            for region in function.regions:
                for block in region.blocks:
                    folder.fold(block)


def _mutable_names(module: ModuleOp) -> set[str]:
    """Names of the parameters that some function updates or assigns."""
    names: set[str] = set()
    for op in module.walk():
        if isinstance(op, train.ParameterOp) and op.update is not None:
            names.add(op.key)
        elif isinstance(op, train.WRITES):
            names.update(train.storage_of(v).key for v in train.written(op))
    return names


@dataclass(frozen=True)
class _Known:
    """What is known of a value: its elements, and the parameter that they come from."""

    array: Array
    origin: str


class _Folder:
    """Folds the blocks of one module; equal results share one parameter."""

    def __init__(self, store: WeightStore, frozen: Mapping[str, Any], module: ModuleOp) -> None:
        self.store = store
        self.frozen = frozen
        self.interpreter = Interpreter(module)
        for functions in STATELESS:
            self.interpreter.register_implementations(functions())
        self.names = {store.hash(name): name for name in store if name.startswith(_PREFIX)}
        """Content hash -> name of a folded parameter."""
        self.stored = self._stored(module)
        """Names of frozen parameters that an operation reads which is not folded."""

    def fold(self, block: Block) -> None:
        """Replaces what is known, where an operation that stays needs it."""
        known: dict[SSAValue, _Known] = {}
        folded: list[TensorOp] = []
        for op in block.ops:
            leaf = self._leaf(op)
            if leaf is not None:
                known[op.results[0]] = leaf
            elif isinstance(op, TensorOp) and _is_foldable(op, known) and not self._restates(op):
                known[op.results[0]] = self._evaluated(op, known)
                folded.append(op)
        # Last first: an operation that only folded ones use is gone before its own turn.
        for op in reversed(folded):
            if op.results[0].first_use is not None:
                self._replace(op, known[op.results[0]])
            op.detach()
            op.erase()

    def _is_leaf(self, op: Operation) -> bool:
        return isinstance(op, nn.ConstantOp) or (
            isinstance(op, train.ParameterOp) and op.key in self.frozen
        )

    def _leaf(self, op: Operation) -> _Known | None:
        match op:
            case nn.ConstantOp():
                (array,) = self.interpreter.run_op(op, ())
                return _Known(array, "constant")
            case train.ParameterOp() if op.key in self.frozen:
                return _Known(self.frozen[op.key], op.key)
            case _:
                return None

    def _stored(self, module: ModuleOp) -> set[str]:
        stored: set[str] = set()
        known: set[SSAValue] = set()
        for op in module.walk():
            if self._is_leaf(op) or (isinstance(op, TensorOp) and _is_foldable(op, known)):
                known.update(op.results)
                continue
            owners = (o.owner for o in op.operands)
            stored.update(o.key for o in owners if isinstance(o, train.ParameterOp))
        return stored

    def _restates(self, op: TensorOp) -> bool:
        """Whether `op` says numbers by channel another way that are stored anyway."""
        arrays = [o for o in op.operands if _is_stored(o)]
        if not isinstance(op, nn.MulOp | nn.CastOp | nn.ReshapeOp) or len(arrays) != 1:
            return False
        parameter, shape = arrays[0].owner, shape_of(op.results[0])
        return (
            isinstance(parameter, train.ParameterOp)
            and parameter.key in self.stored
            and max(shape, default=1) == prod(shape)
        )

    def _evaluated(self, op: TensorOp, known: Mapping[SSAValue, _Known]) -> _Known:
        operands = [known[o] for o in op.operands]
        with np.errstate(all="ignore"):
            (array,) = self.interpreter.run_op(op, tuple(k.array for k in operands))
        origins = [k.origin for k, o in zip(operands, op.operands, strict=True) if _is_stored(o)]
        return _Known(np.asarray(array), (origins or [operands[0].origin])[0])

    def _replace(self, op: TensorOp, known: _Known) -> None:
        builder = Builder.before(op)
        value = self._constant(known.array, builder)
        if value is None:
            name = self._name(known)
            value = builder.parameter(self.store, name, known.array)
        op.results[0].replace_all_uses_with(value)

    def _constant(self, array: Array, builder: Builder) -> Value | None:
        first = array.flat[0]
        if not (np.all(array == first) and np.all(np.signbit(array) == np.signbit(first))):
            return None
        element = f32 if array.dtype == np.float32 else i32
        return builder.constant(first.item(), array.shape, element)

    def _name(self, known: _Known) -> str:
        digest = content_hash(np.array(known.array, order="C"))
        if digest not in self.names:
            origin = known.origin
            self.names[digest] = f"{_PREFIX}{len(self.names)}.{origin}"
        return self.names[digest]


def _is_foldable(op: TensorOp, known: Container[SSAValue]) -> bool:
    """Whether the result of `op` is known and worth storing instead of its operands."""
    if not all(o in known for o in op.operands):
        return False
    if len(op.results) != 1 or isinstance(op, nn.BroadcastOp | nn.RandomMaskOp):
        return False
    result = type_of(op.results[0])
    read = sum(tensor_bytes(type_of(o)) for o in op.operands)
    return result.element_type in (f32, i32) and tensor_bytes(result) <= read


def _is_stored(value: SSAValue) -> bool:
    """Whether `value` is other than a plain constant."""
    return not (isinstance(value, OpResult) and isinstance(value.op, nn.ConstantOp))
