"""How a frontend walks a model: one operation after another, all unsupported ones collected."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from xdsl.utils.exceptions import VerifyException

from niwaki.ir.errors import ModelFileError, UnsupportedOpsError, UsageError
from niwaki.ir.program import Program

T = TypeVar("T")


class Unsupported(Exception):
    """A known operation in a variant that cannot be expressed; the message names the variant."""


class Node(Protocol):
    """An operation of a model file: which names it reads and defines."""

    reads: list[str]
    outputs: list[str]


N = TypeVar("N", bound=Node)


def live_nodes(nodes: Sequence[N], results: Iterable[str]) -> list[N]:
    """The nodes that `results` depend on, in order."""
    wanted = set(results)
    live: list[N] = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.reads)
            live.append(node)
    return live[::-1]


class Conversion:
    """Converts operations; `finish` raises once for all that are not supported."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._unsupported: list[tuple[str, str]] = []
        self._notes: list[str] = []

    def check_definitions(
        self, inputs: Iterable[str], nodes: Iterable[Node], results: Iterable[str]
    ) -> None:
        """Every name is defined once, and before it is read; ModelFileError otherwise."""
        defined: set[str] = set()

        def define(name: str) -> None:
            if name in defined:
                raise ModelFileError(f"{self.source}: {name!r} is defined twice")
            defined.add(name)

        for name in inputs:
            define(name)
        for node in nodes:
            for name in node.reads:
                if name not in defined:
                    raise ModelFileError(f"{self.source}: {name!r} is read before it is defined")
            for name in node.outputs:
                define(name)
        for name in results:
            if name not in defined:
                raise ModelFileError(f"{self.source}: the output {name!r} is never defined")

    def input_shape(self, name: str, sizes: Iterable[int | None]) -> list[int]:
        """The shape of an input; a dynamic batch (None) becomes 1, and a note of the program.

        Raises UsageError where another dimension is dynamic or a size is below 1.
        """
        shape: list[int] = []
        for axis, size in enumerate(sizes):
            if size is None and axis > 0:
                raise UsageError(
                    f"{self.source}: dimension {axis} of input {name!r} is dynamic; only the"
                    " batch (dimension 0) may be: export with a fixed size"
                )
            if size is None:
                self._notes.append(f"the batch of input {name!r} is dynamic: imported as 1")
            shape.append(1 if size is None else size)
        if min(shape, default=1) < 1:
            raise UsageError(f"{self.source}: input {name!r} has the shape {shape}")
        return shape

    def run(self, op: str, place: str, convert: Callable[[], T]) -> T | None:
        """The result of `convert`; None, and noted, where it raises Unsupported.

        Raises ModelFileError where the operation contradicts itself or its operands.
        """
        try:
            return convert()
        except Unsupported as reason:
            self.reject(f"{op} ({reason})", place)
            return None
        except VerifyException as fault:
            raise ModelFileError(f"{self.source}: {op} at {place}: {fault}") from None

    def reject(self, op: str, place: str) -> None:
        """Notes an unsupported operation."""
        self._unsupported.append((op, place))

    def finish(self, build: Callable[[], Program]) -> Program:
        """The result of `build`, which ends the program, with its source and notes.

        Raises UnsupportedOpsError if there was any unsupported operation.
        """
        built = self.run("output", "the end of the graph", build) if not self._unsupported else None
        if built is None:
            raise UnsupportedOpsError(self._unsupported)
        built.source = self.source
        built.notes.extend(self._notes)
        return built
