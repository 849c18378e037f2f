"""The package as it installs: its list of folders, its data files, and a wheel far from here."""

import json
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
FOLDERS = ("niwaki", "ir", "passes", "backends", "frontends", "tools")
HEAVY = ("jax", "jinja2", "llvmlite", "matplotlib", "networkx", "onnx", "plotly", "torch", "xdsl")


def _package_folders() -> dict[str, str]:
    """Package name -> folder, from the folders that hold an __init__.py."""
    found: dict[str, str] = {}
    for top in FOLDERS:
        for file in sorted((ROOT / top).rglob("__init__.py")):
            parts = file.parent.relative_to(ROOT).parts
            name = ".".join(parts if top == "niwaki" else ("niwaki", *parts))
            found[name] = "/".join(parts)
    return found


def _run(*command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_packages_are_the_folders_with_an_init() -> None:
    setuptools = PROJECT["tool"]["setuptools"]
    folders = _package_folders()
    assert sorted(setuptools["packages"]) == sorted(folders)
    assert setuptools["package-dir"] == folders


def test_every_folder_of_python_files_is_a_package() -> None:
    with_python = {file.parent for top in FOLDERS for file in (ROOT / top).rglob("*.py")}
    without_init = sorted(f for f in with_python if not (f / "__init__.py").exists())
    assert without_init == []


def test_typing_folder_links_every_package() -> None:
    links = {p.name for p in (ROOT / ".typing" / "niwaki").iterdir()}
    assert links == {"__init__.py", *FOLDERS} - {"niwaki"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a `build` folder behind, and would reuse it."""
    source = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (source / name).write_bytes((ROOT / name).read_bytes())
    for folder in FOLDERS:
        copytree(ROOT / folder, source / folder, ignore=ignore_patterns("__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    _run(*pip, "--wheel-dir", out, source)
    return next(out.glob("niwaki-*.whl"))


def test_wheel_holds_every_file(wheel: Path) -> None:
    folders = {folder: name.replace(".", "/") for name, folder in _package_folders().items()}
    expected = {
        f"{name}/{file.name}"
        for folder, name in folders.items()
        for file in (ROOT / folder).iterdir()
        if file.is_file()
    }
    held = set(zipfile.ZipFile(wheel).namelist())
    assert expected - held == set()


def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    site = Path(
        _run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    )
    # The dependencies are those of this environment; a path file does not reach its niwaki.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python]
    _run(*pip, "install", "-q", "--no-deps", "--no-index", wheel)

    where = _run(python, "-c", "import niwaki; print(niwaki.__file__)").strip()
    assert Path(where).is_relative_to(site)
    assert f"niwaki {VERSION}" in _run(python.with_name("niwaki"), "--version")
    assert f"niwaki-opt {VERSION}" in _run(python.with_name("niwaki-opt"), "--version")


def test_import_is_light() -> None:
    code = "import json, sys, niwaki; print(json.dumps(sorted(sys.modules)))"
    loaded = set(json.loads(_run(sys.executable, "-c", code)))
    assert loaded & set(HEAVY) == set()
