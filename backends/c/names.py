"""Names in C text. Whatever comes from a model file is data: it must not leave its comment."""

import re

from niwaki.ir.errors import UsageError

_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*")
# Neither "*" (ends a comment) nor "\\" (joins lines) nor "?" (trigraphs) nor quotes are among them.
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._:/+,=@#()-]")
_LONGEST_PREFIX = 48
_LONGEST_COMMENT = 96


def check_prefix(name: str) -> str:
    """`name` if C identifiers and file names can start with it; UsageError otherwise."""
    if _PREFIX.fullmatch(name) is None or len(name) > _LONGEST_PREFIX:
        raise UsageError(
            f"{name!r} cannot start C names: use at most {_LONGEST_PREFIX} letters, digits and "
            "single underscores, a letter first"
        )
    return name


def comment_text(text: str) -> str:
    """`text` made safe inside a C comment or string, and of bounded length."""
    safe = _UNSAFE.sub("_", text)
    return safe if len(safe) <= _LONGEST_COMMENT else f"{safe[: _LONGEST_COMMENT - 3]}..."


def identifier(text: str) -> str:
    """`text` as the tail of a C identifier."""
    return re.sub(r"[^A-Za-z0-9_]", "_", text)
