"""Alternatives: the ways to compute one operation at one layout."""

from collections.abc import Callable
from dataclasses import dataclass

from niwaki.backends.kernels.spec import KernelSpec


@dataclass(frozen=True)
class Alternative:
    """One way to compute an operation; where there are several, they are listed best first."""

    name: str
    """The algorithm, and the register tile where there are several, as in "windows 8x3"."""
    spec: Callable[[], KernelSpec]
    """The kernel."""
