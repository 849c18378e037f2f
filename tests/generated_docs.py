"""The generated parts of docs/; `python -m tests.generated_docs` writes them anew.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from niwaki.tools import ops_table
from tests import walkthrough_dumps

DOCS = Path(__file__).parents[1] / "docs"
_PART = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def part_names(text: str) -> list[str]:
    """The names of the generated parts of `text`, in order."""
    return [name for _, name, _ in _PART.findall(text)]


def fill(text: str, parts: Mapping[str, str]) -> str:
    """`text` with every generated part taken from `parts`; KeyError if one is missing there."""
    return _PART.sub(lambda m: f"{m[1]}{parts[m[2]].rstrip()}\n{m[3]}", text)


def main() -> None:
    """Writes all generated parts."""
    sources = {
        "ops.md": lambda: {"ops": ops_table.markdown()},
        "walkthrough.md": walkthrough_dumps.parts,
    }
    for name, parts in sources.items():
        path = DOCS / name
        path.write_text(fill(path.read_text(encoding="utf-8"), parts()), encoding="utf-8")


if __name__ == "__main__":
    main()
