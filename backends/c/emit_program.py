"""C99 text of one entry point: its kernel calls, in order."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from sys import maxsize

from xdsl.dialects.builtin import MemRefType
from xdsl.ir import SSAValue

from niwaki.backends.c.blocks import block_name
from niwaki.backends.c.kernel_text import KernelCall
from niwaki.backends.c.literals import C_TYPES
from niwaki.backends.c.names import comment_text, identifier
from niwaki.backends.kernels.spec import element_bytes
from niwaki.ir.dialects import plan
from niwaki.ir.dialects.plan import RegionRange
from niwaki.ir.dialects.tensor_op import get_int
from niwaki.ir.lowered import EntryPoint

_PORT_NAMES = {"input": "in", "output": "out"}


@dataclass(frozen=True)
class ConstantArray:
    """A `const` array of the package that holds `bytes` bytes of the constants at `offset`."""

    name: str
    ctype: str
    offset: int
    bytes: int


class ProgramEmitter:
    """One entry point: its kernel calls, in order."""

    def __init__(
        self,
        program: plan.ProgramOp,
        entry: EntryPoint,
        constants: Sequence[ConstantArray],
        kernels: Mapping[str, KernelCall],
    ) -> None:
        self._program = program
        self._entry = entry
        self._constants = constants
        self._offsets = [c.offset for c in constants]
        self._kernels = kernels
        self._parts = {
            space: program.ranges(space) or (RegionRange("", 0, maxsize),)
            for space in ("arena", "state")
        }

    def text(self) -> str:
        """The function."""
        lines: list[str] = []
        calls = [op for op in self._program.body.block.ops if isinstance(op, plan.CallOp)]
        for number, call in enumerate(calls):
            if number < len(self._entry.calls):
                lines.append(f"    /* {comment_text(self._entry.calls[number].location)} */")
            kernel = self._kernels[call.kernel.string_value()]
            buffers = zip(call.arguments, kernel.parameters, strict=True)
            arguments = ",\n        ".join(
                [*(self._pointer(a, t) for a, t in buffers), *kernel.numbers]
            )
            lines.append(f"    {kernel.function}(\n        {arguments});")
        inputs = [f"const {C_TYPES[p.dtype]} *in{n}" for n, p in enumerate(self._entry.inputs)]
        outputs = [f"{C_TYPES[p.dtype]} *out{n}" for n, p in enumerate(self._entry.outputs)]
        blocks = [
            f"unsigned char *{block_name(space, part.region)}"
            for space, parts in self._parts.items()
            for part in parts
        ]
        parameters = [*blocks, *inputs, *outputs]
        unused = [f"    (void){p.rsplit('*', 1)[1]};" for p in parameters]
        name = identifier(self._entry.name)
        body = "\n".join([*unused, *lines])
        return f"static void run_{name}(\n    {', '.join(parameters)})\n{{\n{body}\n}}\n"

    def _pointer(self, view: SSAValue, ctype: str) -> str:
        """The address of a view as a pointer of the kernel's parameter type."""
        op = view.owner
        assert isinstance(op, plan.ViewOp)
        assert isinstance(op.view.type, MemRefType)
        space, offset = op.space.data, get_int(op.properties, "offset")
        if space in self._parts:
            part = next(p for p in self._parts[space] if p.holds(offset))
            name = block_name(space, part.region)
            return f"({ctype})(void *)({name} + {offset - part.start})"
        size = element_bytes(op.view.type.element_type)
        if space == "constants":
            array = self._constants[bisect_right(self._offsets, offset) - 1]
            assert offset < array.offset + array.bytes, "a view outside the constants"
            base, base_type, offset = array.name, array.ctype, offset - array.offset
        else:
            ports = self._entry.inputs if space == "input" else self._entry.outputs
            number = get_int(op.properties, "index")
            base, base_type = f"{_PORT_NAMES[space]}{number}", C_TYPES[ports[number].dtype]
        assert offset % size == 0
        place = f"{base} + {offset // size}" if offset else base
        return place if base_type in ctype.split() else f"({ctype})({place})"
