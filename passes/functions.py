"""Finding the functions of a module."""

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp

from niwaki.ir.errors import UsageError


def functions(module: ModuleOp) -> list[FuncOp]:
    """The functions of `module` that have a body, in order."""
    return [f for f in module.body.block.ops if isinstance(f, FuncOp) and not f.is_declaration]


def find_function(module: ModuleOp, name: str, remedy: str) -> FuncOp:
    """The function `name`; UsageError with `remedy` (what to do first) if there is none."""
    for function in functions(module):
        if function.sym_name.data == name:
            return function
    raise UsageError(f"there is no function @{name}: {remedy}")
