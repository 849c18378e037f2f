"""Python's garbage collector while much is built and little thrown away."""

import gc
from collections.abc import Generator
from contextlib import contextmanager

_ALLOCATIONS = 50_000
"""New objects between two collections, 70 times Python's own number."""


@contextmanager
def rare_collections() -> Generator[None]:
    """Looks for garbage less often: building IR makes hardly any, and much to look through."""
    usual = gc.get_threshold()
    if usual[0] == 0 or usual[0] >= _ALLOCATIONS:
        yield
        return
    gc.set_threshold(_ALLOCATIONS, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)
