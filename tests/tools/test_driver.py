"""Every command of `niwaki`, in-process: what it prints, what it writes, how it fails."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file

from niwaki.object_cache import ObjectCache
from niwaki.tools import compile_command, driver

EXAMPLES = Path(__file__).parents[2] / "examples"
MODEL = str(EXAMPLES / "digits.pt2")
HEAD = ["--update", "head"]
ENTRIES = ("train_step", "infer", "evaluate", "trade_off")
"""What a report has a picture of."""


def run(*arguments: str | Path) -> int:
    return driver.main([str(a) for a in arguments])


def data_file(path: Path, split: str, count: int) -> Path:
    with np.load(EXAMPLES / "digits.npz", allow_pickle=False) as digits:
        chosen = digits[split][:count]
        x = (digits["images"][chosen] / np.float32(16))[:, None]
        np.savez(path, x=x, y=digits["labels"][chosen])
    return path


def unsupported_model(path: Path) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 3, 3]) for n in "xy")
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["a"], name="first"),
        helper.make_node("Hardmax", ["a"], ["y"], name="second"),
    ]
    axis = helper.make_tensor("axis", TensorProto.INT64, [], [1])
    graph = helper.make_graph(nodes, "g", [x], [y], [axis])
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path


# --- compile


def test_compile_c(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("compile", MODEL, *HEAD, "--target", "cortex-m4", "--name", "digits", "-o", out) == 0
    assert {"digits.h", "digits.c", "main.c"} <= {p.name for p in out.iterdir()}
    assert "#define DIGITS_BATCH 1u" in (out / "digits.h").read_text()
    assert f"written: {out}" in capsys.readouterr().out


def test_compile_cmake_package(tmp_path: Path) -> None:
    assert run("compile", MODEL, *HEAD, "--package", "cmake", "-o", tmp_path / "out") == 0
    assert (tmp_path / "out" / "CMakeLists.txt").exists()


@pytest.mark.parametrize("target", ["x86-64", "aarch64"])
def test_compile_for_threads(tmp_path: Path, target: str) -> None:
    out = tmp_path / "out"
    options = ["--target", target, "--threads", "2", "--emit", "object"]
    assert run("compile", MODEL, *HEAD, *options, "-o", out) == 0
    assert b"stop_threads" in out.read_bytes()


@pytest.mark.parametrize(("emit", "start"), [("object", b"\x7fELF"), ("llvm", b"")])
def test_compile_to_a_file(tmp_path: Path, emit: str, start: bytes) -> None:
    out = tmp_path / "out"
    assert run("compile", MODEL, *HEAD, "--target", "aarch64", "--emit", emit, "-o", out) == 0
    data = out.read_bytes()
    assert data.startswith(start)
    assert b"train_step" in data


def test_compile_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "o"
    assert run("compile", MODEL, *HEAD, "--batch", "4", "-o", out, "--emit", "llvm", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["schema"], result["command"]) == (1, "compile")
    assert 0 < result["lower_bound_bytes"] <= result["arena_bytes"]
    assert set(result["compile_seconds"]) == {"load", "passes", "lower", "code"}


def test_compile_stops_after_a_pass(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("compile", MODEL, "--stop-after", "build-training", "--verify-each") == 0
    text = capsys.readouterr().out
    assert "func.func @train_step" in text
    assert "train.sgd" not in text


def test_compile_watches_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--timing", "--print-ir-after", "autodiff", "--dump-dir", str(tmp_path / "dump")]
    assert run("compile", MODEL, *HEAD, "-o", tmp_path / "o", "--emit", "llvm", *flags) == 0
    stderr = capsys.readouterr().err
    assert "IR after autodiff" in stderr
    timing = json.loads(stderr.splitlines()[-1])
    dumped = sorted(p.name for p in (tmp_path / "dump").iterdir())
    assert len(dumped) == len(timing["passes"]) + 1
    assert dumped[0] == "00-input.mlir"


# --- train, report, verify


def test_train_learns_and_saves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train = data_file(tmp_path / "train.npz", "finetune_train", 400)
    test = data_file(tmp_path / "test.npz", "finetune_test", 100)
    out = tmp_path / "digits.safetensors"
    flags = ["--data", train, "--test-data", test, "--lr", "0.05", "--batch", "8", "--json"]
    update = ["--update", "last_layers(2)"]
    assert run("train", MODEL, *update, *flags, "--epochs", "2", "-o", out) == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert result["losses"][1] < result["losses"][0]
    assert result["before"]["accuracy"] < 0.1
    assert result["after"]["accuracy"] > 0.85
    assert "epoch 2: loss" in output.err
    assert "\x1b" not in output.err
    assert set(load_file(out)) == {"conv3.weight", "conv3.bias", "fc.weight", "fc.bias"}

    again = ["--resume", out, "--data", train, "--test-data", test, "--batch", "8", "--lr", "0"]
    more = ["-o", tmp_path / "more.safetensors", "--json"]
    assert run("train", MODEL, *update, *again, *more) == 0
    resumed = json.loads(capsys.readouterr().out)
    assert resumed["before"] == resumed["after"] == result["after"]


def test_train_that_diverges_saves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = data_file(tmp_path / "train.npz", "finetune_train", 80)
    out = tmp_path / "o.safetensors"
    assert run("train", MODEL, "--lr", "1e30", "--batch", "8", "--data", data, "-o", out) == 2
    assert "lower --lr" in capsys.readouterr().err
    assert not out.exists()


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page, trace = tmp_path / "r.html", tmp_path / "t.json"
    flags = ["--budgets", "2", "--json"]
    assert run("report", MODEL, *HEAD, "-o", page, "--trace", trace, *flags) == 0
    result = json.loads(capsys.readouterr().out)
    entry = result["entries"]["train_step"]
    assert entry["peak"][0]["bytes"] > 0
    assert entry["savings"]["sparse update"] > 0
    pictures = [tmp_path / f"r-{name}.png" for name in ENTRIES]
    assert result["output"] == [str(path) for path in (page, *pictures, trace)]
    assert sorted(tmp_path.iterdir()) == sorted((page, *pictures, trace))
    assert "conv2d" in page.read_text()
    points = result["trade_off"]
    assert points[-1]["time"] == 1
    assert points[0]["bytes"] < points[-1]["bytes"]
    assert all(picture.read_bytes().startswith(b"\x89PNG") for picture in pictures)
    assert json.loads(trace.read_bytes())["traceEvents"]


def test_report_beside_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("report", MODEL, *HEAD, "--budgets", "0") == 0
    assert "written: digits-report.html" in capsys.readouterr().out
    assert len(list(tmp_path.iterdir())) == 4


def test_report_keeps_the_memory_limit(tmp_path: Path) -> None:
    assert run("report", MODEL, "--memory-limit", "1K", "-o", tmp_path / "r.html") == 4
    assert list(tmp_path.iterdir()) == []


def test_report_without_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "plotly.graph_objects", None)
    monkeypatch.delitem(sys.modules, "niwaki.tools.report.page", raising=False)
    monkeypatch.delitem(sys.modules, "niwaki.tools.report.figure", raising=False)
    assert run("report", MODEL, *HEAD, "-o", tmp_path / "r.html") == 2
    assert "pip install 'niwaki[report]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags",
    [
        ["--optimizer", "adamw"],
        ["--momentum", "0.9", "--nesterov"],
        ["--stash", "bf16"],
        ["--stash", "i8"],
    ],
)
def test_verify(capsys: pytest.CaptureFixture[str], flags: list[str]) -> None:
    assert run("verify", MODEL, "--batch", "2", "--steps", "2", *flags, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["values"] > 8
    assert result["largest_error"] < 1e-4


def test_verify_mismatch(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", MODEL, "--batch", "2", "--steps", "1", "--tolerance", "0") == 5
    assert "conv1.weight" in capsys.readouterr().err


# --- ops, doctor


def test_ops(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("ops") == 0
    text = capsys.readouterr().out
    assert "nn.conv2d" in text
    assert "aten.conv2d" in text
    assert run("ops", "--json") == 0
    assert json.loads(capsys.readouterr().out)["command"] == "ops"


def test_doctor(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert run("doctor", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert result["versions"]["xdsl"] == "0.74.0"
    assert "arm-none-eabi-gcc" in result["missing"]["cortex-m7"]
    assert "qemu-system-arm" in result["install"]
    assert run("doctor") == 0
    assert f"to install what is missing: {result['install']}" in capsys.readouterr().out


def test_doctor_shows_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NIWAKI_CACHE", str(tmp_path))
    ObjectCache(tmp_path).add({"0" * 64: b"code"})
    assert run("doctor", "--json") == 0
    cache = json.loads(capsys.readouterr().out)["cache"]
    assert (cache["folder"], cache["objects"]) == (str(tmp_path), 1)
    assert 0 < cache["bytes"] < cache["limit_bytes"]
    monkeypatch.setenv("NIWAKI_CACHE", "off")
    assert run("doctor") == 0
    assert "off (NIWAKI_CACHE)" in capsys.readouterr().out


# --- failures


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["compile", "none.pt2", "-o", "out"], "cannot read none.pt2"),
        (["compile", "model.h5", "-o", "out"], "unknown kind of model file"),
        (["compile", MODEL], "-o OUT"),
        (["compile", MODEL, "-o", "out", "--update", "tail"], "unknown update 'tail'"),
        (["compile", MODEL, "-o", "out", "--target", "z80"], "unknown target 'z80'"),
        (["compile", MODEL, "-o", "out", "--lr", "-1"], "lr must be"),
        (["compile", MODEL, "-o", "out", "--threads", "2"], "C packages run on one thread"),
        (
            ["compile", MODEL, "-o", "o", "--emit", "llvm", "--target", "armv7", "--threads", "2"],
            "steps for armv7 run on one thread",
        ),
        (["compile", MODEL, "-o", "out", "--name", "a b"], "cannot start C names"),
        (["compile", MODEL, "-o", "out", "--stop-after", "nothing"], "not in the pipeline"),
        (["compile", MODEL, "-o", "none/out", "--emit", "llvm"], "cannot write none/out"),
        (
            ["compile", MODEL, "-o", "out", "--optimizer", "adam", "--momentum", "0.9"],
            "belong to sgd",
        ),
        (["train", MODEL, "--data", "none.npz", "-o", "o.safetensors"], "cannot read none.npz"),
        (["train", MODEL, "--data", "none.npz", "-o", "o.pt"], "must be a .safetensors file"),
        (["train", MODEL, "--data", "d", "-o", "o.safetensors", "--epochs", "0"], "--epochs"),
        (["report", MODEL, "-o", "out.pdf"], "must be a .html file"),
        (["report", MODEL, "--trace", "out.txt"], "must be a .json file"),
        (["report", MODEL, "--budgets", "-1"], "--budgets must be 0 or more"),
        (["verify", MODEL, "--steps", "0"], "--steps must be"),
    ],
)
def test_usage_errors(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    output = capsys.readouterr()
    assert message in output.err
    assert "Traceback" not in output.err
    assert output.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["grow"], ["compile"], ["compile", MODEL, "-o", "o", "--memory-limit", "256X"]],
)
def test_bad_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run(*arguments)
    assert end.value.code == 2
    assert "usage: niwaki" in capsys.readouterr().err


def test_every_command_has_a_line_of_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        run("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    files = Path(driver.__file__).parent.glob("*_command.py")
    assert {f.name.removesuffix("_command.py") for f in files} == set(driver.COMMANDS)
    for name, line in driver.COMMANDS.items():
        assert re.search(rf"^ +{name} +{line}$", text, re.MULTILINE)


def test_the_version_loads_no_compiler() -> None:
    script = (
        "import sys\nfrom niwaki.tools.driver import main\n"
        "try: main(['--version'])\nfinally: print([m for m in sys.modules if 'xdsl' in m])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith("niwaki ")
    assert done.stdout.endswith("\n[]\n")


def test_too_few_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_file(tmp_path / "d.npz", "finetune_train", 3)
    out = tmp_path / "o.safetensors"
    assert run("train", MODEL, "--batch", "8", "--data", data, "-o", out) == 2
    assert "3 sample(s), fewer than a batch of 8" in capsys.readouterr().err


def test_unsupported_ops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = unsupported_model(tmp_path / "m.onnx")
    assert run("compile", model, "-o", tmp_path / "out") == 3
    message = capsys.readouterr().err
    assert "CumSum" in message
    assert "Hardmax" in message


def test_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert run("compile", MODEL, "--memory-limit", "1K", "-o", out) == 4
    assert "the limit is 1,024" in capsys.readouterr().err
    assert not out.exists()


def test_damaged_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.pt2"
    model.write_bytes(Path(MODEL).read_bytes()[:9000])
    assert run("compile", model, "-o", tmp_path / "out") == 6
    assert "m.pt2" in capsys.readouterr().err


def test_internal_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(args: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(compile_command, "run", broken)
    assert run("compile", MODEL, "-o", "out") == 70
    error = capsys.readouterr().err
    assert error.splitlines() == [
        "niwaki: internal error: RuntimeError: first line (--traceback shows where)"
    ]
    assert run("compile", MODEL, "-o", "out", "--traceback") == 70
    assert "Traceback" in capsys.readouterr().err


def test_interrupt(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(compile_command, "run", interrupted)
    assert run("compile", MODEL, "-o", "out") == 130
    assert capsys.readouterr().err == "niwaki: interrupted\n"


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = f"{sys.executable} -m niwaki.tools.driver ops --json | head -c 10"
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert done.stdout.startswith("{")
    assert done.stderr == ""


# --- quantised models


def test_compile_quantised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The frozen weights take a quarter of the bytes."""
    data = data_file(tmp_path / "data.npz", "pretrain_train", 8)
    sizes: list[float] = []
    quantized = ["--quantize", str(data), "--calibration", "mse"]
    for flags in (list[str](), quantized):
        assert run("compile", MODEL, *HEAD, *flags, "-o", tmp_path / "out", "--json") == 0
        sizes.append(json.loads(capsys.readouterr().out)["constant_bytes"])

    assert sizes[1] < 0.4 * sizes[0]


def test_verify_quantised(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_file(tmp_path / "data.npz", "pretrain_train", 8)
    assert run("verify", MODEL, *HEAD, "--quantize", data, "--batch", "2", "--steps", "2") == 0
    assert "JIT: agrees" in capsys.readouterr().out
