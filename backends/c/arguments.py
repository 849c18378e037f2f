"""The arrays that the functions of a library take from their caller."""

from collections.abc import Sequence
from dataclasses import dataclass

from niwaki.backends.c.literals import C_TYPES
from niwaki.ir.lowered import EntryPoint, Port


@dataclass(frozen=True)
class Argument:
    """An array that a function of the library takes from its caller."""

    name: str
    port: Port
    read: bool

    @property
    def declaration(self) -> str:
        """As a C parameter."""
        const = "const " if self.read else ""
        return f"{const}{C_TYPES[self.port.dtype]} *{self.name}"


def arguments_of(entry: EntryPoint) -> tuple[Argument, ...]:
    """The arrays of an entry point in C: x..., y, then what it writes. The learning rate is the
    context's."""
    inputs = list(entry.inputs[:-1] if entry.name == "train_step" else entry.inputs)
    target = [] if entry.name == "infer" else [Argument("y", inputs.pop(), True)]
    if entry.name == "infer":
        results = _numbered("out", entry.outputs, False)
    else:
        names = ("loss", "correct")
        results = [Argument(n, p, False) for n, p in zip(names, entry.outputs, strict=False)]
    return (*_numbered("x", inputs, True), *target, *results)


def _numbered(name: str, ports: Sequence[Port], read: bool) -> list[Argument]:
    if len(ports) == 1:
        return [Argument(name, ports[0], read)]
    return [Argument(f"{name}{n}", port, read) for n, port in enumerate(ports)]
