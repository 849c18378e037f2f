"""The demo of the README, as `make demo` runs it, and what it says where tools are missing."""

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from niwaki.backends.c.toolchain import missing_tools
from niwaki.backends.targets import get_target

DEMO = Path(__file__).parents[2] / "examples" / "demo.py"


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo"] = module
    spec.loader.exec_module(module)
    return module


def run(
    demo: ModuleType, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> str:
    monkeypatch.setattr(sys, "argv", ["demo.py", "--out", str(out), "--epochs", "1"])
    assert demo.main() == 0
    return capsys.readouterr().out


def test_demo(
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = missing_tools(get_target("cortex-m7"))
    if missing and "CI" not in os.environ:
        pytest.skip(f"not installed: {', '.join(missing)}")
    text = run(demo, tmp_path, monkeypatch, capsys)
    accuracies = re.findall(r"^(?:host|cortex-m7) +([\d.]+)% +([\d.]+)%$", text, re.MULTILINE)
    assert len(accuracies) == 2
    for before, after in accuracies:
        assert float(before) < 10
        assert float(after) > 90
    arenas = dict(re.findall(r"^(full|sparse) update +([\d,]+)", text, re.MULTILINE))
    sizes = {name: int(size.replace(",", "")) for name, size in arenas.items()}
    assert sizes["sparse"] < 0.75 * sizes["full"]
    assert "instructions per step" in text
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")
    assert "<script src=" not in (tmp_path / "memory.html").read_text()


def test_demo_without_tools(
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    text = run(demo, tmp_path, monkeypatch, capsys)
    assert re.search(r"sudo apt-get install -y .*gcc-arm-none-eabi.*qemu-system-arm", text)
    assert re.search(r"host: accuracy 0\.0% before, 9\d\.\d% after", text)
    assert (tmp_path / "memory.html").exists()
