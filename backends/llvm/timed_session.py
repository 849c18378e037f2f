"""A session whose entry points note when each of their calls began and ended."""

import numpy as np
from numpy.typing import NDArray

from niwaki.backends.llvm.compile import pointer_block
from niwaki.backends.llvm.emit import times_entry
from niwaki.backends.llvm.session import Session


class TimedSession(Session):
    """Runs code that was compiled with `timed`."""

    def call_nanoseconds(self, name: str) -> NDArray[np.int64]:
        """What each call of the latest run of entry point `name` took."""
        # struct timespec: seconds, nanoseconds.
        times = np.empty((len(self.lowered.entries[name].calls) + 1, 2), np.intp)
        block = pointer_block([times])
        self._loaded.functions[times_entry(name)](block.ctypes.data)
        return np.diff(times @ np.array([10**9, 1], np.int64))

    def _symbols(self) -> list[str]:
        names = super()._symbols()
        return [*names, *map(times_entry, names)]
