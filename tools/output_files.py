"""What the names of files to write have to look like."""

from pathlib import Path

from niwaki.ir.errors import UsageError


def check_suffix(flag: str, path: Path, suffix: str) -> None:
    """Raises UsageError unless `path`, the argument of `flag`, ends in `suffix`."""
    if path.suffix != suffix:
        raise UsageError(f"{flag} must be a {suffix} file, got '{path}'")
