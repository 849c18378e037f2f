"""The import rules of docs/architecture.md."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "ir": ("ir",),
    "frontends": ("frontends", "ir"),
    "backends": ("backends", "ir"),
    "passes": ("passes", "ir", "backends.kernels", "backends.targets"),
}


def imports(path: Path) -> list[str]:
    """Modules of niwaki that a file imports, without the leading "niwaki."."""
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            # "from niwaki.backends import targets" names the module in its list.
            deep = module in ("niwaki", "niwaki.backends")
            found += [f"{module}.{alias.name}" for alias in node.names] if deep else [module]
    return [name.removeprefix("niwaki.") for name in found if name.startswith("niwaki.")]


@pytest.mark.parametrize("folder", ALLOWED)
def test_imports(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            assert any(name == a or name.startswith(f"{a}.") for a in ALLOWED[folder]), (
                f"{path.relative_to(ROOT)} imports niwaki.{name}"
            )
