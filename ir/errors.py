"""Errors that reach the user. Every message names the cause, the place and what to do."""

from collections.abc import Sequence


class NiwakiError(Exception):
    """Base of every error that Niwaki raises on bad input; `exit_code` is the command line's."""

    exit_code = 2


class UsageError(NiwakiError):
    """An argument, option or input array does not fit."""


class UnsupportedOpsError(NiwakiError):
    """The model uses operations that Niwaki does not know; all of them are listed at once."""

    exit_code = 3

    def __init__(self, ops: Sequence[tuple[str, str]]):
        """`ops`: pairs (operation, where it comes from in the user's model)."""
        self.ops = tuple(ops)
        lines = "\n".join(f"  {name}: {place}" for name, place in self.ops)
        super().__init__(
            f"{len(self.ops)} operation(s) of the model are not supported:\n{lines}\n"
            "Run 'niwaki ops' for the supported ones, or rewrite these parts of the model."
        )


class DoesNotFitError(NiwakiError):
    """The plan needs more memory than the limit."""

    exit_code = 4


class MismatchError(NiwakiError):
    """Two executions that must agree do not."""

    exit_code = 5


class ModelFileError(NiwakiError):
    """The model file is damaged, truncated, oversized or malicious."""

    exit_code = 6
