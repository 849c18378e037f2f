"""Names from model files on a terminal."""


def printable(text: str) -> str:
    """`text` with control characters (and line breaks) as escapes: names are data."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
