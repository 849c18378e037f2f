"""docs/walkthrough.md shows what the passes and emitters make today."""

import re

import pytest

from tests import walkthrough_dumps
from tests.generated_docs import DOCS, fill, part_names

PAGE = (DOCS / "walkthrough.md").read_text(encoding="utf-8")


def test_the_dumps_are_up_to_date():
    parts = walkthrough_dumps.parts()
    assert part_names(PAGE) == list(parts)
    assert fill(PAGE, parts) == PAGE, "run: python -m tests.generated_docs"


@pytest.mark.parametrize("page", ["architecture.md", "ops.md", "walkthrough.md"])
def test_links_lead_somewhere(page: str):
    links = re.findall(r"\]\(([^)#]+)\)", (DOCS / page).read_text(encoding="utf-8"))
    assert links
    missing = [link for link in links if "://" not in link and not (DOCS / link).exists()]
    assert missing == []
