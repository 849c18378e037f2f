"""niwaki-opt in-process: every flag, every kind of error and its exit code."""

import io
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from xdsl.context import Context
from xdsl.dialects.builtin import ModuleOp
from xdsl.passes import ModulePass
from xdsl.rewriter import Rewriter

from niwaki.ir.dialects import nn
from niwaki.ir.errors import DoesNotFitError
from niwaki.tools import niwaki_opt

MODULE = """\
func.func @f(%x: tensor<2xf32>) -> tensor<2xf32> {
  %y = nn.relu %x : (tensor<2xf32>) -> tensor<2xf32>
  func.return %y : tensor<2xf32>
}
"""
FUNCTION = "func.func @f(%x: tensor<2xf32>)"


@dataclass(frozen=True)
class NegatePass(ModulePass):
    """Makes every nn.relu an nn.neg."""

    name = "negate"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        for relu in [o for o in op.walk() if isinstance(o, nn.ReluOp)]:
            Rewriter.replace_op(relu, nn.NegOp.make(relu.x))


@dataclass(frozen=True)
class IdlePass(ModulePass):
    """Changes nothing."""

    name = "idle"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        return


@dataclass(frozen=True)
class BreakPass(ModulePass):
    """Leaves IR that does not verify, crashes, or complains about the input."""

    name = "break"
    how: str = "raise"

    def apply(self, ctx: Context, op: ModuleOp) -> None:
        if self.how == "raise":
            raise KeyError("lost")
        if self.how == "complain":
            raise DoesNotFitError("512 bytes are too few")
        for user in [o for o in op.walk() if isinstance(o, nn.NegOp)]:
            user.operands[0] = user.y


Tool = Callable[..., int]


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """niwaki-opt on a file with MODULE, with three passes of the tests and none of Niwaki's."""
    passes = {p.name: (lambda p=p: p) for p in (NegatePass, IdlePass, BreakPass)}
    monkeypatch.setattr(niwaki_opt, "PASSES", passes)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in.mlir"
    path.write_text(MODULE)
    return lambda *args: niwaki_opt.main([str(path), *args])


Capture = pytest.CaptureFixture[str]


def test_prints_the_result_on_stdout(tool: Tool, capsys: Capture):
    assert tool("-p", "negate") == 0
    out, err = capsys.readouterr()
    assert "%y = nn.neg %x" in out
    assert err == ""


def test_reads_stdin(monkeypatch: pytest.MonkeyPatch, capsys: Capture):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(MODULE.encode())))
    assert niwaki_opt.main([]) == 0
    assert "nn.relu" in capsys.readouterr().out


def test_writes_the_output_file(tool: Tool, tmp_path: Path, capsys: Capture):
    assert tool("-o", "out.mlir") == 0
    assert FUNCTION in (tmp_path / "out.mlir").read_text()
    assert capsys.readouterr().out == ""


def test_generic_form_and_locations(tool: Tool, capsys: Capture):
    assert tool("--print-op-generic", "--print-debuginfo") == 0
    out = capsys.readouterr().out
    assert '"nn.relu"(%x)' in out
    assert "loc(" in out


def test_version(capsys: Capture):
    with pytest.raises(SystemExit, match="0"):
        niwaki_opt.main(["--version"])
    assert capsys.readouterr().out.startswith("niwaki-opt ")


@pytest.mark.parametrize(
    ("flags", "titles"),
    [
        (["--print-ir-before=negate"], ["IR before negate (2)"]),
        (["--print-ir-before", "idle"], ["IR before idle (1)", "IR before idle (3)"]),
        (
            ["--print-ir-before-all"],
            ["IR before idle (1)", "IR before negate (2)", "IR before idle (3)"],
        ),
        (["--print-ir-after=negate"], ["IR after negate (2)"]),
        (
            ["--print-ir-after-all"],
            ["IR after idle (1)", "IR after negate (2)", "IR after idle (3)"],
        ),
        (
            ["--print-ir-before=negate", "--print-ir-after=negate"],
            ["IR before negate (2)", "IR after negate (2)"],
        ),
    ],
)
def test_print_ir(tool: Tool, capsys: Capture, flags: list[str], titles: list[str]):
    assert tool("-p", "idle,negate,idle", *flags) == 0
    out, err = capsys.readouterr()
    printed = [line for line in err.splitlines() if line.startswith("// -----")]
    assert printed == [f"// ----- {title} ----- //" for title in titles]
    assert err.count(FUNCTION) == len(titles)
    assert out.count(FUNCTION) == 1


def test_print_ir_shows_the_state_at_that_point(tool: Tool, capsys: Capture):
    assert tool("-p", "negate", "--print-ir-before-all") == 0
    err = capsys.readouterr().err
    assert "nn.relu" in err
    assert "nn.neg" not in err


def test_print_ir_after_change(tool: Tool, capsys: Capture):
    assert tool("-p", "idle,negate", "--print-ir-after-change") == 0
    err = capsys.readouterr().err
    assert err.startswith("// ----- IR after idle (1): no change ----- //\n")
    assert "// ----- IR after negate (2) ----- //\n" in err
    assert err.count(FUNCTION) == 1


def test_dump_dir(tool: Tool, tmp_path: Path):
    assert tool("-p", "idle,negate", "--dump-dir", "deep/dump") == 0
    folder = tmp_path / "deep" / "dump"
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["00-input.mlir", "01-idle.mlir", "02-negate.mlir"]
    assert "%y = nn.relu %x" in (folder / "01-idle.mlir").read_text()
    assert "%y = nn.neg %x" in (folder / "02-negate.mlir").read_text()


def test_timing_is_one_json_object_on_stderr(tool: Tool, capsys: Capture):
    assert tool("-p", "idle,negate", "--timing") == 0
    report: dict[str, Any] = json.loads(capsys.readouterr().err)
    assert report["schema"] == 1
    assert [p["name"] for p in report["passes"]] == ["idle", "negate"]
    assert all(p["seconds"] >= 0 for p in report["passes"])


@pytest.mark.parametrize(
    ("flags", "changed"),
    [
        (["--stop-after", "idle"], False),
        (["--stop-after", "negate"], True),
        (["--pass-limit", "0"], False),
        (["--pass-limit", "1"], False),
        (["--pass-limit", "2"], True),
        (["--pass-limit", "9"], True),
        (["--stop-after", "negate", "--pass-limit", "1"], False),
    ],
)
def test_cutting_the_pipeline(tool: Tool, capsys: Capture, flags: list[str], changed: bool):
    assert tool("-p", "idle,negate", *flags) == 0
    assert ("nn.neg" in capsys.readouterr().out) == changed


def test_a_crash_leaves_a_reproducer_that_crashes_again(
    tool: Tool, tmp_path: Path, capsys: Capture
):
    assert tool("-p", "negate,break,idle", "--reproducer", "crash.mlir") == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" in err
    last = err.splitlines()[-1]
    assert last.startswith("niwaki-opt: internal error: pass 'break' (number 2) failed: KeyError")
    assert last.endswith("reproducer: crash.mlir")
    text = (tmp_path / "crash.mlir").read_text()
    assert text.startswith("// RUN: niwaki-opt %s --verify-each -p break,idle\n")
    assert "nn.neg" in text
    assert niwaki_opt.main(["crash.mlir", "-p", "break,idle"]) == 70


def test_the_reproducer_keeps_the_options_of_passes(tool: Tool, tmp_path: Path):
    assert tool("-p", 'negate,break{how="wreck"},idle', "--verify-each") == 70
    text = (tmp_path / "niwaki-opt-reproducer.mlir").read_text()
    assert """-p 'break{how="wreck"},idle'\n""" in text


def test_verify_each_names_the_pass_that_broke_the_ir(tool: Tool, capsys: Capture):
    assert tool("-p", "negate,break{how=wreck},idle", "--verify-each") == 70
    assert "pass 'break' (number 2) failed: VerifyException: 'nn.neg' uses a value before" in (
        capsys.readouterr().err
    )


def test_the_result_is_verified_without_flags_too(tool: Tool, capsys: Capture):
    assert tool("-p", "negate,break{how=wreck},idle") == 70
    out, err = capsys.readouterr()
    assert out == ""
    assert "invalid IR after the last pass: 'nn.neg' uses a value before it is defined" in err


def test_an_error_of_the_user_is_no_crash(tool: Tool, tmp_path: Path, capsys: Capture):
    assert tool("-p", "break{how=complain}") == DoesNotFitError.exit_code
    assert capsys.readouterr().err == "niwaki-opt: error: 512 bytes are too few\n"
    assert not (tmp_path / "niwaki-opt-reproducer.mlir").exists()


def test_verify_diagnostics_prints_errors_as_the_result(tool: Tool, capsys: Capture):
    assert tool("-p", "break{how=complain}", "--verify-diagnostics") == 0
    assert "512 bytes are too few" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-p", "fly"], "bad pipeline 'fly': Unrecognized passes: ['fly']"),
        (["-p", "idle{"], "bad pipeline 'idle{': "),
        (["-p", "idle{deep=1}"], "bad pipeline 'idle{deep=1}': "),
        (["-p", "idle", "--print-ir-after=negate"], "pass 'negate' is not in the pipeline 'idle'"),
        (["-p", "idle", "--stop-after=negate"], "pass 'negate' is not in the pipeline 'idle'"),
        (["-p", "idle", "--pass-limit=-1"], "--pass-limit must be >= 0, got -1"),
        (["-p", "idle", "--dump-dir=in.mlir"], "[Errno 17] File exists: 'in.mlir'"),
    ],
)
def test_bad_usage(tool: Tool, capsys: Capture, flags: list[str], message: str):
    assert tool(*flags) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"niwaki-opt: error: {message}")
    assert err.count("\n") == 1


def test_unknown_flag(tool: Tool, capsys: Capture):
    with pytest.raises(SystemExit, match="2"):
        tool("--fly")
    assert "niwaki-opt: error: unrecognized arguments: --fly" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nn.fly", "in.mlir:1:7: Operation nn.fly is not registered"),
        ("\n  %y = nn.relu %x :", "in.mlir:2:"),
        (
            f"{FUNCTION} {{\n%y = nn.relu %x : (tensor<2xf32>) -> tensor<3xf32>\nfunc.return }}",
            "'nn.relu' must",
        ),
        ("\xff", "in.mlir:1:2: "),
    ],
)
def test_bad_input(tmp_path: Path, capsys: Capture, monkeypatch: Any, text: str, message: str):
    monkeypatch.chdir(tmp_path)
    Path("in.mlir").write_text(text, encoding="utf-8")
    assert niwaki_opt.main(["in.mlir"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"niwaki-opt: error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("data", [b"\x80\x81", b"module {" * 5000])
def test_hostile_input_is_an_error_of_the_input(tmp_path: Path, capsys: Capture, data: bytes):
    path = tmp_path / "in.mlir"
    path.write_bytes(data)
    assert niwaki_opt.main([str(path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("niwaki-opt: error: ")
    assert err.count("\n") == 1


def test_missing_file(capsys: Capture):
    assert niwaki_opt.main(["missing.mlir"]) == 2
    assert "No such file or directory: 'missing.mlir'" in capsys.readouterr().err


def test_split_input_file_and_parsing_diagnostics(tmp_path: Path, capsys: Capture):
    path = tmp_path / "in.mlir"
    path.write_text(f"{MODULE}// -----\nnn.fly\n// -----\n{MODULE}")
    assert niwaki_opt.main([str(path), "--split-input-file", "--parsing-diagnostics"]) == 0
    out = capsys.readouterr().out
    assert out.count(FUNCTION) == 2
    assert "Operation nn.fly is not registered" in out
