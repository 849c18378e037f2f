"""A program: the module with its functions, and the weights that its parameters name."""

from dataclasses import dataclass, field
from typing import Any

from xdsl.dialects.builtin import ModuleOp
from xdsl.dialects.func import FuncOp
from xdsl.parser import Parser

from niwaki.ir.context import NiwakiContext
from niwaki.ir.weights import WeightStore


@dataclass
class Program:
    """An imported model, or what the passes made of it.

    `module` holds functions of one block each. A frontend delivers exactly one, `@forward`;
    `build-training` adds `@train_step`, `@infer` and `@evaluate`.
    """

    module: ModuleOp
    weights: WeightStore = field(default_factory=WeightStore)
    source: str = ""
    """The file or object it came from, for messages."""
    notes: list[str] = field(default_factory=list[str])
    """What the importer wants the user to know (e.g. a batch norm that was exported frozen)."""

    def function(self, name: str) -> FuncOp:
        """The function `name`; KeyError if there is none."""
        for op in self.module.body.block.ops:
            if isinstance(op, FuncOp) and op.sym_name.data == name:
                return op
        raise KeyError(name)

    def clone(self) -> "Program":
        """A deep copy of the module; the arrays are shared."""
        return Program(self.module.clone(), self.weights.copy(), self.source, list(self.notes))

    def __getstate__(self) -> dict[str, Any]:
        """With the module as text: operations are linked, and pickling them would recurse."""
        return {**self.__dict__, "module": str(self.module)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        module = Parser(NiwakiContext(), state["module"]).parse_module()
        self.__dict__.update(state, module=module)
