"""How a frontend walks a model: one operation after another, all unsupported ones collected."""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from xdsl.utils.exceptions import VerifyException

from niwaki.ir.errors import ModelFileError, UnsupportedOpsError

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

    def finish(self, build: Callable[[], T]) -> T:
        """The result of `build`, which ends the program.

        Raises UnsupportedOpsError if there was any unsupported operation.
        """
        built = self.run("output", "the end of the graph", build) if not self._unsupported else None
        if built is None:
            raise UnsupportedOpsError(self._unsupported)
        return built
