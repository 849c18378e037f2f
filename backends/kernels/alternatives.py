"""Alternatives: the ways to compute one operation at one layout, and what each would take."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from niwaki.backends.kernels.spec import KernelSpec


@dataclass(frozen=True)
class Alternative:
    """One way to compute an operation."""

    name: str
    """The algorithm, and the register tile where there are several, as in "windows 8x3"."""
    cycles: float
    """That the model of `choice` expects of a call on one core, to compare alternatives with."""
    spec: Callable[[], KernelSpec]
    """The kernel."""


def by_cycles(alternatives: Iterable[Alternative]) -> list[Alternative]:
    """The model's choice first; of equals, the one that was listed first."""
    return sorted(alternatives, key=lambda alternative: alternative.cycles)


def only(name: str, spec: KernelSpec) -> Alternative:
    """Where there is nothing to choose from."""
    return Alternative(name, spec.flops, lambda: spec)
