"""Shows versions, this machine, the cache of kernels, and which targets can be built here."""

import argparse
import platform
from importlib.metadata import PackageNotFoundError, version

import llvmlite.binding as llvm

from niwaki.backends.c.toolchain import install_command, missing_tools
from niwaki.backends.targets import TARGETS, get_target
from niwaki.object_cache import VARIABLE, default_cache
from niwaki.printable import printable
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
    cache = _cache()
    data = {
        "versions": versions,
        "host": {"triple": host.triple, "cpu": host.cpu, "lanes": host.lanes},
        "cache": cache,
        "missing": missing,
        "install": install,
    }
    lines = [
        *(f"{name:<14}{v or 'not installed'}" for name, v in versions.items()),
        f"{'host':<14}{host.cpu} ({host.triple}), {host.lanes} f32 per vector",
        f"{'cache':<14}{_contents(cache)}",
        *(f"{name:<14}{_readiness(tools)}" for name, tools in missing.items()),
    ]
    if install is not None:
        lines.append(f"to install what is missing: {install}")
    return Result("\n".join(lines), data)


def _cache() -> dict[str, object] | None:
    """Where compiled kernels are kept, and what is there; None: nowhere."""
    cache = default_cache()
    if cache is None:
        return None
    count, size = cache.size()
    return {
        "folder": str(cache.folder),
        "objects": count,
        "bytes": size,
        "limit_bytes": cache.limit_bytes,
    }


def _contents(cache: dict[str, object] | None) -> str:
    if cache is None:
        return f"off ({VARIABLE})"
    return (
        f"{cache['objects']} objects, {cache['bytes']:,} of {cache['limit_bytes']:,} bytes, in "
        f"{printable(str(cache['folder']))} ({VARIABLE} moves it or is off)"
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _readiness(missing: list[str]) -> str:
    return f"C: missing {', '.join(missing)}" if missing else "C: ready"
