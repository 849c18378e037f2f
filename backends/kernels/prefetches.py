"""Prefetches of what a kernel reads soon, spread over the work before."""

from collections.abc import Callable, Sequence


class SpreadPrefetches:
    """Emits prefetches a few at a time: all at once they would keep the loads behind waiting."""

    def __init__(self, prefetches: Sequence[Callable[[], None]], places: int) -> None:
        """`places`: how often `some` will be called."""
        self._rest = list(prefetches)
        self._share = -(-len(self._rest) // places)

    def some(self) -> None:
        """The share of one place."""
        for prefetch in self._rest[: self._share]:
            prefetch()
        del self._rest[: self._share]
