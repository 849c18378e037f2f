"""Shows versions, this machine as a target, and which targets can be built and run here."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import llvmlite.binding as llvm

from niwaki.backends.c.toolchain import install_command, missing_tools
from niwaki.backends.targets import TARGETS, get_target
from niwaki.tools.result import Result

PACKAGES = (
    "niwaki",
    "xdsl",
    "llvmlite",
    "numpy",
    "safetensors",
    "onnx",
    "plotly",
    "matplotlib",
    "ortools",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def run(args: argparse.Namespace) -> Result:
    """What is here, and the one command that installs what is missing."""
    host = get_target("host")
    versions = {
        "python": platform.python_version(),
        "llvm": ".".join(map(str, llvm.llvm_version_info)),
        **{name: _version(name) for name in PACKAGES},
    }
    missing = {t.name: list(missing_tools(t)) for t in (host, *TARGETS.values())}
    absent = sorted({tool for tools in missing.values() for tool in tools})
    install = install_command(absent) if absent else None
    data = {
        "versions": versions,
        "host": {"triple": host.triple, "cpu": host.cpu, "lanes": host.lanes},
        "missing": missing,
        "install": install,
    }
    lines = [
        *(f"{name:<14}{v or 'not installed'}" for name, v in versions.items()),
        f"{'host':<14}{host.cpu} ({host.triple}), {host.lanes} f32 per vector",
        *(f"{name:<14}{_readiness(tools)}" for name, tools in missing.items()),
    ]
    if install is not None:
        lines.append(f"to install what is missing: {install}")
    return Result("\n".join(lines), data)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _readiness(missing: list[str]) -> str:
    return f"C: missing {', '.join(missing)}" if missing else "C: ready"
