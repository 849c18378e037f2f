"""Every benchmark runs, and writes rows of the stated form. Its times are not asserted."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from niwaki.backends.targets import get_target
from tests.c_programs import need_tools
from tests.quantized_networks import find_data

ROOT = Path(__file__).parent.parent
NAMES = sorted(
    path.stem
    for path in (ROOT / "benchmarks").glob("*.py")
    if 'if __name__ == "__main__":' in path.read_text(encoding="utf-8")
)


def test_names() -> None:
    assert {"compile_time", "host", "mcu", "memory"} <= set(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_quick_run(name: str, tmp_path: Path) -> None:
    if name in ("mcu", "int8"):
        need_tools(get_target("cortex-m7"))
    if name in ("learning", "int8", "scheme_search") and find_data("cifar10-small.npz") is None:
        pytest.skip("the shared data is not beside this checkout")
    path = tmp_path / "rows.json"
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    document = json.loads(path.read_text(encoding="utf-8"))
    assert document["schema"] == 1
    assert document["machine"]["cores"] >= 1
    assert document["rows"]
    for row in document["rows"]:
        assert set(row) == {"case", "metric", "value", "unit", "peer", "ratio"}
        assert isinstance(row["value"], int | float)
        assert row["metric"] in done.stdout
