"""What the tests of the training passes share: whole pipelines on small programs."""

from collections.abc import Sequence

from xdsl.dialects.builtin import FloatAttr, TensorType, f32, f64
from xdsl.dialects.func import FuncOp
from xdsl.passes import ModulePass

from niwaki.ir import effects
from niwaki.ir.context import NiwakiContext
from niwaki.ir.program import Program
from niwaki.ir.training import Optimizer, Scheme
from niwaki.passes.autodiff import differentiate
from niwaki.passes.build_training import BuildTrainingPass
from niwaki.passes.select_updates import select_updates


def apply(program: Program, *passes: ModulePass) -> Program:
    """A copy of `program` after `passes`, each verified."""
    program = program.clone()
    for step in passes:
        step.apply(NiwakiContext(program.weights), program.module)
        effects.verify(program.module)
    return program


def training_program(
    program: Program,
    optimizer: Optimizer,
    scheme: Scheme | None = None,
    loss: str = "cross_entropy",
) -> Program:
    """A copy of the forward `program` with gradients and updates, verified."""
    program = apply(program, BuildTrainingPass(loss))
    function = program.function("train_step")
    select_updates(function, Scheme.full() if scheme is None else scheme)
    differentiate(function, optimizer)
    effects.verify(program.module)
    return program


def in_float64(program: Program) -> Program:
    """A copy of the forward `program` that computes in float64; its arrays are widened."""
    program = program.clone()
    for op in program.module.walk():
        for region in op.regions:
            for block in region.blocks:
                for argument in block.args:
                    argument._type = _widened(argument.type)
        for result in op.results:
            result._type = _widened(result.type)
        value = op.properties.get("value")
        if isinstance(value, FloatAttr):
            op.properties["value"] = FloatAttr(value.value.data, f64)
        if op.properties.get("to") == f32:
            op.properties["to"] = f64
    program.function("forward").update_function_type()
    program.module.verify()
    return program


def _widened(type_: object) -> TensorType:
    assert isinstance(type_, TensorType)
    if type_.element_type != f32:
        return type_
    return TensorType(f64, type_.get_shape())


def op_names(function: FuncOp) -> Sequence[str]:
    """The names of the operations of `function`, in order."""
    return [op.name for op in function.body.block.ops]
