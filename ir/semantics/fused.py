"""A fused group computes what its body computes."""

from xdsl.interpreter import (
    Interpreter,
    InterpreterFunctions,
    PythonValues,
    ReturnedValues,
    TerminatorValue,
    impl,
    impl_terminator,
    register_impls,
)

from niwaki.ir.dialects import nn


@register_impls
class FusedFunctions(InterpreterFunctions):
    """Runs the body on the operands."""

    @impl(nn.FusedOp)
    def fused(self, interpreter: Interpreter, op: nn.FusedOp, args: PythonValues) -> PythonValues:
        return interpreter.run_ssacfg_region(op.body, args, op.name)

    @impl_terminator(nn.YieldOp)
    def yield_(
        self, interpreter: Interpreter, op: nn.YieldOp, args: PythonValues
    ) -> tuple[TerminatorValue, PythonValues]:
        return ReturnedValues(args), ()
