"""The dumps of docs/walkthrough.md, made by the commands that it prints."""

import contextlib
import io
import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path

from niwaki.tools import driver, niwaki_opt

EXAMPLES = Path(__file__).parents[1] / "examples"
MODEL = EXAMPLES / "tiny.pt2"


def parts() -> dict[str, str]:
    """Every generated part of the page, as fenced blocks."""
    with tempfile.TemporaryDirectory() as folder:
        return _parts(Path(folder))


def _parts(folder: Path) -> dict[str, str]:
    common = ["compile", str(MODEL), "--loss", "mse"]
    llvm = folder / "step.ll"
    _run(
        *common, "--target", "x86-64", "--dump-dir", str(folder), "--emit", "llvm", "-o", str(llvm)
    )
    _run(*common, "--target", "cortex-m7", "-o", str(folder / "c"))
    plan = folder / "plan.mlir"
    passes = 'lower-to-plan{target="x86-64"}'
    assert niwaki_opt.main([str(_dump(folder, "schedule")), "-p", passes, "-o", str(plan)]) == 0

    model = (EXAMPLES / "make_tiny.py").read_text(encoding="utf-8").splitlines()
    imported = _dump(folder, "input").read_text(encoding="utf-8").splitlines()
    selected, derived, clean, fused, scheduled = (
        _item(_dump(folder, name).read_text(encoding="utf-8").splitlines(), "func.func @train_step")
        for name in ("select-updates", "autodiff", "dce", "fuse", "schedule")
    )
    planned = plan.read_text(encoding="utf-8").splitlines()
    c = (folder / "c" / "model.c").read_text(encoding="utf-8").splitlines()
    return {
        "model": _block("python", _between(model, "class TinyNet", "return self.fc")),
        "imported": _block("mlir", _item(imported, "func.func @forward")),
        "selected": _block(
            "mlir", _matching(selected, "func.func", "train.parameter", "nn.mse", "func.return")
        ),
        "derived": _block("mlir", _between(derived, "nn.mse", "func.return")),
        "clean": _block("mlir", _between(clean, "nn.conv2d_dw", "train.assign")),
        "fused": _block("mlir", [*_group(fused, "nn.conv2d "), *_group(fused, "nn.conv2d_dw ")]),
        "scheduled": _block("mlir", _outline(scheduled)),
        "plan": _block("mlir", _item(planned, 'plan.program "train_step"')),
        "kernel": _block("mlir", _item(planned, "func.func @conv2d_dw_0")),
        "llvm": _block(
            "llvm",
            _between(
                llvm.read_text(encoding="utf-8").splitlines(), "void @conv2d_dw_0", "@llvm.fma"
            ),
        ),
        "c": _block("c", _between(c, "void kernel_conv2d_dw_0", " a4[")),
    }


def _run(*arguments: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        assert driver.main(arguments) == 0


def _dump(folder: Path, name: str) -> Path:
    """The last dump of the pass `name`."""
    return sorted(folder.glob(f"*-{name}.mlir"))[-1]


def _between(lines: Sequence[str], first: str, last: str) -> list[str]:
    """From the line with `first` to the next one with `last` ("\n": at its start)."""
    start = next(i for i, line in enumerate(lines) if first in line)
    stop = next(i for i in range(start, len(lines)) if last in f"\n{lines[i]}")
    return list(lines[start : stop + 1])


def _item(lines: Sequence[str], start: str) -> list[str]:
    """The function or program that starts so, up to its closing brace."""
    first = next(line for line in lines if line.strip().startswith(start))
    return _between(lines, first, f"\n{first[: len(first) - len(first.lstrip())]}}}")


def _group(lines: Sequence[str], op: str) -> list[str]:
    """The `nn.fused` that holds `op`."""
    place = next(i for i, line in enumerate(lines) if op in line)
    start = max(i for i in range(place) if "nn.fused" in lines[i])
    return _between(lines[start:], "nn.fused", "\n    }")


def _matching(lines: Sequence[str], *texts: str) -> list[str]:
    """The lines that contain one of `texts`."""
    return [line for line in lines if any(text in line for text in texts)]


def _outline(lines: Sequence[str]) -> list[str]:
    """The operations of a function, without types, attributes and bodies."""
    top = [line for line in lines if line.startswith("    ") and line[4] not in " ^}"]
    return [line.split(" : ")[0].split(" {")[0] for line in top]


def _block(language: str, lines: Sequence[str]) -> str:
    return f"```{language}\n{textwrap.dedent(chr(10).join(lines))}\n```"
