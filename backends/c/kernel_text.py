"""C functions of kernels; those that differ only in numbers may be one function.

Convolutions of a network mostly differ in sizes and zero points, strips of rows in their heights.
Where code is short of memory, one function serves them all and takes those numbers as arguments.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from niwaki.backends.c.names import identifier

_MARKED = re.compile("\x02(.*?)\x1f(.*?)\x03")

Number: TypeAlias = tuple[str, str]
"""A C type and a literal."""


def number(ctype: str, literal: str) -> str:
    """`literal` in the text of a kernel, marked as one that an argument may replace."""
    return f"\x02{ctype}\x1f{literal}\x03"


@dataclass(frozen=True)
class KernelText:
    """One kernel before it is decided which function computes it."""

    name: str
    parameters: tuple[str, ...]
    """C types, of a0, a1, ..."""
    shapes: str
    """Of the arguments, for the reader."""
    body: str
    """Statements with marked numbers."""

    @property
    def pieces(self) -> tuple[str, ...]:
        """The text between the numbers."""
        return tuple(_MARKED.split(self.body)[::3])

    @property
    def numbers(self) -> list[Number]:
        """In the order of the text."""
        return _MARKED.findall(self.body)


@dataclass(frozen=True)
class KernelCall:
    """How a program calls a kernel."""

    function: str
    parameters: tuple[str, ...]
    """C types of the buffers."""
    numbers: tuple[str, ...]
    """Arguments behind the buffers."""


def kernel_functions(
    kernels: Sequence[KernelText], aliased: Mapping[str, set[int]], shared: bool
) -> tuple[list[str], dict[str, KernelCall]]:
    """The text of the functions, and kernel -> its call.

    `aliased`: kernel -> arguments that may not be `restrict`; a kernel that is not among them is
    not called. `shared`: kernels that differ only in numbers become one function.
    """
    groups: dict[tuple[object, ...], list[KernelText]] = {}
    for kernel in kernels:
        key = (kernel.parameters, kernel.pieces) if shared else (kernel.name,)
        groups.setdefault(key, []).append(kernel)
    texts: list[str] = []
    calls: dict[str, KernelCall] = {}
    for members in groups.values():
        texts.append(_function(members, aliased, calls))
    return texts, calls


def _function(
    members: Sequence[KernelText], aliased: Mapping[str, set[int]], calls: dict[str, KernelCall]
) -> str:
    """The function of `members`; notes how each of them is called."""
    first = members[0]
    name = f"kernel_{identifier(first.name)}"
    columns = list(zip(*(kernel.numbers for kernel in members), strict=True))
    names: dict[tuple[Number, ...], str] = {}
    body = first.pieces[0]
    for column, piece in zip(columns, first.pieces[1:], strict=True):
        text = column[0][1]
        if len(set(column)) > 1:
            text = names.setdefault(column, f"n{len(names)}")
        body += text + piece
    for position, kernel in enumerate(members):
        literals = tuple(column[position][1] for column in names)
        calls[kernel.name] = KernelCall(name, kernel.parameters, literals)
    unrestricted = [aliased.get(k.name, range(len(k.parameters))) for k in members]
    parameters = [
        f"{ctype}{'NIWAKI_RESTRICT ' * all(n not in some for some in unrestricted)}a{n}"
        for n, ctype in enumerate(first.parameters)
    ] + [f"const {column[0][0]} {text}" for column, text in names.items()]
    others = f"; {len(members) - 1} more with other numbers" if len(members) > 1 else ""
    return (
        f"/* {first.shapes}{others} */\n"
        f"static void {name}({', '.join(parameters) or 'void'})\n{{\n{body}\n}}\n"
    )
